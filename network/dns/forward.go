package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// attempt is how long one upstream may take before the next is asked.
	attempt = 2 * time.Second
	// keep is for how long at most an answer is kept, whatever its time to live.
	keep = 30 * time.Second
	// kept is how many answers are kept.
	kept = 2048
	// largestKept is the largest answer kept, in bytes.
	largestKept = 4096
)

// forwarder passes questions about the rest of the world to other servers and remembers what they say for a short time.
type forwarder struct {
	upstreams []netip.AddrPort

	mu    sync.Mutex
	cache map[string]*remembered
}

type remembered struct {
	msg    []byte
	ttls   []int // where the times to live are
	stored time.Time
	until  time.Time
}

func newForwarder(upstreams []netip.AddrPort) *forwarder {
	return &forwarder{upstreams: upstreams, cache: map[string]*remembered{}}
}

var errNoUpstream = errors.New("no upstream server")

// cacheKey tells questions apart: type, class, whether and how EDNS is used, name.
func cacheKey(q *question) string {
	var b [5]byte
	binary.BigEndian.PutUint16(b[0:], uint16(q.q.Type))
	binary.BigEndian.PutUint16(b[2:], uint16(q.q.Class))
	if q.edns {
		b[4] |= 1
	}
	if q.dnssec {
		b[4] |= 2
	}
	return string(b[:]) + q.name
}

// recall returns a remembered answer for the query, made to fit it, appended to buf; nil when there is none.
func (f *forwarder) recall(buf []byte, q *question, query []byte, now time.Time) []byte {
	f.mu.Lock()
	r := f.cache[cacheKey(q)]
	f.mu.Unlock()
	if r == nil || now.After(r.until) || len(r.msg) > q.limit {
		return nil
	}
	out := append(buf[:0], r.msg...)
	aged := uint32(now.Sub(r.stored) / time.Second)
	for _, at := range r.ttls {
		t := binary.BigEndian.Uint32(out[at:])
		binary.BigEndian.PutUint32(out[at:], t-min(t, aged))
	}
	fit(out, query)
	return out
}

// fit gives a reply the id and the letter case of the question of the query.
func fit(reply, query []byte) {
	copy(reply[:2], query[:2])
	if end := questionEnd(query); end > 0 && len(reply) >= end {
		copy(reply[12:end], query[12:end])
	}
}

// questionEnd returns where the only question ends, 0 if that cannot be told.
func questionEnd(msg []byte) int {
	i, ok := skipName(msg, 12)
	if !ok || i+4 > len(msg) {
		return 0
	}
	return i + 4
}

func skipName(msg []byte, i int) (int, bool) {
	for i < len(msg) {
		switch l := int(msg[i]); {
		case l == 0:
			return i + 1, true
		case l&0xc0 == 0xc0:
			return i + 2, i+2 <= len(msg)
		case l&0xc0 != 0:
			return 0, false
		default:
			i += l + 1
		}
	}
	return 0, false
}

// times finds the places of the times to live in a reply, and the shortest; ok is false for a reply that is malformed.
func times(msg []byte) (at []int, shortest uint32, ok bool) {
	i := questionEnd(msg)
	if i == 0 {
		return nil, 0, false
	}
	n := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	shortest = 1 << 31
	for range n {
		if i, ok = skipName(msg, i); !ok || i+10 > len(msg) {
			return nil, 0, false
		}
		kind := dnsmessage.Type(binary.BigEndian.Uint16(msg[i:]))
		if kind != dnsmessage.TypeOPT {
			at = append(at, i+4)
			shortest = min(shortest, binary.BigEndian.Uint32(msg[i+4:]))
		}
		i += 10 + int(binary.BigEndian.Uint16(msg[i+8:]))
		if i > len(msg) {
			return nil, 0, false
		}
	}
	return at, shortest, true
}

func (f *forwarder) remember(q *question, msg []byte, now time.Time) {
	rcode := dnsmessage.RCode(msg[3] & 0xf)
	truncated := msg[2]&2 != 0
	if truncated || len(msg) > largestKept || rcode != dnsmessage.RCodeSuccess && rcode != dnsmessage.RCodeNameError {
		return
	}
	at, shortest, ok := times(msg)
	if !ok || len(at) == 0 || shortest == 0 {
		return
	}
	life := min(time.Duration(shortest)*time.Second, keep)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cache) >= kept {
		for k, r := range f.cache { // what has ended, else whatever comes first
			if now.After(r.until) || len(f.cache) >= kept {
				delete(f.cache, k)
			}
			if len(f.cache) < kept*7/8 {
				break
			}
		}
	}
	f.cache[cacheKey(q)] = &remembered{msg: bytes.Clone(msg), ttls: at, stored: now, until: now.Add(life)}
}

// ask passes the query on and returns the reply, fit for the query. It tries every upstream once, in turn.
func (f *forwarder) ask(ctx context.Context, q *question, query []byte, stream bool) ([]byte, error) {
	if len(f.upstreams) == 0 {
		return nil, errNoUpstream
	}
	var errs error
	for _, up := range f.upstreams {
		reply, err := exchange(ctx, up, query, stream)
		if err != nil {
			errs = errors.Join(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		fit(reply, query)
		f.remember(q, reply, time.Now())
		return reply, nil
	}
	return nil, errs
}

// exchange asks one server, with a random id and from a random port.
func exchange(ctx context.Context, up netip.AddrPort, query []byte, stream bool) ([]byte, error) {
	network := "udp"
	if stream {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, network, up.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", up, err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("ask %s: %w", up, err)
	}
	id := uint16(rand.Uint32())
	out := make([]byte, 0, len(query)+2)
	if stream {
		out = binary.BigEndian.AppendUint16(out, uint16(len(query)))
	}
	at := len(out)
	out = append(out, query...)
	binary.BigEndian.PutUint16(out[at:], id)
	if _, err := c.Write(out); err != nil {
		return nil, fmt.Errorf("ask %s: %w", up, err)
	}
	buf := make([]byte, 4096)
	for {
		var reply []byte
		if stream {
			reply, err = readStream(c, nil)
		} else {
			var n int
			n, err = c.Read(buf)
			reply = buf[:n]
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", up, err)
		}
		if isReply(reply, query, id) {
			return reply, nil
		}
		if stream {
			return nil, fmt.Errorf("ask %s: the reply is to another question", up)
		}
	}
}

// isReply reports whether the message is the reply to exactly this question.
func isReply(reply, query []byte, id uint16) bool {
	end := questionEnd(query)
	return end > 0 && len(reply) >= end && binary.BigEndian.Uint16(reply) == id && reply[2]&0x80 != 0 &&
		binary.BigEndian.Uint16(reply[4:]) == 1 && bytes.EqualFold(reply[12:end], query[12:end])
}

// readStream reads one message of a TCP connection into buf, or into a new buffer if that is too small.
func readStream(c io.Reader, buf []byte) ([]byte, error) {
	var l [2]byte
	if _, err := io.ReadFull(c, l[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(l[:]))
	if n < 12 {
		return nil, errors.New("message too short")
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

// chase asks for the target of an alias and returns what it leads to.
func (f *forwarder) chase(ctx context.Context, target string, q *question) ([]dnsmessage.Resource, dnsmessage.RCode, error) {
	name, err := nameOf(target)
	if err != nil {
		return nil, dnsmessage.RCodeServerFailure, err
	}
	sub := question{q: dnsmessage.Question{Name: name, Type: q.q.Type, Class: q.q.Class}, name: target, limit: streamSize}
	msg := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{sub.q}}
	query, err := msg.Pack()
	if err != nil {
		return nil, dnsmessage.RCodeServerFailure, err
	}
	reply := f.recall(nil, &sub, query, time.Now())
	for _, stream := range []bool{false, true} {
		if reply != nil && reply[2]&2 == 0 {
			break
		}
		if reply, err = f.ask(ctx, &sub, query, stream); err != nil {
			return nil, dnsmessage.RCodeServerFailure, err
		}
	}
	var p dnsmessage.Parser
	h, err := p.Start(reply)
	if err != nil {
		return nil, dnsmessage.RCodeServerFailure, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, dnsmessage.RCodeServerFailure, err
	}
	answers, err := p.AllAnswers()
	return answers, h.RCode, err
}
