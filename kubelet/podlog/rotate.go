package podlog

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Reopener makes the runtime write to a new file.
type Reopener interface {
	ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error)
}

// Rotate renames the log of a running container when it is larger than size bytes, makes the runtime begin a new one, and
// keeps at most files of them, the current one included. All but the newest of the old ones are compressed.
func Rotate(ctx context.Context, r Reopener, id, path string, size int64, files int, now time.Time) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() < size {
		return nil
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	slices.Sort(old)
	for len(old) > max(files-2, 0) {
		if err := os.Remove(old[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate log: %w", err)
		}
		old = old[1:]
	}
	for _, o := range old {
		if strings.HasSuffix(o, ".gz") {
			continue
		}
		if err := compress(o); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	moved := path + "." + now.Format("20060102-150405")
	if err := os.Rename(path, moved); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if _, err := r.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("rotate log: %w", errors.Join(err, os.Rename(moved, path)))
	}
	return nil
}

func compress(path string) error {
	in, err := open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	if err := os.Rename(path+".tmp", path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// Files returns the old files of a log and the log itself, the oldest first.
func Files(path string) []string {
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return []string{path}
	}
	slices.Sort(old)
	return append(old, path)
}
