package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type fake struct{ images map[string]string }

func (f *fake) Load(_ context.Context, path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f.images["loaded"] = string(data)
	return []string{"loaded"}, nil
}

func (f *fake) List(context.Context) ([]Image, error) {
	var out []Image
	for n := range f.images {
		out = append(out, Image{Names: []string{n}})
	}
	return out, nil
}

func (f *fake) Remove(_ context.Context, name string) error {
	if _, ok := f.images[name]; !ok {
		return errors.New("no image " + name)
	}
	delete(f.images, name)
	return nil
}

func (f *fake) Pull(_ context.Context, name string) (string, error) {
	f.images[name] = ""
	return "full/" + name, nil
}

func start(t *testing.T, s *Server) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state", "control.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	for {
		if fi, err := os.Stat(path); err == nil {
			if fi.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", fi.Mode())
			}
			return Dial(path)
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestImages(t *testing.T) {
	f := &fake{images: map[string]string{}}
	spool := t.TempDir()
	c := start(t, &Server{Images: f, Spool: spool})
	ctx := t.Context()
	names, err := c.Load(ctx, strings.NewReader("a tarball"))
	if err != nil || !slices.Equal(names, []string{"loaded"}) || f.images["loaded"] != "a tarball" {
		t.Errorf("load: %v, %v, %v", names, err, f.images)
	}
	if left, _ := os.ReadDir(spool); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
	if name, err := c.Pull(ctx, "web:v1&x"); err != nil || name != "full/web:v1&x" {
		t.Errorf("pull: %q, %v", name, err)
	}
	if list, err := c.List(ctx); err != nil || len(list) != 2 {
		t.Errorf("list: %v, %v", list, err)
	}
	if err := c.Remove(ctx, "loaded"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, "loaded"); err == nil || err.Error() != "no image loaded" {
		t.Errorf("second remove: %v", err)
	}
}

func TestComponentsAndNoNode(t *testing.T) {
	c := start(t, &Server{Components: func() []Component { return []Component{{Name: "scheduler", Healthy: true}} }})
	got, err := c.Components(t.Context())
	if err != nil || len(got) != 1 || got[0].Name != "scheduler" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := c.List(t.Context()); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Errorf("got %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := Dial(filepath.Join(t.TempDir(), "none")).List(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, &Server{}) }()
	for {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := Serve(ctx, path, &Server{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
