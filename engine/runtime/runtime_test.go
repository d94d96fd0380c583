package runtime

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestUnpack(t *testing.T) {
	root := t.TempDir()
	sums := fmt.Sprintf("%x  runc\n%x  karve-shim\n", sha256.Sum256([]byte("r")), sha256.Sum256([]byte("s")))
	whole := fstest.MapFS{"bin/runc": {Data: []byte("r")}, "bin/karve-shim": {Data: []byte("s")}, "bin/sums": {Data: []byte(sums)}}
	p, err := unpack(whole, root)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(p.Shim); err != nil || string(b) != "s" {
		t.Fatalf("shim: %q, %v", b, err)
	}
	if fi, err := os.Stat(p.Runc); err != nil || fi.Mode().Perm() != 0o755 {
		t.Fatalf("runc: %v, %v", fi, err)
	}
	again, err := unpack(whole, root)
	if err != nil || again != p {
		t.Fatalf("second unpack: %+v, %v", again, err)
	}
	entries, _ := os.ReadDir(root)
	if len(entries) != 1 {
		t.Fatalf("left behind: %v", entries)
	}
	for name, bad := range map[string]fstest.MapFS{
		"nothing":  {},
		"no shim":  {"bin/runc": {Data: []byte("r")}, "bin/sums": {Data: []byte(sums)}},
		"tampered": {"bin/runc": {Data: []byte("x")}, "bin/karve-shim": {Data: []byte("s")}, "bin/sums": {Data: []byte(sums)}},
	} {
		if _, err := unpack(bad, t.TempDir()); err == nil || !strings.Contains(err.Error(), "make build") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
