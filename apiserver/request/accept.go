package request

import (
	"mime"
	"net/http"
	"slices"
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
	Pretty        bool
	// Suffix is what the Content-Type of the answer says besides the media type.
	Suffix string
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

// maxClauses is how many clauses of a header are looked at: nobody means more, and sorting them must not cost much.
const maxClauses = 64

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
	for _, c := range parse(header) {
		if a, ok := c.accept(forms); ok {
			a.Pretty = a.Pretty || pretty(r)
			return a, true
		}
	}
	return Accept{}, false
}

// parse returns the clauses of a header in the order they are tried: each passes those before it that are wanted less, or name less
// exactly what they mean. Those two are no order together, so that what comes first in the header matters, as it does upstream.
func parse(header string) []clause {
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
		if len(clauses) == maxClauses {
			break
		}
		c := clause{kind, params, q}
		at := len(clauses)
		for at > 0 && (q > clauses[at-1].q || c.specific() > clauses[at-1].specific()) {
			at--
		}
		clauses = slices.Insert(clauses, at, c)
	}
	return clauses
}

// Aggregated returns the form in which a client wants discovery as one document for all groups; ok is false if it does not
// ask for that.
func Aggregated(r *http.Request) (a Accept, ok bool) {
	if !strings.Contains(acceptHeader(r), "apidiscovery.k8s.io") {
		return Accept{}, false
	}
	a, ok = Kind(r, "apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2")
	a.Suffix = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	return a, ok
}

// Kind returns the form in which a client wants an answer that is offered as one kind of a group only, in versions; ok is
// false if it does not ask for that. A plain text answer is never that kind.
func Kind(r *http.Request, group, kind string, versions ...string) (a Accept, ok bool) {
	for _, c := range parse(acceptHeader(r)) {
		version := c.params["v"]
		if c.params["g"] != group || c.params["as"] != kind || !slices.Contains(versions, version) {
			continue
		}
		delete(c.params, "g")
		delete(c.params, "v")
		delete(c.params, "as")
		if a, ok := c.accept(nil); ok {
			a.As, a.AsVersion = kind, version
			a.Pretty = a.Pretty || pretty(r)
			return a, true
		}
	}
	return Accept{}, false
}

// Text reports whether a client takes plain text.
func Text(r *http.Request) bool {
	header := acceptHeader(r)
	if strings.TrimSpace(header) == "" {
		return true
	}
	return slices.ContainsFunc(parse(header), func(c clause) bool {
		return (c.kind == "text/plain" || c.kind == "text/*" || c.kind == "*/*") && c.params["as"] == "" && c.params["g"] == "" && c.params["v"] == ""
	})
}

// specific says how closely a clause names what it wants: a type, all of a kind, anything.
func (c clause) specific() int {
	switch {
	case strings.HasPrefix(c.kind, "*"):
		return 0
	case strings.HasSuffix(c.kind, "/*"):
		return 1
	}
	return 2
}

func (c clause) accept(forms []string) (Accept, bool) {
	a := Accept{Pretty: c.params["pretty"] == "1"}
	switch c.kind {
	case "*/*", "application/*":
		a.MediaType = codec.JSON
	case codec.JSON, codec.YAML, codec.Protobuf:
		a.MediaType = c.kind
	default:
		return a, false
	}
	if s := c.params["stream"]; s != "" && (s != "watch" || a.MediaType == codec.YAML) {
		return a, false
	}
	if v := c.params["sv"]; v != "" && v != "v1" {
		return a, false
	}
	as, group, version := c.params["as"], c.params["g"], c.params["v"]
	if as == "" {
		return a, group == "" && version == ""
	}
	if group != "meta.k8s.io" || version != "v1" && version != "v1beta1" || as == "Table" && a.MediaType == codec.Protobuf {
		return a, false
	}
	if !slices.Contains(forms, as) {
		return a, false
	}
	a.As, a.AsVersion = as, version
	return a, true
}

// pretty follows upstream: asked for by the query, or a person at a terminal or browser by the look of the agent.
func pretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty=") {
		if v := r.URL.Query().Get("pretty"); v != "" {
			yes, _ := strconv.ParseBool(v)
			return yes
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
