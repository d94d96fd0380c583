// Package image is the local image store: it pulls, loads, packs, lists and removes images.
//
// The engine calls it for CRI's image service and to find the root file system and configuration of a container; the
// karve command uses Pack to make images from files. It owns Root/images: manifests and configurations by content, and an
// index of names. Layers are not kept as they came but unpacked once, into engine/snapshot. It knows nothing of
// containers; which layers those still need is told to it.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"karve/engine/snapshot"
)

// Image is one image of the store. Callers must not change it.
type Image struct {
	ID       string   // digest of its configuration
	Manifest string   // digest of its manifest
	Tags     []string // full names with a tag
	Digests  []string // full names with a manifest digest
	Size     int64    // bytes of the manifest's layers as transferred, and of the configuration
	Chains   []string // layers in the snapshot store, lowest first
	Pinned   bool     // never removed to make room
	AddedAt  time.Time
}

// Store is the store in one directory. Its methods may be called concurrently; one Store per directory.
type Store struct {
	// Transport reaches registries; nil means the process's own network. Set it before the first pull.
	Transport http.RoundTripper

	root   string
	snaps  *snapshot.Store
	log    *slog.Logger
	mu     sync.RWMutex
	images map[string]*Image // by ID; replaced, never changed
	adding int               // pulls and loads under way
}

// ErrNotFound means that the store has no such image.
var ErrNotFound = errors.New("image not found")

// Open reads the index. One that is damaged is set aside and an empty store is used: images can be had again.
func Open(root string, snaps *snapshot.Store, log *slog.Logger) (*Store, error) {
	for _, d := range []string{"blobs/sha256", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	old, _ := os.ReadDir(filepath.Join(root, "tmp"))
	for _, e := range old {
		_ = os.RemoveAll(filepath.Join(root, "tmp", e.Name()))
	}
	s := &Store{root: root, snaps: snaps, log: log, images: map[string]*Image{}}
	b, err := os.ReadFile(s.indexPath())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	var list []*Image
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		log.Error("image index is damaged, starting with none", "path", s.indexPath(), "err", err)
		_ = os.Rename(s.indexPath(), s.indexPath()+".damaged")
		return s, nil
	}
	for _, im := range list {
		if im == nil || im.ID == "" {
			continue
		}
		whole := !slices.ContainsFunc(im.Chains, func(c string) bool { return !snaps.Has(c) })
		if _, err := s.Config(im); err != nil || !whole {
			log.Warn("image is incomplete and forgotten", "image", im.ID, "names", im.Tags, "err", err)
			continue
		}
		s.images[im.ID] = im
	}
	return s, nil
}

func (s *Store) indexPath() string { return filepath.Join(s.root, "index.json") }

// save writes the index; the caller holds the lock.
func (s *Store) save() error {
	list := make([]*Image, 0, len(s.images))
	for _, im := range s.images {
		list = append(list, im)
	}
	slices.SortFunc(list, func(a, b *Image) int { return strings.Compare(a.ID, b.ID) })
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return writeAtomic(s.indexPath(), b)
}

// writeAtomic leaves either the old content or the new, even after a loss of power.
func writeAtomic(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.root, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
}

func (s *Store) putBlob(digest string, b []byte) error {
	if _, err := os.Stat(s.blobPath(digest)); err == nil {
		return nil
	}
	return writeAtomic(s.blobPath(digest), b)
}

// Find looks an image up by id, by any spelling of a name, or by name and digest.
func (s *Store) Find(name string) (*Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.find(name)
}

func (s *Store) find(name string) (*Image, error) {
	if id, err := parseID(name); err == nil {
		if im, ok := s.images[id]; ok {
			return im, nil
		}
		return nil, ErrNotFound
	}
	r, err := Parse(name)
	if err != nil {
		return nil, err
	}
	full := r.String()
	for _, im := range s.images {
		if slices.Contains(im.Tags, full) || slices.Contains(im.Digests, full) {
			return im, nil
		}
	}
	return nil, ErrNotFound
}

// List returns all images, in no order.
func (s *Store) List() []*Image {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*Image, 0, len(s.images))
	for _, im := range s.images {
		out = append(out, im)
	}
	return out
}

// Config reads an image's configuration.
func (s *Store) Config(im *Image) (*v1.ConfigFile, error) {
	f, err := os.Open(s.blobPath(im.ID))
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	defer f.Close()
	var c v1.ConfigFile
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&c); err != nil {
		return nil, fmt.Errorf("read image configuration %s: %w", im.ID, err)
	}
	return &c, nil
}

// Remove forgets an image with all its names. One that is absent is no error. Layers go with Collect.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	im, err := s.find(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove image: %w", err)
	}
	delete(s.images, im.ID)
	if err := s.save(); err != nil {
		s.images[im.ID] = im
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	_ = os.Remove(s.blobPath(im.ID))
	_ = os.Remove(s.blobPath(im.Manifest))
	return nil
}

// Collect removes the layers that neither an image nor inUse needs. No pull may be forgotten here: it is refused while
// one is under way, and the next Collect does the work.
func (s *Store) Collect(inUse []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adding > 0 {
		return nil
	}
	keep := map[string]bool{}
	for _, c := range inUse {
		keep[c] = true
	}
	for _, im := range s.images {
		for _, c := range im.Chains {
			keep[c] = true
		}
	}
	return s.snaps.Keep(keep)
}

// add makes an unpacked image known under names, taking those away from whichever image had them.
func (s *Store) add(im *Image) (*Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.images[im.ID]; ok {
		im.Tags = union(old.Tags, im.Tags)
		im.Digests = union(old.Digests, im.Digests)
		im.Pinned = im.Pinned || old.Pinned
		im.AddedAt = old.AddedAt
	}
	before := make(map[string]*Image, len(s.images))
	for id, other := range s.images {
		before[id] = other
		if id == im.ID {
			continue
		}
		moved := *other
		moved.Tags = slices.DeleteFunc(slices.Clone(other.Tags), func(t string) bool { return slices.Contains(im.Tags, t) })
		if len(moved.Tags) != len(other.Tags) {
			s.images[id] = &moved
		}
	}
	s.images[im.ID] = im
	if err := s.save(); err != nil {
		s.images = before
		return nil, fmt.Errorf("save image index: %w", err)
	}
	return im, nil
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
