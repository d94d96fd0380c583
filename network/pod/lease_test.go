package pod

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestLeases(t *testing.T) {
	dir, prefix := t.TempDir(), netip.MustParsePrefix("10.244.1.0/29") // room for .2 to .6
	open := func() *leases {
		t.Helper()
		l, err := openLeases(dir, prefix)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	take := func(id, want string) {
		t.Helper()
		e, _, err := l.take(id, nil)
		if err != nil || e.IP.String() != want {
			t.Fatalf("%s: got %v (%v), want %s", id, e, err, want)
		}
	}
	drop := func(id string) {
		t.Helper()
		if _, err := l.drop(id); err != nil {
			t.Fatal(err)
		}
	}
	take("a", "10.244.1.2")
	take("b", "10.244.1.3")
	take("a", "10.244.1.2") // it has one
	drop("a")
	drop("a")
	take("c", "10.244.1.4") // not the one just given back
	l = open()
	take("b", "10.244.1.3")
	take("d", "10.244.1.5") // also after a restart
	take("e", "10.244.1.6")
	take("f", "10.244.1.2") // all others are in use
	if _, _, err := l.take("g", nil); err == nil {
		t.Error("a lease was given of a full range")
	}
	drop("d")
	take("g", "10.244.1.5")

	// What cannot be read is removed, and does no harm.
	for name, text := range map[string]string{"x.json": "{", "y.json": `{"id":"y","ip":"192.0.2.1"}`, "z.json.tmp": "{}", "b2.json": `{"id":"b2","ip":"10.244.1.3"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = open()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 5 || len(l.byID) != 5 || len(l.byIP) != 5 {
		t.Errorf("%d files and %d leases are left (%v)", len(files), len(l.byID), err)
	}
}

func TestHostPortConflicts(t *testing.T) {
	l, err := openLeases(t.TempDir(), netip.MustParsePrefix("10.244.1.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("192.0.2.1")
	for i, c := range []struct {
		ok    bool
		ports []HostPort
	}{
		{true, []HostPort{{Port: 80, ContainerPort: 8080}}},
		{false, []HostPort{{Port: 80, Protocol: "TCP", ContainerPort: 1}}},
		{true, []HostPort{{Port: 80, Protocol: "UDP", ContainerPort: 1}}},
		{true, []HostPort{{Port: 80, HostIP: ip, ContainerPort: 1}}},
		{false, []HostPort{{Port: 80, HostIP: ip, ContainerPort: 2}}},
		{false, []HostPort{{Port: 81, ContainerPort: 1}, {Port: 81, HostIP: netip.IPv4Unspecified(), ContainerPort: 2}}},
		{false, []HostPort{{Port: 0, ContainerPort: 1}}},
		{false, []HostPort{{Port: 82, Protocol: "ICMP", ContainerPort: 1}}},
		{false, []HostPort{{Port: 82, HostIP: netip.IPv6Loopback(), ContainerPort: 1}}},
	} {
		if _, _, err := l.take(fmt.Sprint(i), c.ports); (err == nil) != c.ok {
			t.Errorf("%d: %v", i, err)
		}
	}
}
