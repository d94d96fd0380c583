package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzFrames reads a watch's protobuf stream: whatever comes, the reader ends, and whole events come out as they went in.
func FuzzFrames(f *testing.F) {
	frame := func(kind string, raw []byte) []byte {
		e := &metav1.WatchEvent{Type: kind}
		e.Object.Raw = raw
		b, err := e.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	f.Add(append(frame("ADDED", []byte("k8s\x00x")), frame("DELETED", nil)...))
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		next, at := protobufFrames(bytes.NewReader(data)), 0
		for {
			e, err := next()
			if err != nil {
				if whole := at == len(data); errors.Is(err, io.EOF) != whole {
					t.Fatalf("%d of %d bytes read, and then: %v", at, len(data), err)
				}
				return
			}
			at += 4 + int(binary.BigEndian.Uint32(data[at:]))
			b, err := e.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again := &metav1.WatchEvent{}
			if err := again.Unmarshal(b); err != nil || again.Type != e.Type || !bytes.Equal(again.Object.Raw, e.Object.Raw) {
				t.Fatalf("%q %v", b, err)
			}
		}
	})
}
