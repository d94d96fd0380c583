package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"karve/network/dns"
	"karve/network/nft"
	"karve/network/pod"
	"karve/network/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// world is one node with pods "a", "b", "c" on it, an outside host, and a running proxy.
type world struct {
	t    *testing.T
	node *testnet.NS
	out  *testnet.NS
	pods map[string]*testnet.NS
	ip   map[string]string
	api  *testnet.API
	stop func()
	log  *slog.Logger
}

var (
	clusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	serviceCIDR = netip.MustParsePrefix("10.96.0.0/12")
	nodeIP      = netip.MustParseAddr("192.0.2.1")
)

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: testnet.New(t), out: testnet.New(t), pods: map[string]*testnet.NS{}, ip: map[string]string{}, api: testnet.NewAPI()}
	w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	testnet.Wire(w.node, w.out, "up0", "out0", "192.0.2.1/24", "192.0.2.9/24")
	w.out.Route("10.96.0.0/12", "192.0.2.1", "")
	net, err := pod.New(pod.Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: clusterCIDR, ServiceCIDR: serviceCIDR,
		NodeIP: nodeIP, StateDir: t.TempDir(), Log: w.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	w.node.Must(func() error { return net.Up(t.Context()) })
	for _, name := range []string{"a", "b", "c"} {
		ns := testnet.New(t)
		w.node.Must(func() error {
			r, err := net.Attach(t.Context(), ns.Path, name, nil)
			if err == nil {
				w.ip[name] = r.IPs[0].String()
			}
			return err
		})
		ns.Serve(":8080", name)
		w.pods[name] = ns
	}
	return w
}

// start runs a proxy with caches of its own, as a new process would.
func (w *world) start() {
	w.t.Helper()
	caches, run := w.api.Caches(w.t)
	p := New(Options{Caches: caches, NodeName: "n1", NodeIPs: []netip.Addr{nodeIP}, ClusterCIDR: clusterCIDR, ServiceCIDR: serviceCIDR,
		LocalVIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Log: w.log})
	run()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.node.Do(func() error { return p.Run(ctx) }) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error("run:", err)
		}
	})
	w.t.Cleanup(w.stop)
}

// until waits for a condition that the running proxy brings about.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatal("never: ", what)
}

func (w *world) dump() string {
	var b bytes.Buffer
	w.node.Must(func() error {
		p := Proxy{opts: Options{NodeIPs: []netip.Addr{nodeIP}, ClusterCIDR: clusterCIDR, ServiceCIDR: serviceCIDR, LocalVIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}}
		return p.Dump(&b)
	})
	return b.String()
}

func (w *world) has(line string) {
	w.t.Helper()
	w.until(line, func() bool { return strings.Contains(w.dump(), line) })
}

// count asks n times and returns how often each endpoint answered; "" stands for failures.
func (w *world) count(from *testnet.NS, network, to string, n int) map[string]int {
	out := map[string]int{}
	for range n {
		name, _, err := from.Ask(network, to)
		if err != nil {
			w.t.Logf("%s %s: %v", network, to, err)
		}
		out[name]++
	}
	return out
}

func (w *world) slice(svc, ports string, pods ...string) {
	var eps []string
	for _, p := range pods {
		name, state, _ := strings.Cut(p, "!")
		e := w.ip[name] + "@n1"
		if state != "" {
			e += "!" + state
		}
		eps = append(eps, e)
	}
	w.api.Set(slice(svc, ports, eps...))
}

// refused: the kernel reports a datagram refused where it is sent as a thing not permitted.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM)
}

func TestServiceReachesAllEndpoints(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "t/TCP/80/30080", "u/UDP/53/30053"))
	w.slice("s", "t/TCP/8080 u/UDP/8080", "a", "b", "c")
	w.start()
	w.has("10.96.0.1.17.53 : in-3")
	for _, c := range []struct {
		from *testnet.NS
		name string
		net  string
		to   string
	}{
		{w.pods["a"], "a pod", "tcp", "10.96.0.1:80"}, {w.pods["a"], "a pod", "udp", "10.96.0.1:53"},
		{w.node, "the node", "tcp", "10.96.0.1:80"}, {w.node, "the node", "udp", "10.96.0.1:53"},
		{w.out, "outside", "tcp", "10.96.0.1:80"},
		{w.out, "outside", "tcp", "192.0.2.1:30080"}, {w.out, "outside", "udp", "192.0.2.1:30053"},
		{w.node, "the node", "tcp", "192.0.2.1:30080"}, {w.pods["b"], "a pod", "tcp", "192.0.2.1:30080"},
	} {
		got := w.count(c.from, c.net, c.to, 90)
		for _, name := range []string{"a", "b", "c"} {
			if got[name] < 10 { // each has 30 on average; 10 or fewer of one has a chance below 1 in 100,000
				t.Errorf("from %s to %s %s: %v", c.name, c.net, c.to, got)
			}
		}
	}
	// Pods are seen with their own address, except where one reaches itself.
	for range 30 {
		name, client, err := w.pods["a"].Ask("tcp", "10.96.0.1:80")
		if err != nil || (client == w.ip["a"]) == (name == "a") {
			t.Fatalf("pod a reached %s, which saw %s (%v)", name, client, err)
		}
	}
}

func TestNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "t/TCP/80/30080", "u/UDP/53/30053"))
	w.start()
	w.has("10.96.0.1.17.53 : reject")
	for name, ns := range map[string]*testnet.NS{"pod": w.pods["a"], "node": w.node, "outside": w.out} {
		for _, to := range []string{"tcp 10.96.0.1:80", "udp 10.96.0.1:53", "tcp 192.0.2.1:30080", "udp 192.0.2.1:30053", "tcp 10.96.0.1:81"} {
			network, addr, _ := strings.Cut(to, " ")
			if _, _, err := ns.Ask(network, addr); !refused(err) {
				t.Errorf("from %s to %s: %v, want it refused", name, to, err)
			}
		}
	}
	// An address that is no Service's goes nowhere: outside sees nothing of it.
	w.node.Route("0.0.0.0/0", "192.0.2.9", "")
	w.out.Serve(":80", "leak")
	addAddr(t, w.out, "10.96.0.99/32")
	for name, ns := range map[string]*testnet.NS{"pod": w.pods["a"], "node": w.node} {
		if err := ns.Do(func() error { return dialShort("10.96.0.99:80") }); err == nil || refused(err) {
			t.Errorf("from %s to a stray service address: %v", name, err)
		}
	}
}

func TestUpdateTouchesOwnElementsAndKeepsConnections(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "/TCP/80"))
	w.slice("s", "/TCP/8080", "a")
	w.api.Set(service("other", "10.96.0.2", nil, "/TCP/80"))
	w.slice("other", "/TCP/8080", "c")
	w.start()
	w.has("10.96.0.1.6.80 : in-1")
	old, err := w.pods["b"].Dial("tcp", "10.96.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	stop := w.hammer(w.pods["c"], "10.96.0.1:80")
	// A rolling update: b comes, a leaves but still serves, a goes.
	for _, eps := range [][]string{{"a", "b"}, {"a!nst", "b"}, {"b"}, {"b", "c"}, {"c"}, {"a", "c"}, {"a"}, {"b"}} {
		w.slice("s", "/TCP/8080", eps...)
		time.Sleep(30 * time.Millisecond)
	}
	w.has("10.96.0.1.6.80.0 : " + w.ip["b"] + ".8080")
	for _, err := range stop() {
		t.Error("a request was lost:", err)
	}
	if got := w.count(w.pods["c"], "tcp", "10.96.0.1:80", 10); got["b"] != 10 {
		t.Error("after the update:", got)
	}
	old.SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck
	if _, err := fmt.Fprintf(old, "still\n"); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 200)
	got := ""
	for !strings.Contains(got, "still") {
		n, err := old.Read(buf)
		if err != nil {
			t.Fatalf("the old connection broke after %q: %v", got, err)
		}
		got += string(buf[:n])
	}
	w.api.Delete(service("s", "", nil))
	w.until("the Service is gone", func() bool { return !strings.Contains(w.dump(), "10.96.0.1.6.80") })
	if got := w.count(w.pods["a"], "tcp", "10.96.0.2:80", 5); got["c"] != 5 {
		t.Error("the other Service:", got)
	}
}

// hammer makes one connection after another until stopped, and returns the errors.
func (w *world) hammer(from *testnet.NS, to string) func() []error {
	ctx, cancel := context.WithCancel(context.Background())
	var errs []error
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n++
			if _, _, err := from.Ask("tcp", to); err != nil {
				errs = append(errs, err)
			}
		}
	}()
	return func() []error {
		cancel()
		<-done
		if n < 20 {
			errs = append(errs, fmt.Errorf("only %d requests were made", n))
		}
		return errs
	}
}

func TestRestartWithoutOutage(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "/TCP/80"))
	w.slice("s", "/TCP/8080", "a", "b")
	w.api.Set(service("gone", "10.96.0.2", nil, "/TCP/80"))
	w.api.Set(service("sticky", "10.96.0.3", sticky(600), "/TCP/80"))
	w.slice("sticky", "/TCP/8080", "a", "b", "c")
	w.start()
	w.has("10.96.0.3.6.80 : in-3-for-600")
	first, _, err := w.pods["c"].Ask("tcp", "10.96.0.3:80")
	if err != nil {
		t.Fatal(err)
	}
	stop := w.hammer(w.pods["c"], "10.96.0.1:80")
	w.stop()
	if got := w.count(w.pods["c"], "tcp", "10.96.0.1:80", 20); got[""] != 0 {
		t.Error("while no proxy runs:", got)
	}
	w.api.Delete(service("gone", "", nil))
	w.slice("s", "/TCP/8080", "b")
	w.start()
	w.has("10.96.0.1.6.80 : in-1")
	w.until("the Service deleted meanwhile is gone", func() bool { return !strings.Contains(w.dump(), "10.96.0.2") })
	for _, err := range stop() {
		t.Error("a request was lost:", err)
	}
	if got := w.count(w.pods["c"], "tcp", "10.96.0.3:80", 20); got[first] != 20 {
		t.Errorf("session affinity to %s was lost by the restart: %v", first, got)
	}
	w.stop()
	w.node.Must(func() error {
		p := Proxy{opts: Options{NodeIPs: []netip.Addr{nodeIP}, ServiceCIDR: serviceCIDR}}
		return p.Cleanup()
	})
	if d := w.dump(); !strings.Contains(d, "not there") {
		t.Error("after Cleanup:", d)
	}
}

func sticky(seconds int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

func TestSessionAffinity(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", sticky(600), "/TCP/80/30080"))
	w.slice("s", "/TCP/8080", "a", "b", "c")
	w.start()
	w.has("10.96.0.1.6.80 : in-3-for-600")
	for name, ns := range map[string]*testnet.NS{"a": w.pods["a"], "b": w.pods["b"], "node": w.node} {
		first, _, err := ns.Ask("tcp", "10.96.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		if got := w.count(ns, "tcp", "10.96.0.1:80", 20); got[first] != 20 {
			t.Errorf("%s was at %s first, then %v", name, first, got)
		}
	}
	// The endpoint goes: another takes its place for good, also when the first one returns.
	first, _, err := w.out.Ask("tcp", "192.0.2.1:30080")
	if err != nil {
		t.Fatal(err)
	}
	var rest []string
	for name := range w.pods {
		if name != first {
			rest = append(rest, name)
		}
	}
	w.slice("s", "/TCP/8080", rest...)
	w.has("10.96.0.1.6.80 : in-2-for-600")
	second, _, err := w.out.Ask("tcp", "192.0.2.1:30080")
	if err != nil || second == first {
		t.Fatalf("after %s left: %s (%v)", first, second, err)
	}
	w.slice("s", "/TCP/8080", "a", "b", "c")
	w.has("10.96.0.1.6.80 : in-3-for-600")
	if got := w.count(w.out, "tcp", "192.0.2.1:30080", 20); got[second] != 20 {
		t.Errorf("the client was at %s, then %v", second, got)
	}
}

func TestExternalTrafficPolicyLocal(t *testing.T) {
	w := newWorld(t)
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	w.api.Set(service("s", "10.96.0.1", local, "/TCP/80/30080"))
	w.api.Set(slice("s", "/TCP/8080", w.ip["a"]+"@n1", w.ip["b"]+"@other")) // b counts as another node's
	w.start()
	w.has("192.0.2.1.6.30080 : lo-2-of-1")
	for range 20 {
		name, client, err := w.out.Ask("tcp", "192.0.2.1:30080")
		if err != nil || name != "a" || client != "192.0.2.9" {
			t.Fatalf("from outside: %s saw %s (%v)", name, client, err)
		}
	}
	for who, ns := range map[string]*testnet.NS{"a pod": w.pods["c"], "the node": w.node} {
		if got := w.count(ns, "tcp", "192.0.2.1:30080", 40); got["a"] == 0 || got["b"] == 0 || got[""] != 0 {
			t.Errorf("from %s: %v", who, got)
		}
	}
	w.api.Set(slice("s", "/TCP/8080", w.ip["b"]+"@other"))
	w.has("192.0.2.1.6.30080 : lo-1-of-0")
	if err := w.out.Do(func() error { return dialShort("192.0.2.1:30080") }); err == nil || refused(err) {
		t.Errorf("from outside to a node without endpoints: %v, want silence", err)
	}
}

func TestUDPConversationMovesWithItsEndpoint(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "/UDP/53"))
	w.slice("s", "/UDP/8080", "a")
	w.start()
	w.has("10.96.0.1.17.53 : in-1")
	c, err := w.pods["c"].Dial("udp", "10.96.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := talk(t, c); got != "a" {
		t.Fatalf("first %q", got)
	}
	w.slice("s", "/UDP/8080", "b")
	w.until("the same socket reaches b", func() bool { return talk(t, c) == "b" })
}

func talk(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Second)) //nolint:errcheck
	if _, err := c.Write([]byte("?")); err != nil {
		return ""
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(buf[:n]), " ")
	return name
}

func TestForeignRemovalIsRepaired(t *testing.T) {
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", nil, "/TCP/80"))
	w.slice("s", "/TCP/8080", "a")
	w.start()
	w.has("10.96.0.1.6.80 : in-1")
	w.node.Must(func() error {
		tb, err := nft.Open(tableName, false, nft.Layout{})
		if err != nil {
			return err
		}
		defer tb.Close()
		return tb.Delete()
	})
	w.slice("s", "/TCP/8080", "b") // the next change fails, and all is made anew
	w.has("10.96.0.1.6.80.0 : " + w.ip["b"])
	if got := w.count(w.pods["a"], "tcp", "10.96.0.1:80", 5); got["b"] != 5 {
		t.Error(got)
	}
}

func TestEndpointOnTheNodeItself(t *testing.T) {
	w := newWorld(t)
	w.node.Serve("192.0.2.1:6443", "node")
	w.api.Set(service("kubernetes", "10.96.0.1", nil, "https/TCP/443", "u/UDP/443"))
	w.api.Set(slice("kubernetes", "https/TCP/6443 u/UDP/6443", "192.0.2.1@n1"))
	w.start()
	w.has("10.96.0.1.17.443 : in-1")
	for who, ns := range map[string]*testnet.NS{"a pod": w.pods["a"], "the node": w.node, "outside": w.out} {
		for _, network := range []string{"tcp", "udp"} {
			if got := w.count(ns, network, "10.96.0.1:443", 5); got["node"] != 5 {
				t.Errorf("from %s by %s: %v", who, network, got)
			}
		}
	}
}

func TestLocalVIPIsLeftToTheNode(t *testing.T) {
	w := newWorld(t)
	w.node.Must(func() error { return dns.BindVIP(netip.MustParseAddr("10.96.0.10")) })
	w.node.Serve("10.96.0.10:53", "node")
	w.api.Set(service("kube-dns", "10.96.0.10", nil, "d/UDP/53", "t/TCP/53"))
	w.api.Set(service("s", "10.96.0.1", nil, "/TCP/80"))
	w.start()
	w.has("10.96.0.1.6.80 : reject")
	if d := w.dump(); strings.Contains(d, "10.96.0.10") {
		t.Error("programmed:", d)
	}
	for who, ns := range map[string]*testnet.NS{"a pod": w.pods["a"], "the node": w.node} {
		for _, network := range []string{"tcp", "udp"} {
			if got := w.count(ns, network, "10.96.0.10:53", 5); got["node"] != 5 {
				t.Errorf("from %s by %s: %v", who, network, got)
			}
		}
	}
}

// TestIPv6 has no pods: the pod network is IPv4. Two addresses of the node stand for endpoints.
func TestIPv6(t *testing.T) {
	node, out := testnet.New(t), testnet.New(t)
	testnet.Wire(node, out, "up0", "out0", "2001:db8::1/64", "2001:db8::9/64")
	addAddr(t, node, "fd01::1/128")
	addAddr(t, node, "fd01::2/128")
	api := testnet.NewAPI()
	api.Set(service("s", "fd00::1", nil, "/TCP/80"))
	api.Set(service("k", "fd00::2", sticky(600), "/TCP/80"))
	api.Set(service("none", "fd00::3", nil, "/TCP/80"))
	for _, s := range []string{"s", "k"} {
		api.Set(slice(s, "/TCP/8080", "fd01::1@n1", "fd01::2@n1"))
	}
	node.Serve("[fd01::1]:8080", "a")
	node.Serve("[fd01::2]:8080", "b")
	caches, run := api.Caches(t)
	p := New(Options{Caches: caches, NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("fd01::1")},
		ServiceCIDR: netip.MustParsePrefix("fd00::/112"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	run()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- node.Do(func() error { return p.Run(ctx) }) }()
	defer func() { cancel(); <-done }()
	w := &world{t: t}
	w.until("all is programmed", func() bool {
		var b bytes.Buffer
		node.Must(func() error { return p.Dump(&b) })
		return strings.Contains(b.String(), "fd00::3.6.80 : reject")
	})
	if got := w.count(node, "tcp", "[fd00::1]:80", 60); got["a"] < 5 || got["b"] < 5 || got[""] > 0 {
		t.Error("spread:", got)
	}
	if got := w.count(node, "tcp", "[fd00::2]:80", 20); got["a"] != 20 && got["b"] != 20 {
		t.Error("affinity:", got)
	}
	if _, _, err := node.Ask("tcp", "[fd00::3]:80"); !refused(err) {
		t.Error("nothing behind:", err)
	}
}

// TestListable is for people with the nft program: it must be able to show the rules.
func TestListable(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED: needs the nft program")
	}
	w := newWorld(t)
	w.api.Set(service("s", "10.96.0.1", sticky(600), "/TCP/80/30080"))
	w.slice("s", "/TCP/8080", "a", "b", "c")
	w.start()
	w.has("10.96.0.1.6.80 : in-3-for-600")
	w.node.Must(func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft list ruleset: %w\n%s", err, out)
		}
		return nil
	})
}

// BenchmarkProgramme makes tables of 5,000 Services with 3 endpoints each, and changes one Service after the other.
func BenchmarkProgramme(b *testing.B) {
	const n = 5000
	ns := testnet.New(b)
	f := family{w: 1, cluster: clusterCIDR, service: serviceCIDR}
	l := newLedger()
	plan := func(i int, eps ...string) []nft.Element {
		vip := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		e, _ := f.lower(Make(here, service("s", vip, nil, "/TCP/80"), []*discoveryv1.EndpointSlice{slice("s", "/TCP/8080", eps...)}))
		return e
	}
	for i := range n {
		l.set(fmt.Sprint(i), plan(i, "10.244.0.1", "10.244.0.2", "10.244.0.3"))
	}
	var chains []nft.Chain
	for _, k := range []int{2, 3} {
		chains = append(chains, f.chains(spread{all: k})...)
	}
	ns.Must(func() error {
		t, err := nft.Open(tableName, false, f.layout())
		if err != nil {
			return err
		}
		defer t.Close()
		start := time.Now()
		if err := t.Replace(chains, l.elements()); err != nil {
			return err
		}
		programme := time.Since(start)
		start = time.Now()
		_, loaded, _, err := t.Load()
		if err != nil {
			return err
		}
		if del, add := l.against(loaded); len(del)+len(add) != 0 {
			return fmt.Errorf("what was read differs from what was written: %d, %d of %d", len(del), len(add), len(loaded))
		}
		adopt := time.Since(start)
		eps := [][]string{{"10.244.0.1", "10.244.0.2"}, {"10.244.0.1", "10.244.0.2", "10.244.0.3"}}
		i := 0
		for b.Loop() {
			del, add := l.set(fmt.Sprint(i/2%n), plan(i/2%n, eps[i%2]...))
			if err := t.Apply(nft.Change{Del: del, Add: add}); err != nil {
				return err
			}
			i++
		}
		b.ReportMetric(float64(programme.Milliseconds()), "ms/programme")
		b.ReportMetric(float64(adopt.Milliseconds()), "ms/adopt")
		return nil
	})
}
