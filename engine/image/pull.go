package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"karve/engine/snapshot"
)

// Limits on what a registry can make us hold in memory or fetch at once.
const (
	maxConfig = 8 << 20
	parallel  = 3
)

// Auth is how to identify to a registry. The zero value is anonymous.
type Auth struct{ Username, Password, Auth, IdentityToken, RegistryToken string }

// Progress is how far a pull is, in bytes as transferred.
type Progress struct {
	Name        string
	Done, Total int64
}

// PullOptions are the choices of a pull.
type PullOptions struct {
	Auth     Auth
	Progress func(Progress) // called now and then, from several goroutines; may be nil
}

// platform is what this machine runs.
var platform = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

// Pull fetches an image from its registry and unpacks it. Registries on the loopback interface may speak plain HTTP.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	r, err := Parse(ref)
	if err != nil {
		return nil, err
	}
	n, err := name.ParseReference(r.String())
	if err != nil {
		return nil, fmt.Errorf("pull image %q: %w", ref, err)
	}
	auth := authn.Anonymous
	if o.Auth != (Auth{}) {
		auth = authn.FromConfig(authn.AuthConfig{Username: o.Auth.Username, Password: o.Auth.Password, Auth: o.Auth.Auth,
			IdentityToken: o.Auth.IdentityToken, RegistryToken: o.Auth.RegistryToken})
	}
	from := []remote.Option{remote.WithContext(ctx), remote.WithAuth(auth), remote.WithPlatform(platform), remote.WithUserAgent("karve")}
	if s.Transport != nil {
		from = append(from, remote.WithTransport(s.Transport))
	}
	img, err := remote.Image(n, from...)
	if err != nil {
		return nil, fmt.Errorf("pull image %q: %w", ref, err)
	}
	im, err := s.take(ctx, img, []Reference{r}, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("pull image %q: %w", ref, err)
	}
	return im, nil
}

// take unpacks an image from anywhere and makes it known.
func (s *Store) take(ctx context.Context, img v1.Image, refs []Reference, progress func(Progress)) (*Image, error) {
	s.mu.Lock()
	s.adding++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.adding--
		s.mu.Unlock()
	}()
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if m.Config.Size < 0 || m.Config.Size > maxConfig { // it is held in memory; what comes is checked against this size
		return nil, fmt.Errorf("image configuration of %d bytes: at most %d are allowed", m.Config.Size, maxConfig)
	}
	id, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	rawCfg, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	manifest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	rawManifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	if cfg.OS != "" && cfg.OS != platform.OS || cfg.Architecture != "" && cfg.Architecture != platform.Architecture {
		return nil, fmt.Errorf("image is for %s/%s, not %s/%s", cfg.OS, cfg.Architecture, platform.OS, platform.Architecture)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(cfg.RootFS.DiffIDs) != len(layers) {
		return nil, errors.New("image configuration and manifest disagree on the number of layers")
	}
	diffs := make([]string, len(layers))
	for i, d := range cfg.RootFS.DiffIDs {
		diffs[i] = d.String()
	}
	im := &Image{ID: id.String(), Manifest: manifest.String(), Chains: snapshot.Chains(diffs), Size: int64(len(rawCfg)), AddedAt: time.Now()}
	sizes := make([]int64, len(layers))
	for i, l := range layers {
		if sizes[i], err = l.Size(); err != nil {
			return nil, err
		}
		im.Size += sizes[i]
	}
	for _, r := range refs {
		if r.Tag != "" && r.Digest == "" {
			im.Tags = append(im.Tags, r.String())
		}
		r.Digest = manifest.String()
		im.Digests = union(im.Digests, []string{r.String()})
	}
	// A name with the digest of an index for several platforms is a name of this image too.
	for _, r := range refs {
		if r.Digest != "" {
			im.Digests = union(im.Digests, []string{r.String()})
		}
	}
	label := im.ID
	if len(refs) > 0 {
		label = refs[0].String()
	}
	if err := s.unpack(ctx, im.Chains, diffs, layers, sizes, label, progress); err != nil {
		return nil, err
	}
	if err := s.putBlob(im.ID, rawCfg); err != nil {
		return nil, err
	}
	if err := s.putBlob(im.Manifest, rawManifest); err != nil {
		return nil, err
	}
	// The index vouches for the layers, so they reach the disk first.
	if err := s.snaps.Sync(); err != nil {
		return nil, err
	}
	return s.add(im)
}

// unpack downloads a few layers ahead while it applies them in order.
func (s *Store) unpack(ctx context.Context, chains, diffs []string, layers []v1.Layer, sizes []int64, label string, progress func(Progress)) error {
	ctx, cancel := context.WithCancel(ctx)
	dir, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), "pull-")
	if err != nil {
		cancel()
		return err
	}
	var wg sync.WaitGroup
	defer os.RemoveAll(dir)
	defer wg.Wait()
	defer cancel()
	var total int64
	for i, c := range chains {
		if !s.snaps.Has(c) {
			total += sizes[i]
		}
	}
	var done atomic.Int64
	count := func(n int) {
		d := done.Add(int64(n))
		if progress != nil {
			progress(Progress{Name: label, Done: d, Total: total})
		}
	}
	slots := make(chan struct{}, parallel)
	results := make([]chan error, len(layers))
	files := make([]string, len(layers))
	for i, l := range layers {
		results[i] = make(chan error, 1)
		files[i] = filepath.Join(dir, fmt.Sprintf("%d.tar", i))
		if s.snaps.Has(chains[i]) {
			results[i] <- nil
			continue
		}
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				results[i] <- download(ctx, l, files[i], count)
				<-slots
			case <-ctx.Done():
				results[i] <- ctx.Err()
			}
		})
	}
	for i := range layers {
		if err := <-results[i]; err != nil {
			return fmt.Errorf("fetch layer: %w", err)
		}
		open := func() (io.ReadCloser, error) { return openLayer(files[i], diffs[i]) }
		if err := s.snaps.Unpack(ctx, chains[i], chains[:i], open); err != nil {
			return err
		}
		_ = os.Remove(files[i])
	}
	return nil
}

// download stores a layer as it was transferred; its digest is checked by the reader.
func download(ctx context.Context, l v1.Layer, path string, count func(int)) error {
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{counted{ctx, r, count}}, buf)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

type counted struct {
	ctx   context.Context
	r     io.Reader
	count func(int)
}

func (c counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if n > 0 {
		c.count(n)
	}
	return n, err
}
