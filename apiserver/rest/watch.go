package rest

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api/codec"
	"karve/apiserver/fairness"
	"karve/apiserver/resource"
)

// watch streams changes until the client goes, the timeout ends it, or the watcher cannot keep up.
func (x *exchange) watch() error {
	opts, err := listOptions(x.r.URL.Query(), true)
	if err != nil {
		return err
	}
	if err := x.checkInclude(); err != nil {
		return err
	}
	if x.acc.As == "Table" && x.acc.MediaType == codec.Protobuf {
		return NotAcceptable(x.r, true)
	}
	if err := x.streamable(); err != nil {
		return err
	}
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents {
		x.listing = time.Now()
	}
	timeout := 30*time.Minute + rand.N(30*time.Minute)
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		timeout = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), timeout)
	defer cancel()
	from, err := x.Door.Watch(ctx, x.call, opts)
	if err != nil {
		return err
	}
	defer from.Close()
	if wantsSocket(x.r) {
		return x.overSocket(ctx, from)
	}
	content := x.acc.MediaType
	if content == codec.Protobuf {
		content += ";stream=watch"
	}
	x.w.Header().Set("Content-Type", content)
	x.w.Header().Set("Cache-Control", "no-cache, private")
	x.w.Header().Set("Transfer-Encoding", "chunked")
	x.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(x.w)
	_ = flush.Flush()
	return x.stream(ctx, from, flush)
}

func (x *exchange) stream(ctx context.Context, from *resource.Watch, flush *http.ResponseController) error {
	first := true
	var pace pace
	for begun := false; ; {
		if !begun && !from.Initial() {
			fairness.Begun(ctx)
			x.listed()
			begun = true
		}
		changes, err := from.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				if b, e := x.errorFrame(err); e == nil {
					_, _ = x.w.Write(b)
				}
			}
			return nil
		}
		if !x.send(changes, &first) || flush.Flush() != nil {
			return nil
		}
		if wait := pace.after(time.Now()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
	}
}

// send writes changes; false if the client is gone or one cannot be encoded.
func (x *exchange) send(changes []resource.Change, first *bool) bool {
	kept := buffers.Get().(*[]byte)
	buf := (*kept)[:0]
	defer func() { release(kept, buf) }()
	var err error
	for i := range changes {
		if buf, err = x.appendChange(buf, &changes[i], first); err != nil {
			x.Log.Error("watch event not encoded", "resource", x.row.Resource, "err", err)
			return false
		}
		if len(buf) >= writeAt || i == len(changes)-1 {
			if _, err := x.w.Write(buf); err != nil {
				return false
			}
			buf = buf[:0]
		}
	}
	return true
}

// pace makes a busy watch write many changes at once. What a write costs is mostly not the bytes, and a client that gets
// hundreds of changes in a second is not helped by getting each at once; one that gets few is never made to wait.
type pace struct {
	since  time.Time // when the window began
	writes int       // in it
}

const (
	paceWindow = 100 * time.Millisecond
	paceFree   = 4 // writes in a window that are not held back
	paceWait   = 15 * time.Millisecond
)

// after counts a write that ended at now and returns how long to leave the next one to gather changes.
func (p *pace) after(now time.Time) time.Duration {
	if now.Sub(p.since) > paceWindow {
		p.since, p.writes = now, 0
	}
	if p.writes++; p.writes <= paceFree {
		return 0
	}
	return paceWait
}

func (x *exchange) errorFrame(err error) ([]byte, error) {
	st := resource.StatusOf(err)
	b, e := objectBytes(st, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, x.acc.MediaType)
	if e != nil {
		return nil, e
	}
	return x.frame(nil, watch.Error, b), nil
}

// appendChange appends a change as its watcher is told of it.
func (x *exchange) appendChange(buf []byte, c *resource.Change, first *bool) ([]byte, error) {
	plain := x.acc.As == "" && x.row.Stored.Empty()
	if plain && c.Type != watch.Bookmark && x.acc.MediaType == codec.Protobuf {
		if stored, ok := codec.Open(c.Record.Value); ok {
			gvk, version := x.row.GVK(), c.Version()
			size := stored.Len(version)
			buf = frameHead(buf, c.Type, codec.EnvelopeLen(gvk, size))
			buf = codec.AppendEnvelopeHead(buf, gvk, size)
			return codec.AppendEnvelopeEnd(stored.Append(buf, version)), nil
		}
	}
	b, err := x.changeBytes(c, first)
	if err != nil {
		return buf, err
	}
	return x.frame(buf, c.Type, b), nil
}

func (x *exchange) changeBytes(c *resource.Change, first *bool) ([]byte, error) {
	plain := x.acc.As == "" && x.row.Stored.Empty()
	if plain && c.Type != watch.Bookmark && c.Revision == 0 && x.acc.MediaType != codec.Protobuf {
		b, err := resource.JSONBody(c.Record)
		if err != nil || b == nil {
			return nil, unreadable(c.Record, err)
		}
		return codec.Typed(x.row.GVK(), b), nil
	}
	var o resource.Object
	if c.Type == watch.Bookmark {
		o = resource.Mark(x.row.Hub(), c)
	} else if o = c.Object(); o == nil {
		return nil, unreadable(c.Record, nil)
	}
	if x.acc.As == "" {
		v := x.view(o)
		return objectBytes(v, x.row.GVK(), x.acc.MediaType)
	}
	out, gvk := x.transform(o)
	if t, ok := out.(*metav1.Table); ok {
		if c.Type == watch.Bookmark {
			t.Rows = nil
		}
		if !*first {
			t.ColumnDefinitions = nil
		}
		*first = false
	}
	return objectBytes(out, gvk, x.acc.MediaType)
}

// frame appends one watch event: a line of JSON, or a length and a WatchEvent message.
func (x *exchange) frame(buf []byte, kind watch.EventType, object []byte) []byte {
	if x.acc.MediaType != codec.Protobuf {
		buf = append(buf, `{"type":"`...)
		buf = append(buf, kind...)
		buf = append(buf, `","object":`...)
		buf = append(buf, object...)
		return append(buf, '}', '\n')
	}
	return append(frameHead(buf, kind, len(object)), object...)
}

// frameHead appends what comes before the object, of size bytes, in a watch event as protobuf: the length of the message,
// then WatchEvent{type = 1: string, object = 2: RawExtension{raw = 1: bytes}} up to those bytes.
func frameHead(buf []byte, kind watch.EventType, size int) []byte {
	inner := 1 + codec.UvarintLen(size) + size
	message := 1 + codec.UvarintLen(len(kind)) + len(kind) + 1 + codec.UvarintLen(inner) + inner
	buf = binary.BigEndian.AppendUint32(buf, uint32(message))
	buf = binary.AppendUvarint(append(buf, 0x0a), uint64(len(kind)))
	buf = append(buf, kind...)
	buf = binary.AppendUvarint(append(buf, 0x12), uint64(inner))
	return binary.AppendUvarint(append(buf, 0x0a), uint64(size))
}
