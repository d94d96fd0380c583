package rest

import (
	"bytes"
	"io"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
)

// FuzzFrame writes watch events as protobuf and reads them with the library clients have.
func FuzzFrame(f *testing.F) {
	f.Add("ADDED", []byte("object"))
	f.Add("", []byte{})
	f.Add(strings.Repeat("x", 200), bytes.Repeat([]byte{0x12, 0xff}, 100))
	f.Fuzz(func(t *testing.T, kind string, object []byte) {
		x := &exchange{}
		x.acc.MediaType = proto
		frames := x.frame(x.frame(nil, "first", object), watch.EventType(kind), object)
		r := protobuf.LengthDelimitedFramer.NewFrameReader(io.NopCloser(bytes.NewReader(frames)))
		for _, want := range []string{"first", kind} {
			buf := make([]byte, len(frames))
			n, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			ev := &metav1.WatchEvent{}
			if err := ev.Unmarshal(buf[:n]); err != nil {
				t.Fatal(err)
			}
			if ev.Type != want || !bytes.Equal(ev.Object.Raw, object) {
				t.Fatalf("%q %q came as %q %q", want, object, ev.Type, ev.Object.Raw)
			}
		}
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("something follows: %v", err)
		}
	})
}
