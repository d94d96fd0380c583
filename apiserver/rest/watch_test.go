package rest

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	corev1 "k8s.io/api/core/v1"

	"karve/api/codec"
)

func TestPaceLeavesAQuietWatchAlone(t *testing.T) {
	now := time.Unix(100, 0)
	var p pace
	for range 50 {
		if d := p.after(now); d != 0 {
			t.Fatalf("a watch with a change every 20 ms has to wait %v", d)
		}
		now = now.Add(20 * time.Millisecond)
	}
	held := 0
	for range 100 {
		d := p.after(now)
		if d > 0 {
			held++
		}
		now = now.Add(time.Millisecond + d)
	}
	if held < 20 {
		t.Errorf("a watch with a change every millisecond was held back %d times of 100", held)
	}
	if d := p.after(now.Add(time.Second)); d != 0 {
		t.Errorf("after a quiet second a change has to wait %v", d)
	}
}

func TestFrameHeadIsAWatchEvent(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	for _, size := range []int{0, 1, 100, 127, 128, 300, 20000} {
		body := make([]byte, size)
		object := codec.Envelope(gvk, body)
		if len(object) != codec.EnvelopeLen(gvk, size) {
			t.Errorf("an envelope around %d bytes has %d, said %d", size, len(object), codec.EnvelopeLen(gvk, size))
		}
		frame := append(frameHead(nil, watch.Modified, len(object)), object...)
		if n := int(frame[0])<<24 | int(frame[1])<<16 | int(frame[2])<<8 | int(frame[3]); n != len(frame)-4 {
			t.Errorf("frame of %d bytes says it has %d", len(frame)-4, n)
		}
		var e metav1.WatchEvent
		if err := e.Unmarshal(frame[4:]); err != nil {
			t.Fatal(err)
		}
		if e.Type != "MODIFIED" || string(e.Object.Raw) != string(object) {
			t.Errorf("read back as %q with %d bytes", e.Type, len(e.Object.Raw))
		}
	}
}

// BenchmarkFrame is what a watcher pays for one event, apart from writing it.
func BenchmarkFrame(b *testing.B) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	body, err := codec.Body(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": string(make([]byte, 1500))}}})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 1<<16)
	b.ReportAllocs()
	for range b.N {
		buf = frameHead(buf[:0], watch.Modified, codec.EnvelopeLen(gvk, len(body)))
		buf = codec.AppendEnvelope(buf, gvk, body)
	}
}
