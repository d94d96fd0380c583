package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"karve/apiserver"
	"karve/apiserver/authn"
	"karve/controller"
	"karve/pki"
	"karve/scheduler"
)

// plane is the control plane of this process.
type plane struct {
	p       *process
	pki     *pki.Authority
	api     *apiserver.Server
	server  string // https://host:port of the API server as this machine reaches it
	stopAPI context.CancelFunc
	done    chan error
}

func newPlane(ctx context.Context, p *process) (*plane, error) {
	c := &p.c
	authority, err := pki.Open(filepath.Join(c.DataDir, "pki"))
	if err != nil {
		return nil, err
	}
	lifetime, err := c.API.EventLifetime()
	if err != nil {
		return nil, fmt.Errorf("api.eventTTL: %w", err)
	}
	eng, err := openEngine(ctx, c, lifetime, p.log.With("part", "store"))
	if err != nil {
		return nil, err
	}
	cidr, err := netip.ParsePrefix(c.Network.ServiceCIDR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network.serviceCIDR: %w", err), eng.Close())
	}
	low, high, err := c.Network.NodePorts()
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	_, port, err := net.SplitHostPort(c.API.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("api.listen: %w", err), eng.Close())
	}
	advertise := p.advertised(port)
	names, ips := pki.APIServerNames(cidr.Masked().Addr().Next(), advertise.Addr())
	names = append(names, p.name)
	for _, san := range c.API.ExtraSANs {
		if a, err := netip.ParseAddr(san); err == nil {
			ips = append(ips, a)
		} else {
			names = append(names, san)
		}
	}
	history, err := c.API.History()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("api.historyTime: %w", err), eng.Close())
	}
	dns, _ := netip.ParseAddr(c.Network.DNS)
	api, err := apiserver.New(ctx, apiserver.Options{Engine: eng, PKI: authority, Listen: c.API.Listen, Advertise: advertise, Names: names, Addresses: ips,
		ServiceCIDR: cidr, NodePorts: [2]int32{int32(low), int32(high)}, DNS: dns, Anonymous: c.API.AnonymousAuth == "all",
		HistoryTime: history, HistoryEvents: c.API.HistoryEvents, HistoryBytes: c.API.HistoryMiB << 20,
		EventTTL: ownExpiry(c, lifetime), Seats: c.API.MaxRequestsInflight + c.API.MaxMutatingRequestsInflight, Version: Version, Log: p.log.With("part", "apiserver")})
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	return &plane{p: p, pki: authority, api: api, server: "https://" + advertise.String(), done: make(chan error, 1)}, nil
}

// advertised is where others reach this API server.
func (p *process) advertised(port string) netip.AddrPort {
	n, _ := strconv.ParseUint(port, 10, 16)
	addr := p.ip
	if s := p.c.API.Advertise; s != "" {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			return ap
		}
		if a, err := netip.ParseAddr(s); err == nil {
			addr = a
		}
	}
	if host, _, err := net.SplitHostPort(p.c.API.Listen); err == nil && !addr.IsValid() {
		addr, _ = netip.ParseAddr(host)
	}
	if !addr.IsValid() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(addr, uint16(n))
}

// startAPI starts the API server and returns once it answers. It runs on its own context: the parts that stop before it
// may still write.
func (pl *plane) startAPI(ctx context.Context, start func(string, func(context.Context) error)) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	pl.stopAPI = stop
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		err := pl.api.Run(run, func() { close(ready) })
		pl.done <- err
		failed <- err
	}()
	start("apiserver", func(ctx context.Context) error {
		select {
		case err := <-failed:
			return errors.Join(err, errors.New("the API server has stopped"))
		case <-ctx.Done():
			return nil
		}
	})
	select {
	case <-ready:
	case err := <-pl.done:
		pl.done <- err
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	start("join-file", pl.keepJoinFile)
	return pl.writeKubeconfigs()
}

// keepJoinFile writes the credential for machines that join anew before it expires.
func (pl *plane) keepJoinFile(ctx context.Context) error {
	for {
		select {
		case <-time.After(joinLifetime / 2):
		case <-ctx.Done():
			return nil
		}
		if err := pl.writeJoinKubeconfig(); err != nil {
			pl.p.log.Error("join file not written", "err", err)
		}
	}
}

func (pl *plane) stop() error {
	if pl.stopAPI == nil {
		return nil
	}
	pl.stopAPI()
	return <-pl.done
}

// joinLifetime is how long the credential in the join file lasts; it is written anew at every start and twice in that time.
const joinLifetime = 24 * time.Hour

// writeKubeconfigs writes the administrator's file and the one that machines join with.
func (pl *plane) writeKubeconfigs() error {
	cert, key, err := pl.pki.Client("kubernetes-admin", []string{authn.GroupMasters}, 365*24*time.Hour)
	if err != nil {
		return err
	}
	if err := pl.pki.WriteKubeconfig(pl.p.c.AdminKubeconfig(), pl.server, cert, key, pl.p.c.Name); err != nil {
		return err
	}
	return pl.writeJoinKubeconfig()
}

func (pl *plane) writeJoinKubeconfig() error {
	cert, key, err := pl.pki.Client("system:bootstrap:"+pl.p.c.Name, []string{"system:bootstrappers"}, joinLifetime)
	if err != nil {
		return err
	}
	return pl.pki.WriteKubeconfig(pl.p.c.JoinKubeconfig(), pl.server, cert, key, pl.p.c.Name)
}

// user is a component's identity, by the name upstream's roles know it by.
func user(name string, groups ...string) *authn.User {
	return &authn.User{Name: name, Groups: append(groups, authn.GroupAuthenticated)}
}

// startPlane starts controllers and scheduler, here or against another's API server.
func (p *process) startPlane(_ context.Context, start func(string, func(context.Context) error)) error {
	if p.c.Components.Controllers {
		// Controllers act for every namespace and kind, so they run as the control plane itself.
		t, err := p.transport(user("system:kube-controller-manager", authn.GroupMasters), "kube-controller-manager")
		if err != nil {
			return err
		}
		o := controller.Options{Transport: t, Log: p.log.With("part", "controllers"), Identity: p.identity(), LeaderElect: p.plane == nil || p.oneOfSeveral()}
		if o.ClusterCIDR, err = netip.ParsePrefix(p.c.Network.PodCIDR); err != nil {
			return fmt.Errorf("network.podCIDR: %w", err)
		}
		if p.plane != nil {
			o.RootCA, o.Signer = p.plane.pki.CACert(), p.plane.pki
		}
		start("controllers", p.again("controllers", func(ctx context.Context) error { return controller.Run(ctx, o) }))
	}
	if p.c.Components.Scheduler {
		t, err := p.transport(user("system:kube-scheduler"), "kube-scheduler")
		if err != nil {
			return err
		}
		log := p.log.With("part", "scheduler")
		run := func(ctx context.Context) error {
			s, err := scheduler.New(scheduler.Options{Transport: t, Log: log})
			if err != nil {
				return err
			}
			return s.Run(ctx)
		}
		if p.oneOfSeveral() {
			schedule := run
			run = p.again("scheduler", func(ctx context.Context) error {
				return controller.Lead(ctx, t, log, "kube-scheduler", p.identity(), schedule)
			})
		}
		start("scheduler", run)
	}
	return nil
}

// oneOfSeveral reports whether other control planes may run beside this one, on the same etcd.
func (p *process) oneOfSeveral() bool { return p.plane != nil && len(p.c.Etcd.Servers) > 0 }

// identity is what this process is called in elections: several on one machine listen in different places.
func (p *process) identity() string {
	if p.oneOfSeveral() {
		return p.name + "_" + p.c.API.Listen
	}
	return p.name
}

// again makes a part that ends when it loses its lease stand for election again, where the API server of the same process
// lives on. What runs by itself ends, to be started anew.
func (p *process) again(part string, run func(context.Context) error) func(context.Context) error {
	if !p.oneOfSeveral() {
		return run
	}
	return func(ctx context.Context) error {
		for {
			err := run(ctx)
			if err == nil || ctx.Err() != nil {
				return err
			}
			p.log.Warn("part ended, standing for election again", "part", part, "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil
			}
		}
	}
}
