package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"karve/engine/snapshot"
)

func newStore(t *testing.T, root string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: unpacking layers needs root")
	}
	snaps, err := snapshot.Open(filepath.Join(root, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(root, "images"), snaps, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPackAndLoad(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "program")
	if err := os.WriteFile(src, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := PackOptions{Name: "thing:3", Files: map[string]string{"/usr/bin/program": src}, Data: map[string][]byte{"etc/passwd": []byte("x")},
		Symlinks: map[string]string{"/bin": "usr/bin"}, Dirs: []string{"/tmp"}, Entrypoint: []string{"/bin/program"}, User: "5"}
	var packed [2][]byte
	for i := range packed {
		dst := filepath.Join(dir, "image.tar")
		if err := Pack(dst, o); err != nil {
			t.Fatal(err)
		}
		var err error
		if packed[i], err = os.ReadFile(dst); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("packing the same files twice gave different images")
	}
	root := t.TempDir()
	s := newStore(t, root)
	got, err := s.Load(context.Background(), filepath.Join(dir, "image.tar"), "other/alias")
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	for _, n := range []string{"thing:3", "docker.io/library/thing:3", "other/alias:latest", got[0].ID} {
		if im, err := s.Find(n); err != nil || im.ID != got[0].ID {
			t.Errorf("%s: %v, %v", n, im, err)
		}
	}
	cfg, err := s.Config(got[0])
	if err != nil || cfg.Config.User != "5" || cfg.Config.Entrypoint[0] != "/bin/program" {
		t.Errorf("%+v, %v", cfg, err)
	}
	dirs, err := s.snaps.Dirs(got[0].Chains)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dirs[0] + "/usr/bin/program"); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", fi, err)
	}
	if fi, err := os.Stat(dirs[0] + "/tmp"); err != nil || fi.Mode()&os.ModeSticky == 0 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := Pack(filepath.Join(dir, "bad.tar"), PackOptions{Name: "x", Files: map[string]string{"/a": filepath.Join(dir, "none")}}); err == nil {
		t.Error("packed a file that does not exist")
	}
	// A damaged index costs the images, not the store.
	if err := os.WriteFile(s.indexPath(), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := len(newStore(t, root).List()); n != 0 {
		t.Errorf("%d images from a damaged index", n)
	}
}

// layerOf makes a layer of headers without content.
func layerOf(t *testing.T, headers ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	tw.Close()
	gz.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHostileAndWhiteoutLayers(t *testing.T) {
	root := t.TempDir()
	s := newStore(t, root)
	victim := t.TempDir()
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	img, err := mutate.AppendLayers(empty.Image,
		layerOf(t, file("keep"), file("gone"), tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o700}, file("dir/old"),
			tar.Header{Name: "escape", Typeflag: tar.TypeSymlink, Linkname: victim}, file("escape/planted"), file("../../../../../.."+victim+"/planted")),
		layerOf(t, file(".wh.gone"), file("dir/.wh..wh..opq"), file("dir/new")))
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := Parse("hostile")
	im, err := s.take(context.Background(), img, []Reference{ref}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(victim); len(left) != 0 {
		t.Errorf("a layer wrote outside of its directory: %v", left)
	}
	dirs, err := s.snaps.Dirs(im.Chains)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dirs[1]+"/gone", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout is %o, %v", st.Mode, err)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(dirs[1]+"/dir", "trusted.overlay.opaque", buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("opaque directory: %q, %v", buf[:max(n, 0)], err)
	}
	if fi, err := os.Stat(dirs[1] + "/dir"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory that only the lower layer describes: %v, %v", fi, err)
	}
	// Content that is not what was promised is refused, and leaves nothing.
	bad, err := mutate.ConfigFile(img, func() *v1.ConfigFile {
		c, _ := img.ConfigFile()
		c = c.DeepCopy()
		c.RootFS.DiffIDs[1].Hex = strings.Repeat("0", 64)
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.take(context.Background(), bad, nil, nil); err == nil || !strings.Contains(err.Error(), "as promised") {
		t.Errorf("a layer with the wrong content: %v", err)
	}
}

// claims is an image whose manifest gives another size of its configuration.
type claims struct {
	v1.Image
	size int64
}

func (c claims) Manifest() (*v1.Manifest, error) {
	m, err := c.Image.Manifest()
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	m.Config.Size = c.size
	return m, nil
}

func (c claims) RawConfigFile() ([]byte, error) { panic("the configuration was fetched") }

// A registry must not make us hold what it likes in memory.
func TestLargeConfigurationIsNotFetched(t *testing.T) {
	s := newStore(t, t.TempDir())
	for _, size := range []int64{maxConfig + 1, 1 << 50, -1} {
		if _, err := s.take(t.Context(), claims{empty.Image, size}, nil, nil); err == nil || !strings.Contains(err.Error(), "are allowed") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
