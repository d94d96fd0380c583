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
	"io"
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
const form = "1"

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
	started time.Time
	mu      sync.Mutex
	docs    map[string]*document // by path below /openapi/v3, and "v2"
	hashes  map[string]string
	made    map[made][]byte
}

// made identifies a rendered document.
type made struct {
	path, hash string
	proto      bool
}

// New returns a handler for the built-in resources. version is karve's own; a document's hash changes with it.
func New(version string) *Handler {
	h := &Handler{version: version, started: time.Now().UTC().Truncate(time.Second)}
	h.SetCustom(nil)
	return h
}

// SetCustom replaces the custom resources. Documents that they do not change keep their hashes.
func (h *Handler) SetCustom(list []Custom) {
	docs := outline(list)
	hashes := map[string]string{}
	for path, d := range docs {
		hashes[path] = h.hash(path, d)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.docs, h.hashes = docs, hashes
	kept := map[made][]byte{}
	for m, b := range h.made {
		if hashes[m.path] == m.hash {
			kept[m] = b
		}
	}
	h.made = kept
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
	case strings.HasPrefix(path, indexPath+"/"):
		name := path[len(indexPath)+1:]
		h.mu.Lock()
		known := h.docs[name] != nil && name != "v2"
		h.mu.Unlock()
		if !known {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return true
		}
		h.document(w, r, name, []string{jsonType, protoV3, protoV3Old})
	default:
		return false
	}
	return true
}

func link(path, hash string) string {
	return indexPath + "/" + path + "?" + url.Values{"hash": {hash}}.Encode()
}

func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	list := map[string]entry{}
	h.mu.Lock()
	for path, hash := range h.hashes {
		if path != "v2" {
			list[path] = entry{link(path, hash)}
		}
	}
	h.mu.Unlock()
	body, err := encode(object{"paths": list})
	if err != nil {
		http.Error(w, "500 OpenAPI index not rendered", http.StatusInternalServerError)
		return
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("ETag", strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:]))))
	http.ServeContent(w, r, "", h.started, bytes.NewReader(body))
}

// document answers with one document in the first encoding of offers that the request accepts.
func (h *Handler) document(w http.ResponseWriter, r *http.Request, path string, offers []string) {
	head := w.Header()
	head.Add("Vary", "Accept")
	head.Add("Vary", "Accept-Encoding")
	kind := accepted(r.Header.Get("Accept"), offers)
	if kind == "" {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	h.mu.Lock()
	d, hash := h.docs[path], h.hashes[path]
	h.mu.Unlock()
	if d == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if want := r.URL.Query().Get("hash"); want != "" && path != "v2" {
		if want != hash {
			http.Redirect(w, r, link(path, hash), http.StatusMovedPermanently)
			return
		}
		head.Set("Cache-Control", immutable)
		head.Set("Expires", time.Now().Add(cacheYear).UTC().Format(http.TimeFormat))
	}
	head.Set("Content-Type", strings.Replace(kind, "@", ".", 1))
	head.Set("ETag", strconv.Quote(hash))
	if slices.Contains(strings.Split(strings.Trim(r.Header.Get("If-None-Match"), " "), ", "), strconv.Quote(hash)) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	packed, err := h.rendered(made{path: path, hash: hash, proto: kind != jsonType}, d)
	if err != nil {
		head.Del("Cache-Control")
		http.Error(w, "500 OpenAPI document not rendered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	if takesGzip(r.Header.Get("Accept-Encoding")) {
		head.Set("Content-Encoding", "gzip")
		http.ServeContent(w, r, "", h.started, bytes.NewReader(packed))
		return
	}
	plain, err := unpack(packed)
	if err != nil {
		http.Error(w, "500 OpenAPI document damaged", http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, "", h.started, bytes.NewReader(plain))
}

// rendered returns the compressed document, made now if it is asked for the first time. One is made at a time.
func (h *Handler) rendered(m made, d *document) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.made[m]; b != nil {
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
	if h.hashes[m.path] == m.hash {
		h.made[m] = b
	}
	return b, nil
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxInMemory))
}

// accepted returns the offer that an Accept header prefers, in the header's order of quality, or "".
func accepted(header string, offers []string) string {
	if header == "" {
		return offers[0]
	}
	best, quality := "", 0.0
	for _, clause := range strings.Split(header, ",") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(clause), ";")
		kind = strings.TrimSpace(kind)
		q := 1.0
		for _, p := range strings.Split(rest, ";") {
			if v, found := strings.CutPrefix(strings.TrimSpace(p), "q="); found {
				q, _ = strconv.ParseFloat(v, 64)
			}
		}
		for _, o := range offers {
			if q > quality && (kind == o || kind == "*/*" || kind == "application/*") {
				best, quality = o, q
				break
			}
		}
	}
	return best
}

func takesGzip(header string) bool {
	for _, e := range strings.Split(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
		if name == "gzip" || name == "*" {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}
