package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/network/testnet"
)

func query(name string, kind dnsmessage.Type, edns uint16) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	b.StartQuestions()                                                                                                 //nolint:errcheck
	b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}) //nolint:errcheck
	if edns > 0 {
		b.StartAdditionals() //nolint:errcheck
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(int(edns), 0, false)            //nolint:errcheck
		b.OPTResource(h, dnsmessage.OPTResource{}) //nolint:errcheck
	}
	msg, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return msg
}

func parsed(t testing.TB, msg []byte) *dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("the answer is malformed: %v", err)
	}
	return &m
}

// start runs a server in front of the objects of the zone tests and a headless Service "big" with 300 endpoints.
func start(t testing.TB, upstreams ...netip.AddrPort) (*Server, netip.AddrPort) {
	api := testnet.NewAPI()
	m := objects()
	for _, s := range m.svcs {
		api.Set(s)
	}
	for _, l := range m.eps {
		for _, s := range l {
			api.Set(s)
		}
	}
	api.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	api.Set(serviceOf("big", "None", nil))
	var eps []discoveryv1.Endpoint
	for i := range 300 {
		eps = append(eps, endpointOf(fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), "", true))
	}
	api.Set(sliceOf("big", discoveryv1.AddressTypeIPv4, eps...))
	caches, run := api.Caches(t)
	s := New(Options{Caches: caches, Listen: []netip.AddrPort{free(t)}, Upstreams: upstreams,
		Local: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, Log: slog.New(slog.DiscardHandler)})
	run()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	at := s.opts.Listen[0]
	for range 500 { // until it listens
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
			return s, at
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the server does not listen")
	return nil, at
}

// free returns a loopback address that nothing listens on.
func free(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func ask(t testing.TB, network string, at netip.AddrPort, msg []byte) *dnsmessage.Message {
	t.Helper()
	c, err := net.Dial(network, at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck
	var reply []byte
	if network == "tcp" {
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)) //nolint:errcheck
		reply, err = readStream(c, nil)
	} else {
		c.Write(msg) //nolint:errcheck
		reply = make([]byte, 65535)
		var n int
		n, err = c.Read(reply)
		reply = reply[:n]
	}
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	m := parsed(t, reply)
	if m.ID != 4711 || !m.Response {
		t.Fatalf("not a reply to the question: %+v", m.Header)
	}
	return m
}

func TestServe(t *testing.T) {
	_, at := start(t)
	for _, network := range []string{"udp", "tcp"} {
		m := ask(t, network, at, query("Plain.NS.svc.Cluster.LOCAL", dnsmessage.TypeA, 0))
		if m.RCode != dnsmessage.RCodeSuccess || !m.Authoritative || len(m.Answers) != 1 || len(m.Additionals) != 0 {
			t.Errorf("%s: %+v", network, m)
		}
		if got := m.Answers[0].Header; got.Name.String() != "Plain.NS.svc.Cluster.LOCAL." || got.TTL != ttl {
			t.Errorf("%s: the answer is for %s, TTL %d", network, got.Name, got.TTL)
		}
		m = ask(t, network, at, query("none.ns.svc.cluster.local", dnsmessage.TypeA, 4096))
		if m.RCode != dnsmessage.RCodeNameError || len(m.Authorities) != 1 || m.Authorities[0].Header.Type != dnsmessage.TypeSOA || len(m.Additionals) != 1 {
			t.Errorf("%s: no such name: %+v", network, m)
		}
		m = ask(t, network, at, query("plain.ns.svc.cluster.local", dnsmessage.TypeAAAA, 0))
		if m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 0 || len(m.Authorities) != 1 {
			t.Errorf("%s: no such record: %+v", network, m)
		}
		m = ask(t, network, at, query("inner.ns.svc.cluster.local", dnsmessage.TypeA, 0))
		if len(m.Answers) != 2 || m.Answers[0].Header.Type != dnsmessage.TypeCNAME || m.Answers[1].Header.Type != dnsmessage.TypeA {
			t.Errorf("%s: an alias inside: %+v", network, m)
		}
		m = ask(t, network, at, query("circle.ns.svc.cluster.local", dnsmessage.TypeA, 0))
		if m.RCode != dnsmessage.RCodeServerFailure {
			t.Errorf("%s: an alias of itself: %+v", network, m.Header)
		}
		m = ask(t, network, at, query("example.com", dnsmessage.TypeA, 0))
		if m.RCode != dnsmessage.RCodeServerFailure {
			t.Errorf("%s: without upstream: %+v", network, m.Header)
		}
		m = ask(t, network, at, query("9.0.96.10.in-addr.arpa", dnsmessage.TypePTR, 0))
		if m.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: a cluster address without a name: %+v", network, m.Header)
		}
		m = ask(t, network, at, query("1.0.244.10.in-addr.arpa", dnsmessage.TypePTR, 0))
		if len(m.Answers) != 1 {
			t.Errorf("%s: the name of an endpoint: %+v", network, m)
		}
	}
}

func TestTruncation(t *testing.T) {
	_, at := start(t)
	for _, c := range []struct {
		network  string
		edns     uint16
		cut      bool
		max, min int
	}{{"udp", 0, true, 512, 300}, {"udp", 4096, true, 1232, 1000}, {"udp", 100, true, 512, 300}, {"tcp", 0, false, 65535, 4000}} {
		m := ask(t, c.network, at, query("big.ns.svc.cluster.local", dnsmessage.TypeA, c.edns))
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if m.Truncated != c.cut || len(msg) > c.max || len(msg) < c.min || !c.cut && len(m.Answers) != 300 {
			t.Errorf("%s with EDNS size %d: truncated %t, %d answers, %d bytes", c.network, c.edns, m.Truncated, len(m.Answers), len(msg))
		}
	}
}

// upstream answers every A question with 192.0.2.7 and counts; names that begin with "gone" do not exist, "dead" is not answered.
func upstream(t *testing.T) (netip.AddrPort, *atomic.Int32) {
	at := free(t)
	var n atomic.Int32
	reply := func(msg []byte) []byte {
		n.Add(1)
		q, _, ok := parse(msg, false)
		if !ok || strings.HasPrefix(q.name, "dead") {
			return nil
		}
		z := &zone{domain: "root"}
		res := &result{answers: []record{{name: q.name, kind: dnsmessage.TypeA, addr: netip.MustParseAddr("192.0.2.7")}}}
		a := answer{res: res}
		if strings.HasPrefix(q.name, "gone") {
			a = answer{res: &result{}, rcode: dnsmessage.RCodeNameError, soa: true}
		}
		out, err := z.pack(nil, &q, &a)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close(); l.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			k, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if r := reply(buf[:k]); r != nil {
				u.WriteToUDPAddrPort(r, from) //nolint:errcheck
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			msg, err := readStream(c, nil)
			if err == nil {
				r := reply(msg)
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(r))), r...)) //nolint:errcheck
			}
			c.Close()
		}
	}()
	return at, &n
}

func TestForward(t *testing.T) {
	up, n := upstream(t)
	// The first upstream refuses: nothing listens there.
	_, at := start(t, free(t), up)
	for i, network := range []string{"udp", "udp", "tcp"} {
		m := ask(t, network, at, query("Example.com", dnsmessage.TypeA, 0))
		if len(m.Answers) != 1 || m.Questions[0].Name.String() != "Example.com." {
			t.Fatalf("question %d: %+v", i, m)
		}
	}
	if n.Load() != 1 {
		t.Errorf("upstream was asked %d times for one name", n.Load())
	}
	if m := ask(t, "tcp", at, query("tcp.example.com", dnsmessage.TypeA, 0)); len(m.Answers) != 1 {
		t.Errorf("over TCP: %+v", m)
	}
	if m := ask(t, "udp", at, query("gone.example.com", dnsmessage.TypeA, 0)); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("a name that does not exist: %+v", m.Header)
	}
	m := ask(t, "udp", at, query("alias.ns.svc.cluster.local", dnsmessage.TypeA, 0))
	if len(m.Answers) != 2 || m.Answers[0].Header.Type != dnsmessage.TypeCNAME || m.Answers[1].Header.Name.String() != "example.com." {
		t.Errorf("an alias outside: %+v", m)
	}
	if m := ask(t, "udp", at, query("dead.example.com", dnsmessage.TypeA, 0)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("no answer upstream: %+v", m.Header)
	}
}

func TestBadQueries(t *testing.T) {
	s, at := start(t)
	var res result
	good := query("plain.ns.svc.cluster.local", dnsmessage.TypeA, 1232)
	for i := range good { // every prefix and every changed byte is answered or ignored, and breaks nothing
		s.answer(nil, good[:i], &res, false)
		for _, x := range []byte{0, 1, 0x40, 0xc0, 0xff} {
			bad := append([]byte(nil), good...)
			bad[i] ^= x
			if reply, _ := s.answer(nil, bad, &res, false); reply != nil {
				parsed(t, reply)
			}
		}
	}
	bad := append([]byte(nil), good...)
	bad[2] |= 0x80
	if reply, later := s.answer(nil, bad, &res, false); reply != nil || later != nil {
		t.Error("a response was answered")
	}
	bad = append([]byte(nil), good...)
	bad[2] |= 4 << 3
	if m := ask(t, "udp", at, bad); m.RCode != dnsmessage.RCodeNotImplemented {
		t.Errorf("another opcode: %+v", m.Header)
	}
	bad = append([]byte(nil), good...)
	bad[len(bad)-5] = 1 // the version of EDNS
	if m := ask(t, "udp", at, bad); m.Additionals[0].Header.TTL>>24 != 1 {
		t.Errorf("another version of EDNS: %+v", m.Additionals[0].Header)
	}
}

func TestRememberedAnswersAge(t *testing.T) {
	f := newForwarder(nil)
	msg := query("example.com", dnsmessage.TypeA, 0)
	q, _, _ := parse(msg, false)
	reply, err := (&zone{domain: "x"}).pack(nil, &q, &answer{res: &result{answers: []record{{name: q.name, kind: dnsmessage.TypeA, addr: netip.MustParseAddr("192.0.2.7")}}}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	f.remember(&q, reply, now)
	got := f.recall(nil, &q, msg, now.Add(3*time.Second))
	if m := parsed(t, got); m.Answers[0].Header.TTL != ttl-3 {
		t.Errorf("after 3 s the TTL is %d", m.Answers[0].Header.TTL)
	}
	if f.recall(nil, &q, msg, now.Add((ttl+1)*time.Second)) != nil {
		t.Error("an answer outlived its TTL")
	}
	for i := range 3 * kept {
		q.name = fmt.Sprint(i)
		f.remember(&q, reply, now)
	}
	if len(f.cache) > kept {
		t.Errorf("%d answers are kept", len(f.cache))
	}
}

func TestVIP(t *testing.T) {
	ns := testnet.New(t)
	vip := netip.MustParseAddr("10.96.0.10")
	for range 2 {
		ns.Must(func() error { return BindVIP(vip) })
	}
	ns.Must(func() error { // lo must be up to be reached
		l, err := net.Listen("tcp", "10.96.0.10:53")
		if err == nil {
			l.Close()
		}
		return err
	})
	for range 2 {
		ns.Must(func() error { return UnbindVIP(vip) })
	}
	if ns.Do(func() error {
		l, err := net.Listen("tcp", "10.96.0.10:53")
		if err == nil {
			l.Close()
		}
		return err
	}) == nil {
		t.Error("the address is still there")
	}
}

func TestMain(m *testing.M) { testnet.Main(m) }

func BenchmarkAnswer(b *testing.B) {
	s, _ := start(b)
	msg := query("plain.ns.svc.cluster.local", dnsmessage.TypeA, 1232)
	out := make([]byte, 0, 4096)
	var res result
	b.ReportAllocs()
	for b.Loop() {
		s.answer(out, msg, &res, false)
	}
}

// BenchmarkUDP is whole round trips from 16 clients over loopback sockets, clients included.
func BenchmarkUDP(b *testing.B) {
	_, at := start(b)
	msg := query("plain.ns.svc.cluster.local", dnsmessage.TypeA, 1232)
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		c, err := net.Dial("udp", at.String())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 1500)
		for p.Next() {
			c.Write(msg) //nolint:errcheck
			if _, err := c.Read(buf); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "qps")
}
