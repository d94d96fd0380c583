package client

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// maxFrame bounds one watch event; an object cannot be larger than the store takes, far below this.
const maxFrame = 64 << 20

// httpWatch reads the events of one response. Its channel is closed when the response ends for whatever reason.
type httpWatch struct {
	events chan watch.Event
	cancel context.CancelFunc
}

func newHTTPWatch(ctx context.Context, cancel context.CancelFunc, resp *http.Response) (*httpWatch, error) {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var next func() (*metav1.WatchEvent, error)
	switch media {
	case mediaProtobuf:
		next = protobufFrames(resp.Body)
	case mediaJSON:
		d := json.NewDecoder(resp.Body)
		next = func() (*metav1.WatchEvent, error) {
			e := &metav1.WatchEvent{}
			return e, d.Decode(e)
		}
	default:
		return nil, fmt.Errorf("the server answered with %q, which is no watch", media)
	}
	w := &httpWatch{events: make(chan watch.Event, 16), cancel: cancel}
	go func() {
		defer cancel()
		defer resp.Body.Close()
		defer close(w.events)
		for {
			e, err := next()
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					w.put(ctx, failed(fmt.Errorf("watch: %w", err)))
				}
				return
			}
			obj, err := decode(media, e.Object.Raw)
			if err != nil {
				w.put(ctx, failed(err))
				return
			}
			if !w.put(ctx, watch.Event{Type: watch.EventType(e.Type), Object: obj}) {
				return
			}
		}
	}()
	return w, nil
}

func protobufFrames(r io.Reader) func() (*metav1.WatchEvent, error) {
	return func() (*metav1.WatchEvent, error) {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxFrame {
			return nil, fmt.Errorf("event of %d bytes", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the stream ended between a length and what it is of
			}
			return nil, err
		}
		e := &metav1.WatchEvent{}
		if err := e.Unmarshal(frame); err != nil {
			return nil, fmt.Errorf("decode event: %v", err) // not %w: an end inside a whole frame is no end of the stream
		}
		return e, nil
	}
}

func failed(err error) watch.Event {
	s := apierrors.NewInternalError(err).Status()
	return watch.Event{Type: watch.Error, Object: runtime.Object(&s)}
}

func (w *httpWatch) put(ctx context.Context, e watch.Event) bool {
	select {
	case w.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *httpWatch) Stop()                          { w.cancel() }
func (w *httpWatch) ResultChan() <-chan watch.Event { return w.events }
