package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// PackOptions describe an image made of files, without a base.
type PackOptions struct {
	Name       string            // what the image is called when loaded; any spelling
	Files      map[string]string // path in the image → file on this machine; the permission bits are kept, the owner is root
	Data       map[string][]byte // path in the image → content, mode 0644
	Symlinks   map[string]string // path in the image → target
	Dirs       []string          // empty directories, mode 0755; /tmp gets 01777
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	WorkingDir string
	User       string
	StopSignal string
	Labels     map[string]string
}

type packEntry struct {
	header tar.Header
	source string
	data   []byte
}

// Pack writes an OCI layout as a tarball to dst. The same input gives the same bytes.
func Pack(dst string, o PackOptions) error {
	if err := pack(dst, o); err != nil {
		return fmt.Errorf("pack image %s: %w", o.Name, err)
	}
	return nil
}

func pack(dst string, o PackOptions) error {
	ref, err := Parse(o.Name)
	if err != nil {
		return err
	}
	layer, err := os.CreateTemp(filepath.Dir(dst), ".layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	diff, digest, size, err := packLayer(layer, o)
	if err != nil {
		return err
	}
	env := o.Env
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	}
	cfg, err := json.Marshal(v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}},
		History: []v1.History{{CreatedBy: "karve", Created: v1.Time{Time: time.Unix(0, 0).UTC()}}},
		Config: v1.Config{Entrypoint: o.Entrypoint, Cmd: o.Cmd, Env: env, WorkingDir: o.WorkingDir, User: o.User,
			StopSignal: o.StopSignal, Labels: o.Labels},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(cfg)), Digest: sumOf(cfg)},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: size, Digest: digest}},
	})
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: sumOf(manifest),
			Platform: &platform, Annotations: map[string]string{nameAnnotations[0]: ref.String(), nameAnnotations[1]: ref.String()}}},
	})
	if err != nil {
		return err
	}
	return packLayout(dst, layer, digest, size, cfg, manifest, index)
}

func sumOf(b []byte) v1.Hash {
	h := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h[:])}
}

func packLayout(dst string, layer *os.File, digest v1.Hash, size int64, cfg, manifest, index []byte) error {
	out, err := os.CreateTemp(filepath.Dir(dst), ".image-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	tw := tar.NewWriter(out)
	put := func(name string, n int64, r io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: n, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	marker := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	err = errors.Join(
		put("oci-layout", int64(len(marker)), bytes.NewReader(marker)),
		put("index.json", int64(len(index)), bytes.NewReader(index)),
		put("blobs/sha256/"+sumOf(cfg).Hex, int64(len(cfg)), bytes.NewReader(cfg)),
		put("blobs/sha256/"+sumOf(manifest).Hex, int64(len(manifest)), bytes.NewReader(manifest)),
		put("blobs/sha256/"+digest.Hex, size, layer),
		tw.Close(),
	)
	if err != nil {
		return err
	}
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(out.Name(), dst)
}

// packLayer writes the only layer, compressed, and returns the digests of its content and of what it wrote.
func packLayer(w io.Writer, o PackOptions) (diff, digest v1.Hash, size int64, err error) {
	entries, err := packEntries(o)
	if err != nil {
		return diff, digest, 0, err
	}
	outSum, inSum := sha256.New(), sha256.New()
	n := &lengthWriter{}
	gz, err := gzip.NewWriterLevel(io.MultiWriter(w, outSum, n), gzip.BestSpeed)
	if err != nil {
		return diff, digest, 0, err
	}
	tw := tar.NewWriter(io.MultiWriter(gz, inSum))
	for i := range entries {
		if err := packOne(tw, &entries[i]); err != nil {
			return diff, digest, 0, err
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		return diff, digest, 0, err
	}
	diff = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(inSum.Sum(nil))}
	digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(outSum.Sum(nil))}
	return diff, digest, n.n, nil
}

type lengthWriter struct{ n int64 }

func (l *lengthWriter) Write(p []byte) (int, error) { l.n += int64(len(p)); return len(p), nil }

func packOne(tw *tar.Writer, e *packEntry) error {
	if e.source == "" {
		if err := tw.WriteHeader(&e.header); err != nil {
			return err
		}
		_, err := tw.Write(e.data)
		return err
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", e.source)
	}
	e.header.Size, e.header.Mode = fi.Size(), int64(fi.Mode().Perm())
	if err := tw.WriteHeader(&e.header); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// packEntries lists everything in the layer, every directory before what is in it.
func packEntries(o PackOptions) ([]packEntry, error) {
	all := map[string]packEntry{}
	put := func(name string, e packEntry) error {
		clean := strings.TrimPrefix(path.Clean("/"+name), "/")
		if clean == "" {
			return errors.New("an entry without a name")
		}
		if _, dup := all[clean]; dup {
			return fmt.Errorf("%s is there twice", clean)
		}
		e.header.Name, e.header.ModTime = clean, time.Unix(0, 0)
		all[clean] = e
		return nil
	}
	var errs []error
	for name, src := range o.Files {
		errs = append(errs, put(name, packEntry{source: src, header: tar.Header{Typeflag: tar.TypeReg}}))
	}
	for name, b := range o.Data {
		errs = append(errs, put(name, packEntry{data: b, header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b))}}))
	}
	for name, target := range o.Symlinks {
		errs = append(errs, put(name, packEntry{header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}}))
	}
	for _, name := range o.Dirs {
		errs = append(errs, put(name, packEntry{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for name := range all {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if _, ok := all[d]; !ok {
				_ = put(d, packEntry{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}})
			}
		}
	}
	out := make([]packEntry, 0, len(all))
	for name, e := range all {
		if e.header.Typeflag == tar.TypeDir {
			e.header.Name += "/"
			if name == "tmp" {
				e.header.Mode = 0o1777
			}
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b packEntry) int { return strings.Compare(a.header.Name, b.header.Name) })
	return out, nil
}
