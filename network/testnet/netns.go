// Package testnet is what the kernel tests of the network packages stand on: a test process in a network namespace of its
// own, further namespaces inside it, small servers, and an API made of memory. Only tests import it.
package testnet

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const inside = "KARVE_TEST_NETNS"

// Main runs the tests of a package in a new network namespace: call it from TestMain. Without root it runs them where they
// are, and Need skips those that need one.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo"}}); err != nil {
			fmt.Fprintln(os.Stderr, "set lo up:", err)
			os.Exit(1)
		}
	}
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "run the tests in a network namespace:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// Need skips a test that cannot have namespaces.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("SKIPPED: needs root, to make network namespaces")
	}
}

// NS is a network namespace; it lasts as long as the test.
type NS struct {
	t    testing.TB
	Path string
	fd   int
}

// New makes a namespace.
func New(t testing.TB) *NS {
	t.Helper()
	Need(t)
	ns := &NS{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns.fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal("make a network namespace:", err)
	}
	ns.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.fd)
	t.Cleanup(func() { unix.Close(ns.fd) })
	return ns
}

// Here is the namespace of the test process.
func Here(t testing.TB) *NS {
	t.Helper()
	Need(t)
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &NS{t: t, fd: fd, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)}
}

// Do runs fn on a thread inside the namespace and waits for it.
func (ns *NS) Do(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// Must is Do that fails the test on an error.
func (ns *NS) Must(fn func() error) {
	ns.t.Helper()
	if err := ns.Do(fn); err != nil {
		ns.t.Fatal(err)
	}
}

// Serve answers every TCP connection, and every UDP packet, at the address with name and the client's address, in the form
// "name client". The listeners close with the test or when stop is called.
func (ns *NS) Serve(at, name string) (stop func()) {
	ns.t.Helper()
	var l net.Listener
	var u net.PacketConn
	ns.Must(func() (err error) {
		if l, err = net.Listen("tcp", at); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp", at)
		return err
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s %s\n", name, addrOf(c.RemoteAddr()))
				io.Copy(c, c) //nolint:errcheck // an echo for who wants to stay
			}()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo([]byte(name+" "+addrOf(from)+"\n"), from) //nolint:errcheck
		}
	}()
	stop = func() { l.Close(); u.Close() }
	ns.t.Cleanup(stop)
	return stop
}

func addrOf(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
}

// Dial connects from the namespace.
func (ns *NS) Dial(network, to string) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial(network, to)
		return err
	})
	return c, err
}

// Ask connects over network ("tcp" or "udp") and returns who answered and the client address that they saw.
func (ns *NS) Ask(network, to string) (name, client string, err error) {
	c, err := ns.Dial(network, to)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck
	if network == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", "", err
		}
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return "", "", err
	}
	name, client, _ = strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	return name, client, nil
}

// Wire joins two namespaces with a veth pair and gives each end an address, in prefix notation.
func Wire(a, b *NS, nameA, nameB, addrA, addrB string) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerNamespace = nameB, netlink.NsFd(b.fd)
	a.Must(func() error { return netlink.LinkAdd(v) })
	for _, end := range []struct {
		ns         *NS
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		end.ns.Must(func() error {
			link, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(end.addr)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			return netlink.LinkSetUp(link)
		})
	}
	a.t.Cleanup(func() {
		a.Do(func() error { //nolint:errcheck // it may be gone with a namespace
			link, err := netlink.LinkByName(nameA)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	})
}

// Route adds a route to dst by gateway, or by the interface alone when gateway is empty.
func (ns *NS) Route(dst, gateway, dev string) {
	ns.t.Helper()
	ns.Must(func() error {
		_, d, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		r := &netlink.Route{Dst: d, Gw: net.ParseIP(gateway)}
		if dev != "" {
			link, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			r.LinkIndex = link.Attrs().Index
		}
		return netlink.RouteAdd(r)
	})
}
