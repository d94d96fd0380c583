// Package openapi serves the description of the API: /openapi/v3, one document per group and version, and /openapi/v2, one
// for all. kubectl explain, apply, diff and every client that checks or merges by schema read it. The API server hands it
// requests and tells it of custom resources; definitions come from api/schema and operations from the rows of package api.
// It keeps what it rendered, compressed, and nothing else; it knows of no object.
package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"karve/api"
	"karve/api/schema"
)

// form is raised when the same rows and definitions render differently than before: clients keep a document for as long as
// its hash stays.
const form = "2"

// The media types of the two encodings. The older protobuf names are still asked for.
const (
	jsonType    = "application/json"
	protoV2     = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	protoV2Old  = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	protoV3     = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	protoV3Old  = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
	indexPath   = "/openapi/v3"
	versionTwo  = "/openapi/v2"
	cacheYear   = 365 * 24 * time.Hour
	immutable   = "public, immutable"
	maxInMemory = 64 << 20
)

// Custom is a custom resource that is served beside the built-in ones. Schemas are its definitions by name, in the form of
// OpenAPI version 3; they may refer to built-in ones. Name and ListName are those of the object and of its list.
type Custom struct {
	Row            *api.Row
	Name, ListName string
	Schemas        map[string]json.RawMessage
}

// Handler serves the documents. Safe for concurrent use.
type Handler struct {
	version string
	mu      sync.Mutex
	custom  []Custom
	// docs are the documents by path below /openapi/v3, and "v2"; nil until somebody asks.
	docs map[string]*entry
	made map[made][]byte
	// rendering lets one document be made at a time, for that is when memory is needed.
	rendering sync.Mutex
}

// entry is a document with its hash and since when it has been what it is.
type entry struct {
	*document
	hash  string
	since time.Time
}

// made identifies a rendered document.
type made struct {
	path, hash string
	proto      bool
}

// New returns a handler for the built-in resources. version is karve's own; a document's hash changes with it. Nothing is
// computed before the first request.
func New(version string) *Handler {
	return &Handler{version: version, made: map[made][]byte{}}
}

// SetCustom replaces the custom resources. Documents that they do not change keep their hashes.
func (h *Handler) SetCustom(list []Custom) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.custom = slices.Clone(list)
	if h.docs != nil {
		h.outline()
	}
}

// current returns the documents there are now. The map is replaced, never changed.
func (h *Handler) current() map[string]*entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.docs == nil {
		h.outline()
	}
	return h.docs
}

// outline recomputes which documents there are and forgets the renderings that are out of date. The caller holds mu.
func (h *Handler) outline() {
	now := time.Now().UTC().Truncate(time.Second)
	docs := map[string]*entry{}
	for path, d := range outline(h.custom) {
		e := &entry{document: d, hash: h.hash(path, d), since: now}
		if old := h.docs[path]; old != nil && old.hash == e.hash {
			e.since = old.since
		}
		docs[path] = e
	}
	for m := range h.made {
		if e := docs[m.path]; e == nil || e.hash != m.hash {
			delete(h.made, m)
		}
	}
	h.docs = docs
}

// outline says which documents there are and what is in them.
func outline(custom []Custom) map[string]*document {
	level := api.Level[:strings.LastIndexByte(api.Level, '.')]
	all := &document{all: true, level: level, fixed: []endpoint{coreVersions(), groups(), version(), keys(), issuer()}, extra: map[string]json.RawMessage{}}
	docs := map[string]*document{"v2": all}
	single := func(path string, e endpoint) { docs[path] = &document{level: level, fixed: []endpoint{e}} }
	single("api", coreVersions())
	single("apis", groups())
	single("version", version())
	single("openid/v1/jwks", keys())
	single(".well-known/openid-configuration", issuer())
	add := func(s served, schemas map[string]json.RawMessage) {
		r := s.Row
		if path := "apis/" + r.Group; r.Group != "" && docs[path] == nil {
			single(path, group(r.Group))
			all.fixed = append(all.fixed, group(r.Group))
		}
		path := basePath(r.Group, r.Version)[1:]
		d := docs[path]
		if d == nil {
			d = &document{group: r.Group, version: r.Version, level: level, fixed: []endpoint{resources(r.Group, r.Version)}, extra: map[string]json.RawMessage{}}
			docs[path] = d
			all.fixed = append(all.fixed, resources(r.Group, r.Version))
		}
		d.rows, all.rows = append(d.rows, s), append(all.rows, s)
		for name, doc := range schemas {
			d.extra[name], all.extra[name] = doc, doc
		}
	}
	for _, r := range api.Rows() {
		s := served{Row: r, Name: schema.Name(r.GVK())}
		if r.NewList != nil {
			s.ListName = schema.Name(r.ListKind())
		}
		add(s, nil)
	}
	for _, c := range custom {
		add(served{Row: c.Row, Name: c.Name, ListName: c.ListName, custom: true}, c.Schemas)
	}
	return docs
}

// hash identifies a document by all that it is made of, so that nothing has to be rendered to know it.
func (h *Handler) hash(path string, d *document) string {
	sum := schema.Sum()
	to := sha256.New()
	fmt.Fprintf(to, "%s\x00%s\x00%x\x00%s\x00%s", form, h.version, sum, path, d.level)
	for _, s := range d.rows {
		fmt.Fprintf(to, "\x00%s\x00%v\x00%v\x00%v\x00%v\x00%s\x00%s", s.Row.GVK(), s.Row.Resource, s.Row.Namespaced, s.Row.Verbs, s.Row.Sub, s.Name, s.ListName)
	}
	for _, name := range sortedKeys(d.extra) {
		fmt.Fprintf(to, "\x00%s\x00%s", name, d.extra[name])
	}
	return strings.ToUpper(hex.EncodeToString(to.Sum(nil)))
}

// Serve answers a request whose path is OpenAPI's and says whether it was.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) bool {
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case path == indexPath:
		h.index(w, r)
	case path == versionTwo:
		h.document(w, r, "v2", []string{jsonType, protoV2, protoV2Old})
	case strings.HasPrefix(path, indexPath+"/") && path != indexPath+"/v2":
		h.document(w, r, path[len(indexPath)+1:], []string{jsonType, protoV3, protoV3Old})
	default:
		return false
	}
	return true
}

func link(path, hash string) string {
	return indexPath + "/" + path + "?" + url.Values{"hash": {hash}}.Encode()
}

// index lists the documents of version 3 with their hashes.
func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	type item struct {
		URL string `json:"serverRelativeURL"`
	}
	list := map[string]item{}
	var since time.Time
	for path, e := range h.current() {
		if path != "v2" {
			list[path] = item{link(path, e.hash)}
			if e.since.After(since) {
				since = e.since
			}
		}
	}
	body, err := encode(object{"paths": list})
	if err != nil {
		http.Error(w, "500 OpenAPI index not rendered", http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("ETag", strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:]))))
	http.ServeContent(w, r, "", since, bytes.NewReader(body))
}

// document answers with one document in the first encoding of offers that the request accepts.
func (h *Handler) document(w http.ResponseWriter, r *http.Request, path string, offers []string) {
	d := h.current()[path]
	if d == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	head := w.Header()
	head.Set("Vary", "Accept, Accept-Encoding")
	kind := accepted(r.Header.Get("Accept"), offers)
	if kind == "" {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	if want := r.URL.Query().Get("hash"); want != "" && !d.all {
		if want != d.hash {
			http.Redirect(w, r, link(path, d.hash), http.StatusMovedPermanently)
			return
		}
		head.Set("Cache-Control", immutable)
		head.Set("Expires", time.Now().Add(cacheYear).UTC().Format(http.TimeFormat))
	}
	head.Set("Content-Type", strings.Replace(kind, "@", ".", 1))
	head.Set("ETag", strconv.Quote(d.hash))
	if r.Header.Get("If-None-Match") == strconv.Quote(d.hash) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	packed, err := h.rendered(made{path: path, hash: d.hash, proto: kind != jsonType}, d.document)
	if err == nil && takesGzip(r.Header.Get("Accept-Encoding")) {
		head.Set("Content-Encoding", "gzip")
	} else if err == nil {
		packed, err = unpack(packed)
	}
	if err != nil {
		head.Del("Cache-Control")
		head.Del("Expires")
		head.Del("ETag")
		http.Error(w, "500 OpenAPI document not rendered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, "", d.since, bytes.NewReader(packed))
}

// rendered returns the compressed document, made now if it is asked for the first time.
func (h *Handler) rendered(m made, d *document) ([]byte, error) {
	kept := func() []byte {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.made[m]
	}
	if b := kept(); b != nil {
		return b, nil
	}
	h.rendering.Lock()
	defer h.rendering.Unlock()
	if b := kept(); b != nil {
		return b, nil
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	var to sink = &jsonSink{w: z, v2: d.all}
	if m.proto {
		to = &protoSink{w: z, v2: d.all}
	}
	if err := d.write(to); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	b := bytes.Clone(buf.Bytes())
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.docs[m.path]; e != nil && e.hash == m.hash {
		h.made[m] = b
	}
	return b, nil
}
