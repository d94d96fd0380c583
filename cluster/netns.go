package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"
)

// registries is how this process reaches image registries: by its own network, or by the one configured, which a node of
// `karve up` needs, since its own leads nowhere.
func registries(netns string) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if netns == "" {
		return t
	}
	d := &nsDialer{path: netns}
	t.DialContext, t.Proxy = d.DialContext, http.ProxyFromEnvironment
	return t
}

// nsDialer opens connections in another network namespace. A socket stays in the namespace it was made in, so that only
// the making needs a thread there.
type nsDialer struct{ path string }

// DialContext resolves and connects from within the namespace.
func (d *nsDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ips := []net.IP{net.ParseIP(host)}
	if ips[0] == nil {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.dial(ctx, network, address)
		}}
		if ips, err = r.LookupIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	var failed error
	for _, ip := range ips {
		c, err := d.dial(ctx, network, net.JoinHostPort(ip.String(), port))
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// dial connects to an address that needs no resolving, on a thread that is in the namespace and is thrown away afterwards
// if it cannot return.
func (d *nsDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		goruntime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- result{nil, fmt.Errorf("open own network namespace: %w", err)}
			return
		}
		defer own.Close()
		there, err := os.Open(d.path)
		if err != nil {
			goruntime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("open network namespace %s: %w", d.path, err)}
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			goruntime.UnlockOSThread()
			done <- result{nil, fmt.Errorf("enter network namespace %s: %w", d.path, err)}
			return
		}
		c, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, network, address)
		done <- result{c, err}
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			goruntime.UnlockOSThread()
		}
	}()
	select {
	case r := <-done:
		return r.c, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.c != nil {
				r.c.Close()
			}
		}()
		return nil, ctx.Err()
	}
}
