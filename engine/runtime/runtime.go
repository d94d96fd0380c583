// Package runtime carries the programs the engine runs, runc and karve-shim, and puts them on disk.
//
// The engine calls Unpack once at start. The package owns the embedded files and the directory they are unpacked to; it
// starts nothing. The files are made by build.sh and are not part of the source.
package runtime

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed all:bin
var files embed.FS

// Programs are the paths of the unpacked programs.
type Programs struct {
	Dir  string // the directory that holds both, named by their content
	Runc string
	Shim string
}

var names = []string{"runc", "karve-shim"}

// Unpack puts the programs under root/<hash>/ unless they are there already, and returns where. Another process may do
// the same at the same time. The error says what to do when the program was built without them.
func Unpack(root string) (Programs, error) { return unpack(files, root) }

func unpack(from fs.FS, root string) (Programs, error) {
	sums, err := fs.ReadFile(from, "bin/sums")
	if err != nil {
		return Programs{}, errors.New("runc and karve-shim are not part of this build: run make build")
	}
	h := sha256.Sum256(sums)
	dir := filepath.Join(root, hex.EncodeToString(h[:]))
	p := Programs{Dir: dir, Runc: filepath.Join(dir, names[0]), Shim: filepath.Join(dir, names[1])}
	if _, err := os.Stat(dir); err == nil {
		return p, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return Programs{}, fmt.Errorf("unpack programs: %w", err)
	}
	tmp, err := os.MkdirTemp(root, ".unpack-")
	if err != nil {
		return Programs{}, fmt.Errorf("unpack programs: %w", err)
	}
	defer os.RemoveAll(tmp)
	for _, name := range names {
		b, err := fs.ReadFile(from, "bin/"+name)
		if err != nil {
			return Programs{}, fmt.Errorf("%s is not part of this build: run make build", name)
		}
		sum := sha256.Sum256(b)
		if !strings.Contains(string(sums), hex.EncodeToString(sum[:])+"  "+name+"\n") {
			return Programs{}, fmt.Errorf("%s is not the one this build was made with: run make build", name)
		}
		if err := writeSynced(filepath.Join(tmp, name), b); err != nil {
			return Programs{}, fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	release()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Programs{}, fmt.Errorf("unpack programs: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, serr := os.Stat(dir); serr != nil {
			return Programs{}, fmt.Errorf("unpack programs: %w", err)
		}
	}
	return p, nil
}

// writeSynced flushes, because the directory's name vouches for the content for ever after.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// release asks the kernel to take back the pages of this program's read-only data, where the embedded programs lie; they
// would otherwise count as used memory until it is short. The pages come back from the file when touched. Best effort.
func release() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "r--p" || f[5] != exe {
			continue
		}
		var lo, hi uintptr
		if _, err := fmt.Sscanf(f[0], "%x-%x", &lo, &hi); err == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, lo, hi-lo, unix.MADV_PAGEOUT)
		}
	}
}
