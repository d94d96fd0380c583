package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// nameAnnotations say how an image in a layout is called, the most specific first.
var nameAnnotations = []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"}

// Load adds the images of a file: a tarball as docker save makes, or an OCI layout as directory or tarball, either of
// them compressed or not. alias, if not empty, names the only image in it besides the names it carries.
func (s *Store) Load(ctx context.Context, path, alias string) ([]*Image, error) {
	out, err := s.load(ctx, path, alias)
	if err != nil {
		return nil, fmt.Errorf("load images from %s: %w", path, err)
	}
	return out, nil
}

func (s *Store) load(ctx context.Context, path, alias string) ([]*Image, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return s.loadLayout(ctx, path, alias)
	}
	dir, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), "load-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	docker, err := untar(path, dir)
	if err != nil {
		return nil, err
	}
	if !docker {
		return s.loadLayout(ctx, dir, alias)
	}
	return s.loadDocker(ctx, path, dir, alias)
}

// untar extracts the plain files of an archive and tells whether it is docker's. Names that leave dir are refused by
// os.Root; links, which layouts have no use for, are skipped.
func untar(path, dir string) (docker bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r, err := decompress(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		return false, err
	}
	defer r.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return docker, nil
		}
		if err != nil {
			return false, err
		}
		n := strings.TrimPrefix(filepath.Clean("/"+h.Name), "/")
		if h.Typeflag != tar.TypeReg || n == "" {
			continue
		}
		if n == "manifest.json" {
			docker = true
		}
		if err := root.MkdirAll(filepath.Dir(n), 0o700); err != nil {
			return false, err
		}
		w, err := root.OpenFile(n, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return false, err
		}
		_, err = io.Copy(w, tr)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return false, err
		}
	}
}

func (s *Store) loadLayout(ctx context.Context, dir, alias string) ([]*Image, error) {
	p, err := layout.FromPath(dir)
	if err != nil {
		return nil, err
	}
	idx, err := p.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, d := range m.Manifests {
		var refs []Reference
		for _, a := range nameAnnotations {
			if n := d.Annotations[a]; n != "" {
				if r, err := Parse(n); err == nil {
					refs = append(refs, r)
					break
				}
			}
		}
		img, err := pick(idx, d)
		if err != nil {
			return nil, err
		}
		if img == nil {
			continue
		}
		im, err := s.loadOne(ctx, img, refs, alias, len(m.Manifests) == 1)
		if err != nil {
			return nil, err
		}
		out = append(out, im)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no image for %s/%s in it", platform.OS, platform.Architecture)
	}
	return out, nil
}

// pick returns the image a descriptor stands for on this platform, or nil.
func pick(idx v1.ImageIndex, d v1.Descriptor) (v1.Image, error) {
	if d.MediaType.IsImage() {
		if d.Platform != nil && (d.Platform.OS != platform.OS || d.Platform.Architecture != platform.Architecture) {
			return nil, nil
		}
		return idx.Image(d.Digest)
	}
	if !d.MediaType.IsIndex() {
		return nil, nil
	}
	sub, err := idx.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	m, err := sub.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, c := range m.Manifests {
		if c.MediaType.IsImage() && (c.Platform == nil || c.Platform.OS == platform.OS && c.Platform.Architecture == platform.Architecture) {
			return sub.Image(c.Digest)
		}
	}
	return nil, nil
}

func (s *Store) loadDocker(ctx context.Context, path, dir, alias string) ([]*Image, error) {
	open := func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		r, err := decompress(bufio.NewReaderSize(f, 64<<10))
		if err != nil {
			f.Close()
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{r, f}, nil
	}
	m, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, d := range m {
		var refs []Reference
		var tag *name.Tag
		for _, t := range d.RepoTags {
			r, err := Parse(t)
			if err != nil {
				return nil, err
			}
			refs = append(refs, r)
			if nt, err := name.NewTag(t); err == nil && tag == nil {
				tag = &nt
			}
		}
		if tag == nil && len(m) > 1 {
			return nil, errors.New("several images and one without a name")
		}
		img, err := tarball.Image(open, tag)
		if err != nil {
			return nil, err
		}
		im, err := s.loadOne(ctx, img, refs, alias, len(m) == 1)
		if err != nil {
			return nil, err
		}
		out = append(out, im)
	}
	return out, nil
}

func (s *Store) loadOne(ctx context.Context, img v1.Image, refs []Reference, alias string, only bool) (*Image, error) {
	if alias != "" {
		if !only {
			return nil, errors.New("a name was given but there are several images")
		}
		r, err := Parse(alias)
		if err != nil {
			return nil, err
		}
		refs = append(refs, r)
	}
	return s.take(ctx, img, refs, nil)
}
