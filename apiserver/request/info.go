// Package request reads what a request asks for: the verb, resource and object out of method and path, and the media type
// it wants the answer in. It is pure; the API server calls it first for every request.
package request

import (
	"net/http"
	"net/url"
	"strings"
)

// Info is what the method, path and query of a request say.
type Info struct {
	// Verb is a resource verb (get, list, watch, create, update, patch, delete, deletecollection, or proxy-like verbs under
	// their HTTP meaning), or the lower-case method for other paths.
	Verb string
	// Resource says whether the path names a resource below /api or /apis.
	IsResource            bool
	Path                  string
	Group, Version        string
	Namespace             string
	Resource, Subresource string
	Name                  string
	// Rest is what follows the subresource: the path a proxy passes on, without a leading slash.
	Rest string
	// HasRest distinguishes ".../proxy" from ".../proxy/".
	HasRest bool
}

// namespaceSubresources are served below /namespaces/NAME itself; anything else there is a resource in the namespace.
var namespaceSubresources = map[string]bool{"status": true, "finalize": true}

// Parse reads a request. It never fails: a path that is no resource's has IsResource false.
func Parse(r *http.Request) *Info {
	i := &Info{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		i.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		i.Group, i.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return i
	}
	i.IsResource = true
	if parts[0] == "watch" { // the old form of watching
		i.Verb = "watch"
		if parts = parts[1:]; len(parts) == 0 {
			i.IsResource = false
			return i
		}
	}
	if parts[0] == "namespaces" {
		if len(parts) > 1 {
			i.Namespace = parts[1]
		}
		if len(parts) > 2 && !namespaceSubresources[parts[2]] {
			parts = parts[2:]
		}
	}
	i.Resource = parts[0]
	if len(parts) > 1 {
		i.Name = parts[1]
	}
	if len(parts) > 2 {
		i.Subresource = parts[2]
	}
	if len(parts) > 3 {
		i.Rest, i.HasRest = strings.Join(parts[3:], "/"), true
	}
	if strings.HasSuffix(r.URL.Path, "/") && len(parts) >= 3 {
		i.HasRest = true
		if i.Rest != "" {
			i.Rest += "/"
		}
	}
	if i.Verb != "watch" {
		i.Verb = verb(r, i.Name != "")
	}
	return i
}

// Flag reads a yes or no out of a query as upstream does: anything but a clear no is a yes.
func Flag(q url.Values, name string) bool {
	v := strings.ToLower(q.Get(name))
	return q.Has(name) && v != "false" && v != "0"
}

func verb(r *http.Request, named bool) string {
	switch r.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if named {
			return "delete"
		}
		return "deletecollection"
	case http.MethodGet, http.MethodHead:
		if named {
			return "get"
		}
		if strings.Contains(r.URL.RawQuery, "watch") && Flag(r.URL.Query(), "watch") {
			return "watch"
		}
		return "list"
	}
	return strings.ToLower(r.Method)
}
