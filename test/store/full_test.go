package store

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk fills the file system below a running API server: it stays up and answers reads and watches, refuses writes
// with an error that says what to do, and takes them again once there is space, without a restart. Nothing it acknowledged
// is lost.
func TestFullDisk(t *testing.T) {
	program(t)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root may mount the small file system, so a full disk is NOT tried")
	}
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=96m,mode=0700"); err != nil {
		t.Skipf("SKIPPED: no file system can be mounted here, so a full disk is NOT tried: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s := newServer(t, filepath.Join(mount, "data"))
	t.Cleanup(func() { s.end(syscall.SIGTERM) }) // before the file system goes
	s.begin()
	s.ready()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	create := func(name string) (object, int) {
		t.Helper()
		o := object{Data: map[string]string{"text": strings.Repeat("x", 1000)}}
		o.Metadata.Name = name
		got, code, err := s.send(ctx, s.http, http.MethodPost, configMaps, &o)
		if err != nil {
			t.Fatal(err)
		}
		return got, code
	}
	if got, code := create("before"); code != http.StatusCreated {
		t.Fatalf("create: %d %s", code, got.Message)
	}
	filler := filepath.Join(mount, "filler")
	for round, left := range []uint64{25 << 20, 1 << 20, 0} {
		fillUp(t, filler, mount, left)
		refused, code := create(fmt.Sprintf("refused-%d", round))
		if code < 500 || !strings.Contains(refused.Message, "disk is full") || !strings.Contains(refused.Message, "free some space") {
			t.Errorf("with %d bytes left: %d %s", left, code, refused.Message)
		}
		got, code, err := s.send(ctx, s.http, http.MethodGet, configMaps+"/before", nil)
		if err != nil || code != http.StatusOK || got.Data["text"] == "" {
			t.Errorf("get with %d bytes left: %d %v", left, code, err)
		}
		if _, code, err := s.send(ctx, s.http, http.MethodGet, configMaps+fmt.Sprintf("/refused-%d", round), nil); err != nil || code != http.StatusNotFound {
			t.Errorf("what was refused is there: %d %v", code, err)
		}
		if left > 16<<20 { // deletes are what people make space with
			if got, code, err := s.send(ctx, s.http, http.MethodDelete, configMaps+"/before", nil); err != nil || code != http.StatusOK {
				t.Errorf("delete with %d bytes left: %d %s %v", left, code, got.Message, err)
			}
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		again := "before"
		if left <= 16<<20 {
			again = fmt.Sprintf("after-%d", round)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			got, code := create(again)
			if code == http.StatusCreated {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("with space again: %d %s", code, got.Message)
			}
		}
	}
	s.end(syscall.SIGKILL)
	s.begin()
	s.ready()
	l, code, err := s.send(ctx, s.http, http.MethodGet, configMaps, nil)
	var names []string
	for _, o := range l.Items {
		if o.Metadata.Name != "kube-root-ca.crt" {
			names = append(names, o.Metadata.Name)
		}
	}
	if want := "[after-1 after-2 before]"; err != nil || code != http.StatusOK || fmt.Sprint(names) != want {
		t.Errorf("after a restart there is %v, want %s (%d %v)", names, want, code, err)
	}
}

// fillUp makes a file so big that so many bytes are left.
func fillUp(t *testing.T, name, mount string, left uint64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for {
		var st syscall.Statfs_t
		if err := syscall.Statfs(mount, &st); err != nil {
			t.Fatal(err)
		}
		free := st.Bavail * uint64(st.Bsize)
		if free <= left {
			return
		}
		if _, err := f.Write(chunk[:min(free-left, uint64(len(chunk)))]); err != nil {
			return // full sooner than it said
		}
	}
}
