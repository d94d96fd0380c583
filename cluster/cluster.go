// Package cluster is the composition root: it builds a server, an agent or both out of a config.Config, starts the parts in
// order and stops them in reverse. Only cmd/karve calls it. It is the one place that knows every part; what a part needs of
// another it is given here, as an interface of its own.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"karve/apiserver/authn"
	"karve/client"
	"karve/cluster/control"
	"karve/config"
)

// Version is what the program says of itself; cmd/karve sets it before Run.
var Version = "dev"

// process is one running karve: the parts of a config, with what they share.
type process struct {
	c     config.Config
	log   *slog.Logger
	name  string     // of this node
	ip    netip.Addr // of this node
	plane *plane     // nil where the control plane runs elsewhere

	mu     sync.Mutex
	health []control.Component
}

// Run starts the components c asks for and returns when ctx ends and all of them have stopped, or when one has failed.
func Run(ctx context.Context, c config.Config, log *slog.Logger) error {
	unlock, err := lock(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	p := &process{c: c, log: log, name: c.Node.Name}
	if p.name == "" {
		if p.name, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the node's name: %w (set node.name)", err)
		}
	}
	if p.ip, err = nodeIP(c.Node.IP); err != nil && (c.Components.OnNode() || c.Components.APIServer && c.API.Advertise == "") {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	// start runs one part beside the others; a part that ends while it should not takes the process down.
	start := func(name string, run func(context.Context) error) {
		p.report(name, true, "")
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				p.report(name, false, err.Error())
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	err = p.start(ctx, start)
	wg.Go(func() { settle(ctx) })
	if err != nil {
		cancel(err)
	}
	<-ctx.Done()
	wg.Wait()
	if p.plane != nil { // last of all: everything that stops may still write
		err = errors.Join(err, p.plane.stop())
	}
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

func (p *process) start(ctx context.Context, start func(string, func(context.Context) error)) error {
	began := time.Now()
	if p.c.Components.APIServer {
		pl, err := newPlane(ctx, p)
		if err != nil {
			return err
		}
		p.plane = pl
		if err := pl.startAPI(ctx, start); err != nil {
			return err
		}
		p.log.Info("api server ready", "listen", p.c.API.Listen, "after", time.Since(began).Round(time.Millisecond))
	}
	if err := p.startPlane(ctx, start); err != nil {
		return err
	}
	var node *node
	if p.c.Components.OnNode() {
		n, err := newNode(ctx, p)
		if err != nil {
			return err
		}
		node = n
		if err := n.start(ctx, start); err != nil {
			return err
		}
	}
	srv := &control.Server{Components: p.components, Spool: p.c.DataDir}
	if node != nil && node.engine != nil {
		srv.Images = images{node.engine.Images()}
	}
	start("control", func(ctx context.Context) error { return control.Serve(ctx, p.c.ControlSocket(), srv) })
	return nil
}

func (p *process) report(name string, ok bool, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.health {
		if p.health[i].Name == name {
			p.health[i] = control.Component{Name: name, Healthy: ok, Message: message}
			return
		}
	}
	p.health = append(p.health, control.Component{Name: name, Healthy: ok, Message: message})
}

func (p *process) components() []control.Component {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]control.Component(nil), p.health...)
}

// transport returns access to the API as user: in-process beside an API server, over HTTPS with the kubeconfig elsewhere.
func (p *process) transport(user *authn.User, manager string) (client.Transport, error) {
	if p.plane != nil {
		return p.plane.api.Transport(user, manager), nil
	}
	if p.c.Join.Kubeconfig == "" {
		return nil, errors.New("no API server to talk to: set --kubeconfig (join.kubeconfig)")
	}
	o, err := client.KubeconfigOptions(p.c.Join.Kubeconfig, "")
	if err != nil {
		return nil, err
	}
	o.UserAgent = manager
	return client.NewHTTP(o)
}

// lock keeps a second process out of a data directory. It holds as long as the process lives, however that ends.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w (run as root, or set --data to a directory you own)", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w (run as root, or set --data to a directory you own)", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		held, _ := os.ReadFile(path)
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another karve (pid %s): stop that one first, or give this one another --data", dir, string(held))
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return func() { f.Close() }, nil
}

// nodeIP returns the node's address: the one configured, or the one of the interface that the default route leaves by.
func nodeIP(configured string) (netip.Addr, error) {
	if configured != "" {
		a, err := netip.ParseAddr(configured)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("node.ip: %w", err)
		}
		return a, nil
	}
	// Connecting a datagram socket sends nothing: it only makes the kernel choose a source address.
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err == nil {
		defer conn.Close()
		if a := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); !a.IsUnspecified() && !a.IsLoopback() {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("cannot tell which address this node has: there is no default route; set node.ip (--node-ip)")
}
