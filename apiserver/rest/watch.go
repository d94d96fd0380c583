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
	media := x.acc.MediaType
	if media == codec.YAML {
		media = codec.JSON // a stream of YAML documents has no frame; upstream sends none either
	}
	x.acc.MediaType = media
	content := media
	if media == codec.Protobuf || x.acc.Stream {
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
	var buf []byte
	first := true
	for {
		changes, err := from.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				if b, e := x.errorFrame(err); e == nil {
					_, _ = x.w.Write(b)
				}
			}
			return nil
		}
		buf = buf[:0]
		for i := range changes {
			if buf, err = x.appendChange(buf, &changes[i], &first); err != nil {
				x.Log.Error("watch event not encoded", "resource", x.row.Resource, "err", err)
				return nil
			}
		}
		if _, err := x.w.Write(buf); err != nil {
			return nil
		}
		if flush.Flush() != nil {
			return nil
		}
	}
}

func (x *exchange) errorFrame(err error) ([]byte, error) {
	st := resource.StatusOf(err)
	b, e := objectBytes(st, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, x.acc.MediaType)
	if e != nil {
		return nil, e
	}
	return x.frame(nil, watch.Error, b), nil
}

func (x *exchange) appendChange(buf []byte, c *resource.Change, first *bool) ([]byte, error) {
	b, err := x.changeBytes(c, first)
	if err != nil {
		return buf, err
	}
	return x.frame(buf, c.Type, b), nil
}

func (x *exchange) changeBytes(c *resource.Change, first *bool) ([]byte, error) {
	plain := x.acc.As == "" && x.row.Stored.Empty()
	if plain && c.Type != watch.Bookmark && c.Revision == 0 {
		return recordBytes(c.Record, x.row.GVK(), x.acc.MediaType)
	}
	var o resource.Object
	if c.Type == watch.Bookmark {
		o = resource.Mark(x.row.Hub(), c)
	} else {
		o = c.Object()
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
	// WatchEvent{type = 1: string, object = 2: RawExtension{raw = 1: bytes}}
	inner := binary.AppendUvarint([]byte{0x0a}, uint64(len(object)))
	head := append(binary.AppendUvarint([]byte{0x0a}, uint64(len(kind))), kind...)
	head = binary.AppendUvarint(append(head, 0x12), uint64(len(inner)+len(object)))
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(head)+len(inner)+len(object)))
	buf = append(buf, head...)
	buf = append(buf, inner...)
	return append(buf, object...)
}
