package dns

import (
	"fmt"
	"strings"
	"testing"
)

func TestUpstreams(t *testing.T) {
	got, err := Upstreams(strings.NewReader("# made by x\nsearch a b\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # y\nnameserver x\nnameserver\nnameserver 192.0.2.1\noptions edns0\n"))
	if want := "[192.0.2.1:53 [2001:db8::1]:53]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
}
