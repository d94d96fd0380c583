package request

import (
	"mime"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"karve/api/codec"
)

// Accept is one form a client will take an answer in.
type Accept struct {
	// MediaType is one of codec's.
	MediaType string
	// As is "", "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"; AsVersion is its version of meta.k8s.io.
	As, AsVersion string
	// Stream says that frames of a watch were asked for by name.
	Stream bool
	Pretty bool
}

// Speaks reports whether the client takes any media type that the API speaks, whatever it wants done to the object.
func Speaks(r *http.Request) bool {
	header := acceptHeader(r)
	if header == "" {
		return true
	}
	for _, part := range strings.Split(header, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.TrimSpace(kind) {
		case "*/*", codec.JSON, codec.YAML, codec.Protobuf:
			return true
		}
	}
	return false
}

func acceptHeader(r *http.Request) string {
	v := r.Header.Values("Accept")
	if len(v) == 1 {
		return v[0]
	}
	return strings.Join(v, ",")
}

type clause struct {
	kind   string
	params map[string]string
	q      float64
}

// Negotiate picks the first form the client prefers that the API speaks; ok is false when there is none (406). forms are
// the transformations the resource serves besides the plain object.
func Negotiate(r *http.Request, forms ...string) (a Accept, ok bool) {
	header := acceptHeader(r)
	switch header {
	case "", codec.JSON: // what most requests say needs no parsing
		return Accept{MediaType: codec.JSON, Pretty: pretty(r)}, true
	case codec.Protobuf, codec.Protobuf + "," + codec.JSON, codec.Protobuf + ", " + codec.JSON:
		return Accept{MediaType: codec.Protobuf}, true
	}
	if !Speaks(r) {
		return Accept{}, false
	}
	var clauses []clause
	for _, part := range strings.Split(header, ",") {
		kind, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil && kind == "" {
			continue
		}
		q := 1.0
		if v, err := strconv.ParseFloat(params["q"], 64); err == nil {
			q = v
		}
		clauses = append(clauses, clause{kind, params, q})
	}
	sort.SliceStable(clauses, func(i, j int) bool { return clauses[i].q > clauses[j].q })
	for _, c := range clauses {
		if a, ok := c.accept(forms); ok {
			a.Pretty = pretty(r)
			return a, true
		}
	}
	return Accept{}, false
}

func (c clause) accept(forms []string) (Accept, bool) {
	a := Accept{}
	switch c.kind {
	case "*/*", "application/*":
		a.MediaType = codec.JSON
	case codec.JSON, codec.YAML, codec.Protobuf:
		a.MediaType = c.kind
	default:
		return a, false
	}
	a.Stream = c.params["stream"] == "watch"
	as := c.params["as"]
	if as == "" {
		return a, true
	}
	if c.params["g"] != "meta.k8s.io" || (c.params["v"] != "v1" && c.params["v"] != "v1beta1") {
		return a, false
	}
	for _, f := range forms {
		if f == as {
			a.As, a.AsVersion = as, c.params["v"]
			return a, true
		}
	}
	return a, false
}

// pretty follows upstream: asked for by the query, or a person at a terminal or browser by the look of the agent.
func pretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty=") {
		if v := r.URL.Query().Get("pretty"); v != "" {
			return v != "0" && v != "false"
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// ContentType returns the media type of the body: JSON when the request names none.
func ContentType(r *http.Request) string {
	h := r.Header.Get("Content-Type")
	if h == "" {
		return codec.JSON
	}
	kind, _, err := mime.ParseMediaType(h)
	if err != nil {
		return h
	}
	return kind
}
