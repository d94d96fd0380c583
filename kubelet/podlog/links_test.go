package podlog

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever gets a link into the logs' directory must not get at what it leads to, neither by reading the log nor by its
// rotation.
func TestLinksAreNotFollowed(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(outside, []byte("2026-01-01T00:00:00Z stdout F secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0.log")
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Read(t.Context(), path, &out, Options{}); err == nil || out.Len() > 0 {
		t.Errorf("read %q, %v", out.String(), err)
	}
	if err := Read(t.Context(), dir, &out, Options{}); err == nil {
		t.Error("read a directory")
	}
	// The newest of the old files is compressed at the next rotation.
	log := filepath.Join(dir, "1.log")
	for name, to := range map[string]string{log + ".20260101-000000": "", log + ".20260102-000000": outside, log + ".20260101-000000.tmp": outside} {
		var err error
		if to == "" {
			err = os.WriteFile(name, []byte("old"), 0o600)
		} else {
			err = os.Symlink(to, name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(log, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rotate(t.Context(), reopener{}, "c", log, 1, 9, time.Unix(0, 0)); err == nil {
		t.Error("rotated through links")
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "2026-01-01T00:00:00Z stdout F secret\n" {
		t.Errorf("the file outside is now %q, %v", b, err)
	}
}
