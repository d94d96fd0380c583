package metrics

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/apiserver/request"
)

// connects are the subresources that are connections.
var connects = map[string]bool{"log": true, "exec": true, "attach": true, "portforward": true, "proxy": true}

// fixedPaths are the paths besides resources that requests are counted for, each under itself as subresource.
var fixedPaths = map[string]bool{"/healthz": true, "/livez": true, "/readyz": true, "/openapi/v3": true, "/openapi/v3/": true}

// keyOf says what a request counts as. There is none for a path that leads nowhere: clients must not be able to make up
// series. row is nil for a path that is no resource's.
func keyOf(r *http.Request, i *request.Info) (key, *api.Row, bool) {
	if !i.IsResource {
		k := key{verb: methodVerb(r.Method)}
		switch path := i.Path; {
		case fixedPaths[path]:
			k.subresource = path
		case strings.HasPrefix(path, "/openapi/v3/"):
			k.subresource = "/openapi/v3/"
		case path == "/api", path == "/apis":
		default:
			return key{}, nil, false
		}
		return k, nil, true
	}
	row := api.ByResource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
	if row == nil || i.Subresource != "" && row.Subresource(i.Subresource) == nil {
		return key{}, nil, false
	}
	k := key{group: row.Group, version: row.Version, resource: row.Resource, subresource: i.Subresource, scope: scopeOf(i)}
	k.verb = verbOf(r, i, k.scope)
	switch k.verb { // what reads is never tried only
	case "POST", "PUT", "PATCH", "APPLY", "DELETE":
		k.dryRun = dryRunOf(r)
	}
	return k, row, true
}

func scopeOf(i *request.Info) string {
	switch {
	case i.Name != "" || i.Verb == "create":
		return "resource"
	case i.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

func verbOf(r *http.Request, i *request.Info, scope string) string {
	switch {
	case connects[i.Subresource]:
		return "CONNECT"
	case i.Verb == "watch":
		return "WATCH"
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && scope != "resource":
		return "LIST"
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == string(types.ApplyYAMLPatchType):
		return "APPLY"
	}
	return methodVerb(r.Method)
}

func methodVerb(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "GET"
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func dryRunOf(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, "dryRun") {
		return ""
	}
	values := r.URL.Query()["dryRun"]
	for _, v := range values {
		if v != "All" {
			return "invalid"
		}
	}
	if len(values) > 0 {
		return "All"
	}
	return ""
}
