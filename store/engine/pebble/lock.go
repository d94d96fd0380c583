package pebble

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lockName is the file whose lock means that a process uses the directory; it holds that process's id for people to read.
const lockName = "karve.lock"

// locks are the two locks of a directory: ours, and the one that Pebble's own tools honour.
type locks struct {
	ours   *os.File
	theirs io.Closer
}

func (l locks) Close() error { return errors.Join(l.theirs.Close(), l.ours.Close()) }

// lockDir takes the directory for this process until the result is closed or the process ends, however it ends.
func lockDir(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid, _ := io.ReadAll(io.LimitReader(f, 32))
			return nil, fmt.Errorf("data directory %s is in use by another karve (pid %s): stop it, or give another directory", dir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	// The file stays when the lock goes: removing it would race with the next owner.
	_ = f.Truncate(0)
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write lock of data directory %s: %w", dir, err)
	}
	theirs, err := vfs.Default.Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the database in data directory %s (end the tool that has it open): %w", dir, err)
	}
	return locks{f, theirs}, nil
}
