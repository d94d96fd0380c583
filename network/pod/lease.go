package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"karve/network/nft"
)

// HostPort is a port of the node that leads to a pod on it.
type HostPort struct {
	// HostIP limits it to one address of the node; the zero or unspecified Addr means all but loopback ones.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// Protocol is "TCP", "UDP" or "SCTP"; empty is TCP.
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port"`
	// ContainerPort is the port of the pod.
	ContainerPort uint16 `json:"containerPort"`
}

// lease is what a pod holds, as written to disk.
type lease struct {
	ID    string     `json:"id"`
	IP    netip.Addr `json:"ip"`
	Ports []HostPort `json:"ports,omitempty"`
}

var protocols = map[string]uint8{"": 6, "TCP": 6, "UDP": 17, "SCTP": 132}

func (l *lease) elements() []nft.Element {
	link := hostName(l.ID)
	out := []nft.Element{{Set: setPods, Key: nft.Key(link)}, {Set: setOwn, Key: nft.Key(link, l.IP)}}
	for _, p := range l.Ports {
		e := nft.Element{Set: setPorts, Key: nft.Key(protocols[p.Protocol], p.Port), Value: nft.Key(l.IP, p.ContainerPort)}
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			e.Set, e.Key = setPortsAt, nft.Key(p.HostIP.Unmap())+e.Key
		}
		out = append(out, e)
	}
	if len(l.Ports) > 0 {
		out = append(out, nft.Element{Set: setHairpin, Key: nft.Key(l.IP, l.IP)})
	}
	return out
}

// leases hands out addresses. An address given back is used again only after all others: the search goes on from the last
// one given, also after a restart. It is not safe for concurrent use.
type leases struct {
	dir    string
	prefix netip.Prefix
	last   netip.Addr
	byID   map[string]*lease
	byIP   map[netip.Addr]*lease
}

// openLeases reads the leases of an earlier run. One that cannot be read, or lies outside the prefix, is removed.
func openLeases(dir string, prefix netip.Prefix) (*leases, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make lease directory: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	l := &leases{dir: dir, prefix: prefix, byID: map[string]*lease{}, byIP: map[netip.Addr]*lease{}, last: gatewayOf(prefix)}
	var newest time.Time
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		var e lease
		b, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(f.Name(), ".json") {
			err = json.Unmarshal(b, &e)
		}
		if err != nil || e.ID == "" || !prefix.Contains(e.IP) || l.byIP[e.IP] != nil {
			os.Remove(path)
			continue
		}
		l.byID[e.ID], l.byIP[e.IP] = &e, &e
		if info, err := f.Info(); err == nil && info.ModTime().After(newest) {
			newest, l.last = info.ModTime(), e.IP
		}
	}
	return l, nil
}

func (l *leases) all() []*lease {
	out := make([]*lease, 0, len(l.byID))
	for _, e := range l.byID {
		out = append(out, e)
	}
	return out
}

func (l *leases) path(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(l.dir, hex.EncodeToString(sum[:12])+".json")
}

// take returns the lease of id, making one if there is none; the ports of an old one are replaced. made reports a new one.
func (l *leases) take(id string, ports []HostPort) (e *lease, made bool, err error) {
	if err := l.checkPorts(id, ports); err != nil {
		return nil, false, err
	}
	old := l.byID[id]
	if old != nil && slices.Equal(old.Ports, ports) {
		return old, false, nil
	}
	e = &lease{ID: id, Ports: ports}
	if old != nil {
		e.IP = old.IP
	} else if e.IP, err = l.free(); err != nil {
		return nil, false, err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, false, fmt.Errorf("write lease: %w", err)
	}
	// No fsync: leases matter only as long as the namespaces do, and those end with the machine.
	tmp := l.path(id) + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return nil, false, fmt.Errorf("write lease: %w", err)
	}
	if err := os.Rename(tmp, l.path(id)); err != nil {
		return nil, false, fmt.Errorf("write lease: %w", err)
	}
	l.byID[id], l.byIP[e.IP] = e, e
	if old == nil {
		l.last = e.IP
	}
	return e, old == nil, nil
}

func (l *leases) checkPorts(id string, ports []HostPort) error {
	for _, p := range ports {
		if _, ok := protocols[p.Protocol]; !ok || p.Port == 0 || p.ContainerPort == 0 {
			return fmt.Errorf("host port %d/%s: not a port", p.Port, p.Protocol)
		}
		if p.HostIP.IsValid() && !p.HostIP.Unmap().Is4() {
			return fmt.Errorf("host port %d: address %s is not IPv4", p.Port, p.HostIP)
		}
	}
	want := map[string]bool{}
	for _, e := range (&lease{IP: gatewayOf(l.prefix), Ports: ports}).elements() {
		if e.Set == setHairpin {
			continue
		}
		if want[e.Set+e.Key] {
			return errors.New("the same host port is asked for twice")
		}
		want[e.Set+e.Key] = true
	}
	for _, other := range l.byID {
		if other.ID == id {
			continue
		}
		for _, e := range other.elements() {
			if want[e.Set+e.Key] {
				return fmt.Errorf("a host port is in use by pod %s", other.ID)
			}
		}
	}
	return nil
}

func (l *leases) free() (netip.Addr, error) {
	first := gatewayOf(l.prefix).Next()
	a := l.last.Next()
	for range 1 << (32 - l.prefix.Bits()) {
		if !l.prefix.Contains(a) || !l.prefix.Contains(a.Next()) || a.Less(first) { // past the end, or the broadcast address
			a = first
		}
		if l.byIP[a] == nil {
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, fmt.Errorf("no free address in %s", l.prefix)
}

// drop gives a lease back; nil when id has none.
func (l *leases) drop(id string) (*lease, error) {
	e := l.byID[id]
	if e == nil {
		return nil, nil
	}
	if err := os.Remove(l.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove lease: %w", err)
	}
	delete(l.byID, id)
	delete(l.byIP, e.IP)
	return e, nil
}
