package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a container writes goes into a plain file of the logs, and nowhere else.
func TestLogIsAPlainFile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("root"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo, plain := filepath.Join(dir, "link"), filepath.Join(dir, "fifo"), filepath.Join(dir, "plain")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0) // so that opening it for writing succeeds
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, path := range []string{link, fifo} {
		if l, err := openLog(path); err == nil {
			l.write("stdout", []byte("x\n"), time.Unix(0, 0))
			l.close()
			t.Errorf("%s was taken for a log", path)
		}
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "root" {
		t.Errorf("the file outside is now %q, %v", b, err)
	}
	l, err := openLog(plain)
	if err != nil {
		t.Fatal(err)
	}
	l.write("stdout", []byte("hello\n"), time.Unix(0, 0).UTC())
	l.close()
	if b, err := os.ReadFile(plain); err != nil || string(b) != "1970-01-01T00:00:00Z stdout F hello\n" {
		t.Errorf("%q, %v", b, err)
	}
}
