// Package snapshot holds unpacked image layers and stacks them with overlayfs.
//
// The image store unpacks layers into it, the engine mounts containers' root file systems from it. It owns the directory
// it is given and nothing else; which layers are still needed is told to it. A layer is named by its chain: the hash over
// its own content and everything below it.
package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/pkg/archive"
	"golang.org/x/sys/unix"
)

// Store is a directory of layers. Its methods may be called concurrently; one Store per directory.
type Store struct {
	root string
	mu   sync.Mutex
	busy map[string]chan struct{} // chains being unpacked
}

// Open prepares root and removes what an interrupted unpacking left.
func Open(root string) (*Store, error) {
	for _, d := range []string{root, filepath.Join(root, "tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	old, _ := os.ReadDir(filepath.Join(root, "tmp"))
	for _, e := range old {
		_ = os.RemoveAll(filepath.Join(root, "tmp", e.Name()))
	}
	return &Store{root: root, busy: map[string]chan struct{}{}}, nil
}

// Chains turns the digests of uncompressed layers, lowest first, into the chains that name them here.
func Chains(diffIDs []string) []string {
	out := make([]string, len(diffIDs))
	prev := ""
	for i, d := range diffIDs {
		if i > 0 {
			h := sha256.Sum256([]byte(prev + " " + d))
			d = "sha256:" + hex.EncodeToString(h[:])
		}
		out[i], prev = d, d
	}
	return out
}

// dir is short, because the kernel takes only a page of mount options where it lacks a newer interface.
func (s *Store) dir(chain string) string {
	_, h, _ := strings.Cut(chain, ":")
	if len(h) > 32 {
		h = h[:32]
	}
	return filepath.Join(s.root, h)
}

// Has tells whether a chain is unpacked.
func (s *Store) Has(chain string) bool {
	_, err := os.Stat(filepath.Join(s.dir(chain), "size"))
	return err == nil
}

// Dirs returns the directories of chains, in the same order.
func (s *Store) Dirs(chains []string) ([]string, error) {
	out := make([]string, len(chains))
	for i, c := range chains {
		if !s.Has(c) {
			return nil, fmt.Errorf("layer %s is not unpacked", c)
		}
		out[i] = filepath.Join(s.dir(c), "fs")
	}
	return out, nil
}

// Size is the number of bytes in a layer's files.
func (s *Store) Size(chain string) int64 {
	b, err := os.ReadFile(filepath.Join(s.dir(chain), "size"))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return n
}

// Unpack applies an uncompressed layer on top of the chains below it, lowest first. open is called only if the layer is
// not there yet; what it returns must fail its last Read when the content is not what was asked for. Two calls for the
// same chain do the work once.
func (s *Store) Unpack(ctx context.Context, chain string, below []string, open func() (io.ReadCloser, error)) error {
	for {
		s.mu.Lock()
		if s.Has(chain) {
			s.mu.Unlock()
			return nil
		}
		wait, busy := s.busy[chain]
		if !busy {
			done := make(chan struct{})
			s.busy[chain] = done
			s.mu.Unlock()
			err := s.unpack(ctx, chain, below, open)
			s.mu.Lock()
			delete(s.busy, chain)
			s.mu.Unlock()
			close(done)
			return err
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) unpack(ctx context.Context, chain string, below []string, open func() (io.ReadCloser, error)) error {
	parents, err := s.Dirs(below)
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	// Attributes of a directory that only a lower layer describes come from the nearest layer that has it.
	nearest := make([]string, 0, len(parents))
	for i := len(parents) - 1; i >= 0; i-- {
		nearest = append(nearest, parents[i])
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), "layer-")
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "fs")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	if len(nearest) > 0 {
		// The root of a layer that does not mention it looks like the one below.
		if err := copyOwner(nearest[0], root); err != nil {
			return fmt.Errorf("unpack layer %s: %w", chain, err)
		}
	}
	r, err := open()
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	defer r.Close()
	size, err := archive.Apply(ctx, root, r, archive.WithParents(nearest), archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	if err == nil {
		// The archive may end before the stream; the rest is read so that its digest is checked.
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "size"), []byte(strconv.FormatInt(size, 10)), 0o600); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	dst := s.dir(chain)
	_ = os.RemoveAll(dst)
	if err := os.Rename(tmp, dst); err != nil {
		return fmt.Errorf("unpack layer %s: %w", chain, err)
	}
	return nil
}

func copyOwner(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return err
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
}

// Sync makes everything unpacked so far survive a loss of power.
func (s *Store) Sync() error {
	f, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// Keep removes every layer that is not among chains, and reports the first error after trying all.
func (s *Store) Keep(chains map[string]bool) error {
	keep := map[string]bool{"tmp": true}
	for c := range chains {
		keep[filepath.Base(s.dir(c))] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.busy {
		keep[filepath.Base(s.dir(c))] = true
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return fmt.Errorf("clean snapshots: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		// Renamed first: a half removed layer must not be taken for a whole one.
		gone := filepath.Join(s.root, "tmp", "gone-"+e.Name())
		if err := os.Rename(filepath.Join(s.root, e.Name()), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.RemoveAll(gone))
	}
	return errors.Join(errs...)
}
