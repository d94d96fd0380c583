package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tarOf makes a layer of files with content; a name that ends in a slash is a directory.
func tarOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := tar.Header{Name: files[i], Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(files[i+1]))}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o711
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inside runs fn on a tmpfs in a mount namespace of its own, which goes with all its mounts.
func inside(t *testing.T, fn func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	base := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", base, "tmpfs", 0, "")); err != nil {
			t.Error("make a mount namespace:", err)
			return
		}
		fn(base)
	}()
	<-done
}

func opener(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestChains(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	got := Chains([]string{a, b, b})
	if got[0] != a || got[1] == b || got[2] == got[1] || len(got[2]) != len(a) {
		t.Errorf("chains %v", got)
	}
	if other := Chains([]string{b, b})[1]; other == got[1] {
		t.Error("a layer on another one has the same name")
	}
	if again := Chains([]string{a, b}); again[1] != got[1] {
		t.Error("the same layers have other names")
	}
}

func TestUnpackMountAndKeep(t *testing.T) {
	inside(t, func(dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "store", "tmp", "layer-left"), 0o700); err != nil {
			t.Error(err)
			return
		}
		s, err := Open(filepath.Join(dir, "store"))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := os.Stat(filepath.Join(dir, "store", "tmp", "layer-left")); err == nil {
			t.Error("what an interrupted unpacking left is still there")
		}
		chains := Chains([]string{"sha256:" + strings.Repeat("1", 64), "sha256:" + strings.Repeat("2", 64)})
		lower := tarOf(t, "d/", "", "d/kept", "kept", "d/gone", "gone", "over", "below")
		if err := s.Unpack(t.Context(), chains[0], nil, opener(lower)); err != nil {
			t.Error(err)
			return
		}
		if err := s.Unpack(t.Context(), chains[1], chains[:1], opener(tarOf(t, "d/.wh.gone", "", "over", "above"))); err != nil {
			t.Error(err)
			return
		}
		if n := s.Size(chains[0]); n < int64(len("keptgonebelow")) {
			t.Errorf("size %d", n)
		}
		dirs, err := s.Dirs(chains)
		if err != nil {
			t.Error(err)
			return
		}
		scratch, root, view := filepath.Join(dir, "scratch"), filepath.Join(dir, "root"), filepath.Join(dir, "view")
		for _, d := range []string{scratch, root, view} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(Mount(dirs, scratch, root), View(dirs, view)); err != nil {
			t.Error(err)
			return
		}
		for _, at := range []string{root, view} {
			if got := read(t, at, "d/kept") + " " + read(t, at, "d/gone") + " " + read(t, at, "over"); got != "kept - above" {
				t.Errorf("%s shows %s", at, got)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "over"), []byte("written"), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(view, "over"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to a view: %v", err)
		}
		if got := read(t, scratch, "upper/over") + " " + read(t, dirs[1], "over"); got != "written above" {
			t.Errorf("what was written, and the layer: %s", got)
		}
		for range 2 { // what is not mounted is no error
			if err := errors.Join(Unmount(root), Unmount(view), Unmount(filepath.Join(dir, "none"))); err != nil {
				t.Error(err)
			}
		}
		if got := read(t, root, "over"); got != "-" {
			t.Errorf("still mounted: %s", got)
		}
		// Of one layer, a view is no overlay; of none, a root is an empty directory.
		empty := filepath.Join(dir, "empty")
		if err := errors.Join(os.Mkdir(empty, 0o755), View(dirs[:1], view), Mount(nil, empty, root)); err != nil {
			t.Error(err)
			return
		}
		if err := os.WriteFile(filepath.Join(view, "over"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to the view of one layer: %v", err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
			t.Errorf("a root without layers has %v, %v", left, err)
		}
		if err := errors.Join(Unmount(view), Unmount(root), s.Sync(), s.Keep(map[string]bool{chains[0]: true})); err != nil {
			t.Error(err)
		}
		if !s.Has(chains[0]) || s.Has(chains[1]) {
			t.Errorf("kept %t, %t: want the first alone", s.Has(chains[0]), s.Has(chains[1]))
		}
	})
}

func TestBrokenLayersLeaveNothing(t *testing.T) {
	root := t.TempDir()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	chain := "sha256:" + strings.Repeat("3", 64)
	whole := tarOf(t, "f", "content")
	wrong := errors.New("the digest differs")
	for name, r := range map[string]io.Reader{
		"cut off":            bytes.NewReader(whole[:514]),
		"refused at its end": io.MultiReader(bytes.NewReader(whole), failing{wrong}),
	} {
		err := s.Unpack(t.Context(), chain, nil, func() (io.ReadCloser, error) { return io.NopCloser(r), nil })
		left, _ := os.ReadDir(filepath.Join(root, "tmp"))
		if err == nil || s.Has(chain) || len(left) != 0 {
			t.Errorf("a layer %s: %v, there: %t, left: %v", name, err, s.Has(chain), left)
		}
	}
	if err := s.Unpack(t.Context(), chain, []string{"sha256:none"}, opener(whole)); err == nil {
		t.Error("unpacked on a layer that is not there")
	}
	if _, err := s.Dirs([]string{chain}); err == nil {
		t.Error("there is a directory of a layer that is not there")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestUnpackOnce(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	chain := "sha256:" + strings.Repeat("4", 64)
	began, goOn := make(chan struct{}), make(chan struct{})
	opened := 0
	open := func() (io.ReadCloser, error) {
		opened++ // a second call would be a race, too
		close(began)
		<-goOn
		return io.NopCloser(bytes.NewReader(tarOf(t, "f", "x"))), nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Unpack(t.Context(), chain, nil, open); err != nil {
			t.Error(err)
		}
	})
	<-began
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Unpack(impatient, chain, nil, open); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for another's work: %v", err)
	}
	if err := s.Keep(nil); err != nil { // what is being unpacked is kept
		t.Error(err)
	}
	wg.Go(func() {
		if err := s.Unpack(t.Context(), chain, nil, open); err != nil {
			t.Error(err)
		}
	})
	close(goOn)
	wg.Wait()
	if opened != 1 || !s.Has(chain) {
		t.Errorf("opened %d times, there: %t", opened, s.Has(chain))
	}
}
