package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestListCountsFailures(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := &list{out: f}
	ok := l.check(t.Context(), "good", time.Minute, func(context.Context) (string, error) { return "seen", nil })
	bad := l.check(t.Context(), "bad", time.Millisecond, func(ctx context.Context) (string, error) {
		return until(ctx, func() (string, error) { return "", errors.New("still broken") })
	})
	if !ok || bad || l.failed != 1 || l.done != 2 {
		t.Errorf("%v %v %+v", ok, bad, l)
	}
	out, _ := os.ReadFile(f.Name())
	lines := strings.Split(string(out), "\n")
	if !strings.Contains(lines[0], "✓ good") || !strings.HasSuffix(lines[0], "seen") || !strings.Contains(lines[1], "✗ bad") || !strings.HasSuffix(lines[1], "still broken") {
		t.Errorf("got %q", lines)
	}
}

func TestAnsweringTellsVersionsApart(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		version, pod := "v1", []string{"web-a", "web-b"}[n%2]
		if n > 10 {
			version = "v2"
		}
		_ = json.NewEncoder(w).Encode(page{Version: version, Web: pod})
	}))
	defer s.Close()
	d := &demo{port: s.Listener.Addr().(*net.TCPAddr).Port}
	got, err := d.answering(t.Context(), 4, "v1")
	if err != nil || len(got) != 2 || !got["web-a"] {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := d.answering(t.Context(), 10, "v1"); err == nil || !strings.Contains(err.Error(), "as v2, not v1") {
		t.Errorf("got %v", err)
	}
}

func TestReadyLeavesOutWhoIsGoing(t *testing.T) {
	var l struct{ Items []pod }
	err := json.Unmarshal([]byte(`{"items":[
		{"metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"True"}]}},
		{"metadata":{"name":"b","deletionTimestamp":"2026-01-01T00:00:00Z"},"status":{"conditions":[{"type":"Ready","status":"True"}]}},
		{"metadata":{"name":"c"},"status":{"conditions":[{"type":"Ready","status":"False"}]}},
		{"metadata":{"name":"d"}}]}`), &l)
	if err != nil {
		t.Fatal(err)
	}
	if got := readyNames(l.Items); len(got) != 1 || !got["a"] {
		t.Errorf("got %v", got)
	}
}
