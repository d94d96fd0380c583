package podlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type reopener struct{ path string }

func (r reopener) ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	return &runtimeapi.ReopenContainerLogResponse{}, os.WriteFile(r.path, nil, 0o600)
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *safeBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), text)
}

func TestFollowGoesOnAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	add(t, path, "one")
	out, ended := &safeBuffer{}, atomic.Bool{}
	done := make(chan error, 1)
	go func() {
		done <- Read(context.Background(), path, out, Options{Follow: true, Done: ended.Load})
	}()
	wait := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); out.String() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("got %q, want %q", out.String(), want)
			}
		}
	}
	wait("one\n")
	add(t, path, "two")
	if err := Rotate(context.Background(), reopener{path}, "c", path, 1, 5, time.Now()); err != nil {
		t.Fatal(err)
	}
	add(t, path, "three")
	wait("one\ntwo\nthree\n")
	add(t, path, "four")
	ended.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wait("one\ntwo\nthree\nfour\n")
}

func TestRotateKeepsSoManyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 6 {
		add(t, path, fmt.Sprint(i))
		if err := Rotate(context.Background(), reopener{path}, "c", path, 1, 3, at.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, f := range Files(path) {
		names = append(names, filepath.Base(f))
	}
	if got := strings.Join(names, " "); got != "0.log.20260101-000400.gz 0.log.20260101-000500 0.log" {
		t.Error(got)
	}
	small := filepath.Join(dir, "small.log")
	add(t, small, "x")
	if err := Rotate(context.Background(), reopener{small}, "c", small, 1<<20, 3, at); err != nil || len(Files(small)) != 1 {
		t.Errorf("rotated a small file: %v", err)
	}
}

func TestTailOverManyBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "2026-01-01T00:00:00Z stdout F line %d %s\n", i, strings.Repeat("x", i%97))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 2, 700, 4999, 5000, 9999} {
		var out bytes.Buffer
		if err := Read(context.Background(), path, &out, Options{Tail: &n}); err != nil {
			t.Fatal(err)
		}
		if got, want := int64(strings.Count(out.String(), "\n")), min(n, 5000); got != want || !strings.HasPrefix(out.String(), fmt.Sprintf("line %d ", 5000-want)) {
			t.Errorf("tail %d: %d lines, begins %.20q", n, got, out.String())
		}
	}
}

// A runtime that was killed leaves a line without an end. It is shown, once, and not run together with the next file's.
func TestLineWithoutEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	half := "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stdout F two, unfini"
	if err := os.WriteFile(path, []byte(half), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int64]string{1: "two, unfini\n", 2: "one\ntwo, unfini\n", 3: "one\ntwo, unfini\n"} {
		if got := Tail(t.Context(), path, n, 100); got != want {
			t.Errorf("the last %d: %q, want %q", n, got, want)
		}
	}
	rotatedOnce := false
	out := &safeBuffer{}
	err := Read(t.Context(), path, out, Options{Follow: true, Done: func() bool {
		if !rotatedOnce { // the first look is before anything is read
			rotatedOnce = true
			if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, []byte("2026-01-01T00:00:00Z stdout F three\n2026-01-01T00:00:00Z stdout F fo"), 0o600)); err != nil {
				t.Error(err)
			}
			return false
		}
		return true
	}})
	if want := "one\ntwo, unfini\nthree\nfo\n"; err != nil || out.String() != want {
		t.Errorf("followed %q, %v, want %q", out.String(), err, want)
	}
	if err := os.WriteFile(path, []byte("2026-01-01T00:00:00Z std"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(t.Context(), path, 5, 100); got != "" {
		t.Errorf("half a head of a line shows as %q", got)
	}
}
