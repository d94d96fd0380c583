package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// elsewhere starts a web server in a network namespace of its own and returns the namespace's path and its address there.
func elsewhere(t *testing.T, answer string) (path, address string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: making a network namespace needs root; run with sudo")
	}
	type made struct {
		ns  netns.NsHandle
		l   net.Listener
		err error
	}
	done := make(chan made)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var m made
		if m.ns, m.err = netns.New(); m.err == nil {
			var lo netlink.Link
			if lo, m.err = netlink.LinkByName("lo"); m.err == nil {
				if m.err = netlink.LinkSetUp(lo); m.err == nil {
					m.l, m.err = net.Listen("tcp", "127.0.0.1:0")
				}
			}
		}
		done <- m
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) })}
	go func() { _ = srv.Serve(m.l) }()
	t.Cleanup(func() {
		srv.Close()
		m.ns.Close()
	})
	return fmt.Sprintf("/proc/self/fd/%d", int(m.ns)), m.l.Addr().String()
}

func TestRegistriesAreDialledFromTheirNamespace(t *testing.T) {
	path, address := elsewhere(t, "from there")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	get := func(netns string) (string, error) {
		rt := registries(netns).(*http.Transport)
		defer rt.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rt.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	if got, err := get(path); err != nil || got != "from there" {
		t.Fatalf("from the namespace: %q, %v", got, err)
	}
	if got, err := get(""); err == nil {
		t.Fatalf("without it the server was reached all the same: %q", got)
	}
	if _, err := get("/proc/self/fd/100000"); err == nil {
		t.Fatal("a namespace that is not there was entered")
	}
}

func TestLockKeepsASecondProcessOut(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil {
		t.Fatal("the directory was locked twice")
	}
	unlock()
	again, err := lock(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again()
}
