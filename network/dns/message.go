package dns

import (
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// plainSize is the largest UDP answer to a client that does not say what it takes, ednsSize to one that does.
	plainSize, ednsSize = 512, 1232
	// streamSize is the largest answer over TCP.
	streamSize = 65535
)

// question is a parsed query.
type question struct {
	id      uint16
	header  dnsmessage.Header
	q       dnsmessage.Question
	name    string // lower case, without the final dot
	edns    bool
	dnssec  bool // wants DNSSEC records
	version byte // of EDNS
	limit   int  // largest answer, in bytes
}

// parse reads a query. ok is false for what deserves no answer at all.
func parse(msg []byte, stream bool) (q question, rcode dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return q, 0, false
	}
	q.header, q.id, q.limit = h, h.ID, plainSize
	if stream {
		q.limit = streamSize
	}
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if q.q, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return q, dnsmessage.RCodeFormatError, true
	}
	q.name = lower(&q.q.Name)
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for {
		rh, err := p.AdditionalHeader()
		if err != nil {
			break
		}
		if rh.Type == dnsmessage.TypeOPT {
			q.edns, q.version, q.dnssec = true, byte(rh.TTL>>16), rh.DNSSECAllowed()
			if !stream {
				q.limit = min(max(int(rh.Class), plainSize), ednsSize)
			}
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
	}
	return q, dnsmessage.RCodeSuccess, true
}

// lower returns the name in lower case without its final dot.
func lower(n *dnsmessage.Name) string {
	var b [255]byte
	l := int(n.Length)
	if l > 0 && n.Data[l-1] == '.' {
		l--
	}
	for i := range l {
		c := n.Data[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	return string(b[:l])
}

func nameOf(s string) (dnsmessage.Name, error) { return dnsmessage.NewName(s + ".") }

// answer is everything of a reply but the question.
type answer struct {
	rcode         dnsmessage.RCode
	authoritative bool
	res           *result
	more          []dnsmessage.Resource // further answers, from elsewhere
	soa           bool                  // nothing found: say for how long
	truncated     bool                  // there is more, over TCP
}

// pack writes the reply into buf. What exceeds the question's limit is left out, and the reply marked as truncated.
func (z *zone) pack(buf []byte, q *question, a *answer) ([]byte, error) {
	answers, extra := len(a.res.answers)+len(a.more), len(a.res.extra)
	truncated := a.truncated
	for {
		out, err := z.try(buf, q, a, answers, extra, truncated)
		if err != nil || len(out) <= q.limit || answers+extra == 0 {
			return out, err
		}
		switch { // additional records may go missing silently, answers may not
		case extra > 0:
			extra = 0
		default:
			truncated = true
			answers = min(answers-1, answers*q.limit/len(out))
		}
	}
}

func (z *zone) try(buf []byte, q *question, a *answer, answers, extra int, truncated bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(buf[:0], dnsmessage.Header{ID: q.id, Response: true, OpCode: q.header.OpCode, Authoritative: a.authoritative,
		Truncated: truncated, RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: a.rcode & 0xf})
	b.EnableCompression()
	if q.q.Name.Length > 0 {
		if err := b.StartQuestions(); err != nil {
			return nil, err
		}
		if err := b.Question(q.q); err != nil {
			return nil, err
		}
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	for i := range min(answers, len(a.res.answers)) {
		if err := z.write(&b, q, &a.res.answers[i]); err != nil {
			return nil, err
		}
	}
	for i := range max(0, answers-len(a.res.answers)) {
		if err := writeResource(&b, &a.more[i]); err != nil {
			return nil, err
		}
	}
	if err := b.StartAuthorities(); err != nil {
		return nil, err
	}
	if a.soa {
		if err := z.write(&b, q, &record{name: z.domain, kind: dnsmessage.TypeSOA}); err != nil {
			return nil, err
		}
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	for i := range extra {
		if err := z.write(&b, q, &a.res.extra[i]); err != nil {
			return nil, err
		}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(ednsSize, a.rcode, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

func (z *zone) write(b *dnsmessage.Builder, q *question, r *record) error {
	h := dnsmessage.ResourceHeader{Class: dnsmessage.ClassINET, TTL: ttl, Type: r.kind}
	var err error
	if r.name == q.name {
		h.Name = q.q.Name // with the letter case that was asked with
	} else if h.Name, err = nameOf(r.name); err != nil {
		return err
	}
	var target dnsmessage.Name
	if r.target != "" {
		if target, err = nameOf(r.target); err != nil {
			return err
		}
	}
	switch r.kind {
	case dnsmessage.TypeA:
		return b.AResource(h, dnsmessage.AResource{A: r.addr.As4()})
	case dnsmessage.TypeAAAA:
		return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: r.addr.As16()})
	case dnsmessage.TypeCNAME:
		return b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: target})
	case dnsmessage.TypePTR:
		return b.PTRResource(h, dnsmessage.PTRResource{PTR: target})
	case dnsmessage.TypeNS:
		return b.NSResource(h, dnsmessage.NSResource{NS: target})
	case dnsmessage.TypeTXT:
		return b.TXTResource(h, dnsmessage.TXTResource{TXT: []string{r.text}})
	case dnsmessage.TypeSRV:
		return b.SRVResource(h, dnsmessage.SRVResource{Priority: 0, Weight: 100, Port: r.port, Target: target})
	case dnsmessage.TypeSOA:
		ns, err := nameOf("ns.dns." + z.domain)
		if err != nil {
			return err
		}
		box, err := nameOf("hostmaster." + z.domain)
		if err != nil {
			return err
		}
		return b.SOAResource(h, dnsmessage.SOAResource{NS: ns, MBox: box, Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, MinTTL: ttl})
	}
	return nil
}

// writeResource copies an answer of another server; of kinds that cannot be written nothing is.
func writeResource(b *dnsmessage.Builder, r *dnsmessage.Resource) error {
	switch body := r.Body.(type) {
	case *dnsmessage.AResource:
		return b.AResource(r.Header, *body)
	case *dnsmessage.AAAAResource:
		return b.AAAAResource(r.Header, *body)
	case *dnsmessage.CNAMEResource:
		return b.CNAMEResource(r.Header, *body)
	case *dnsmessage.TXTResource:
		return b.TXTResource(r.Header, *body)
	case *dnsmessage.SRVResource:
		return b.SRVResource(r.Header, *body)
	case *dnsmessage.MXResource:
		return b.MXResource(r.Header, *body)
	}
	return nil
}

// clean returns the cluster domain as names are compared: lower case, no dots around it.
func clean(domain string) string { return strings.ToLower(strings.Trim(domain, ".")) }
