package rest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"karve/api/codec"
	"karve/apiserver/resource"
	"karve/store"
)

// writeList answers with a collection. Its items are sent as they are encoded: what is in memory is a part of the answer, not
// all of it, unless the client wants YAML, indentation, or another form than the plain one.
func (x *exchange) writeList(p *resource.Page) error {
	if x.acc.As != "" {
		o, err := x.transformList(p)
		if err != nil {
			return err
		}
		b, err := objectBytes(o, o.GetObjectKind().GroupVersionKind(), x.acc.MediaType)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		writeBytes(x.w, x.r, x.acc, http.StatusOK, b)
		return nil
	}
	out := newPart(x)
	defer out.free()
	var err error
	if x.acc.MediaType == codec.Protobuf {
		err = x.protoList(p, out)
	} else {
		err = x.jsonList(p, out)
	}
	if err != nil && !out.begun {
		return apierrors.NewInternalError(err)
	}
	if err != nil {
		x.Log.Error("list not encoded", "resource", x.row.Resource, "err", err)
		panic(http.ErrAbortHandler) // half a list must not look like one
	}
	out.end()
	return nil
}

// protoItem is an item of a list as protobuf: stored bytes, or those of an object in another version.
type protoItem struct {
	stored  codec.Stored
	version string
	body    []byte
}

func (i *protoItem) len() int {
	if i.body != nil {
		return len(i.body)
	}
	return i.stored.Len(i.version)
}

func (x *exchange) protoItem(r *store.Record) (i protoItem, ok bool, err error) {
	if x.row.Stored.Empty() {
		if i.stored, ok = codec.Open(r.Value); ok {
			i.version = versionOf(r)
			return i, true, nil
		}
	}
	o := resource.ObjectOf(r)
	if o == nil {
		return i, false, nil
	}
	i.body, err = codec.Body(x.view(o))
	return i, err == nil, err
}

// protoList goes over the records twice: the length of the whole comes first in its envelope.
func (x *exchange) protoList(p *resource.Page, out *part) error {
	meta := p.ListMeta()
	head, err := codec.ListHeader(&meta)
	if err != nil {
		return err
	}
	size := len(head)
	for _, r := range p.Records {
		i, ok, err := x.protoItem(r)
		if err != nil {
			return err
		}
		if ok {
			n := i.len()
			size += codec.ItemHeadLen(n) + n
		}
	}
	out.buf = append(codec.AppendEnvelopeHead(out.buf, x.row.ListKind(), size), head...)
	for _, r := range p.Records {
		i, ok, err := x.protoItem(r)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		out.buf = codec.AppendItemHead(out.buf, i.len())
		if i.body != nil {
			out.buf = append(out.buf, i.body...)
		} else {
			out.buf = i.stored.Append(out.buf, i.version)
		}
		if err := out.pass(); err != nil {
			return err
		}
	}
	out.buf = codec.AppendEnvelopeEnd(out.buf)
	return nil
}

func (x *exchange) jsonList(p *resource.Page, out *part) error {
	m, err := json.Marshal(p.ListMeta())
	if err != nil {
		return err
	}
	out.buf = append(out.buf, codec.TypedPrefix(x.row.ListKind(), true, 0)...)
	out.buf = append(out.buf, `"metadata":`...)
	out.buf = append(out.buf, m...)
	out.buf = append(out.buf, `,"items":[`...)
	first := true
	for _, r := range p.Records {
		var b []byte
		var err error
		if x.row.Stored.Empty() {
			b, err = resource.JSONBody(r)
		} else if o := resource.ObjectOf(r); o != nil {
			b, err = codec.JSONBody(x.view(o))
		}
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if !first {
			out.buf = append(out.buf, ',')
		}
		first = false
		out.buf = append(out.buf, b...)
		if err := out.pass(); err != nil {
			return err
		}
	}
	out.buf = append(out.buf, ']', '}')
	return nil
}

// part is the part of an answer that is in memory.
type part struct {
	x     *exchange
	whole bool // the answer has to be complete before it is sent
	buf   []byte
	kept  *[]byte
	begun bool
	zip   *gzip.Writer
}

func newPart(x *exchange) *part {
	kept := buffers.Get().(*[]byte)
	return &part{x: x, kept: kept, buf: (*kept)[:0], whole: x.acc.MediaType == codec.YAML || x.acc.MediaType == codec.JSON && x.acc.Pretty}
}

// pass sends what there is, once it is clear that the answer is a large one.
func (p *part) pass() error {
	if p.whole || !p.begun && len(p.buf) < compressFrom || p.begun && len(p.buf) < writeAt {
		return nil
	}
	if !p.begun {
		p.begun = true
		h := p.x.w.Header()
		h.Set("Content-Type", p.x.acc.MediaType)
		h.Set("Cache-Control", "no-cache, private")
		if AcceptsGzip(p.x.r) {
			h.Set("Content-Encoding", "gzip")
			h.Add("Vary", "Accept-Encoding")
			p.zip = zip(p.x.w)
		}
		p.x.w.WriteHeader(http.StatusOK)
	}
	return p.send()
}

func (p *part) send() (err error) {
	if p.zip != nil {
		_, err = p.zip.Write(p.buf)
	} else {
		_, err = p.x.w.Write(p.buf)
	}
	p.buf = p.buf[:0]
	return err
}

// end sends the rest.
func (p *part) end() {
	if !p.begun {
		writeBytes(p.x.w, p.x.r, p.x.acc, http.StatusOK, p.buf)
		return
	}
	if p.x.acc.MediaType == codec.JSON {
		p.buf = append(p.buf, '\n')
	}
	_ = p.send() // a client that is gone cannot be told
	if p.zip != nil {
		_ = p.zip.Close()
	}
}

func (p *part) free() {
	release(p.kept, p.buf)
	if p.zip != nil {
		zippers.Put(p.zip)
	}
}

// zippers compress at the speed of the wire rather than well: half the size of a list is not worth a second of its reader's time.
var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
	return z
}}

func zip(w http.ResponseWriter) *gzip.Writer {
	z := zippers.Get().(*gzip.Writer)
	z.Reset(w)
	return z
}

// AcceptsGzip reports whether the client takes gzip: a quality of zero says that it does not.
func AcceptsGzip(r *http.Request) bool {
	for offer := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(offer), ";")
		if name == "gzip" {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(quality), "q="), 64)
			return err != nil || q > 0
		}
	}
	return false
}

// buffers are for what is being written: ten thousand watchers that wait hold none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// writeAt is the size in bytes from which a part of a long answer is written, so that no buffer holds a whole collection.
const writeAt = 64 << 10

// release gives a buffer back, unless it has become too large to keep.
func release(kept *[]byte, b []byte) {
	if cap(b) <= 2*compressFrom {
		*kept = b
		buffers.Put(kept)
	}
}
