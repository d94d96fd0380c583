package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"karve/cluster/control"
	"karve/engine"
	"karve/engine/image"
	"karve/kubelet/cri"
)

func addrs(p *process) []netip.Addr { return []netip.Addr{p.ip} }

// runtime is the engine as the kubelet sees it: the same methods, but for the type of a terminal's size.
type runtime struct{ *engine.Engine }

func (r runtime) ExecStream(ctx context.Context, id string, cmd []string, tty bool, stdin io.Reader, stdout, stderr io.Writer, resize <-chan cri.Size) (int, error) {
	return r.Engine.ExecStream(ctx, id, cmd, tty, stdin, stdout, stderr, sizes(ctx, resize))
}

func (r runtime) AttachStream(ctx context.Context, id string, _ bool, stdin io.Reader, stdout, stderr io.Writer, resize <-chan cri.Size) error {
	return r.Engine.AttachStream(ctx, id, stdin, stdout, stderr, sizes(ctx, resize))
}

func sizes(ctx context.Context, in <-chan cri.Size) <-chan engine.TermSize {
	if in == nil {
		return nil
	}
	out := make(chan engine.TermSize)
	go func() {
		defer close(out)
		for s := range in {
			select {
			case out <- engine.TermSize{Cols: s.Width, Rows: s.Height}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// images is the engine's image store as the karve command sees it.
type images struct{ store *image.Store }

func (x images) Load(ctx context.Context, path string) ([]string, error) {
	got, err := x.store.Load(ctx, path, "")
	var names []string
	for _, im := range got {
		names = append(names, im.Tags...)
	}
	return names, err
}

func (x images) List(context.Context) ([]control.Image, error) {
	var out []control.Image
	for _, im := range x.store.List() {
		out = append(out, control.Image{ID: im.ID, Names: im.Tags, Size: im.Size, Since: im.AddedAt})
	}
	return out, nil
}

func (x images) Remove(_ context.Context, name string) error {
	switch _, err := x.store.Find(name); {
	case errors.Is(err, image.ErrNotFound):
		return fmt.Errorf("no image is called %q here: karve image ls lists them", name)
	case err != nil:
		return err
	}
	return x.store.Remove(name)
}

func (x images) Pull(ctx context.Context, name string) (string, error) {
	im, err := x.store.Pull(ctx, name, image.PullOptions{})
	if err != nil {
		return "", err
	}
	if len(im.Tags) > 0 {
		return im.Tags[0], nil
	}
	return fmt.Sprint(im.ID), nil
}
