// Package discovery answers which groups, versions and resources there are, in the plain and in the aggregated form. All
// of it is computed from the api table once; the API server mounts it and adds nothing.
package discovery

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/api/codec"
	"karve/apiserver/request"
	"karve/apiserver/rest"
)

// Handler serves /api, /apis and what lies directly below them.
type Handler struct {
	// Address is host:port of this server as clients reach it.
	Address string

	once   sync.Once
	groups []*group
}

type group struct {
	name     string
	versions []*version
}

type version struct {
	gv   schema.GroupVersion
	rows []*api.Row
}

func (h *Handler) load() []*group {
	h.once.Do(func() {
		byName := map[string]*group{}
		for _, r := range api.Rows() {
			g := byName[r.Group]
			if g == nil {
				g = &group{name: r.Group}
				byName[r.Group] = g
				h.groups = append(h.groups, g)
			}
			gv := schema.GroupVersion{Group: r.Group, Version: r.Version}
			if n := len(g.versions); n == 0 || g.versions[n-1].gv != gv {
				g.versions = append(g.versions, &version{gv: gv})
			}
			v := g.versions[len(g.versions)-1]
			v.rows = append(v.rows, r)
		}
	})
	return h.groups
}

// Serve answers a discovery path and reports whether it was one.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) bool {
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch parts := strings.Split(strings.TrimPrefix(path, "/"), "/"); {
	case path == "/api" || path == "/apis":
		h.root(w, r, path == "/api")
		return true
	case len(parts) == 2 && parts[0] == "api":
		return h.resources(w, r, schema.GroupVersion{Version: parts[1]})
	case len(parts) == 3 && parts[0] == "apis":
		return h.resources(w, r, schema.GroupVersion{Group: parts[1], Version: parts[2]})
	case len(parts) == 2 && parts[0] == "apis":
		for _, g := range h.load() {
			if g.name == parts[1] && g.name != "" {
				one := apiGroup(g)
				one.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
				write(w, r, &one)
				return true
			}
		}
	}
	return false
}

// Group reports whether a path lies below a group that is served.
func (h *Handler) Group(path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) > 1 && parts[0] == "api" {
		return true
	}
	return len(parts) > 2 && parts[0] == "apis" && slices.ContainsFunc(h.load(), func(g *group) bool { return g.name != "" && g.name == parts[1] })
}

func (h *Handler) root(w http.ResponseWriter, r *http.Request, core bool) {
	w.Header().Set("Vary", "Accept")
	if acc, ok := request.Aggregated(r); ok {
		h.aggregated(w, r, core, acc)
		return
	}
	if core {
		write(w, r, &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: h.Address}}})
		return
	}
	list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, g := range h.load() {
		if g.name != "" {
			list.Groups = append(list.Groups, apiGroup(g))
		}
	}
	write(w, r, list)
}

func apiGroup(g *group) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.gv.String(), Version: v.gv.Version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

func (h *Handler) resources(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion) bool {
	for _, g := range h.load() {
		for _, v := range g.versions {
			if v.gv == gv {
				write(w, r, resourceList(v))
				return true
			}
		}
	}
	return false
}

func resourceList(v *version) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: v.gv.String(), APIResources: []metav1.APIResource{}}
	if v.gv.Group == "" {
		list.APIVersion = ""
	}
	for _, row := range v.rows {
		res := metav1.APIResource{Name: row.Resource, SingularName: row.Singular, Namespaced: row.Namespaced, Kind: row.Kind,
			Verbs: row.Verbs, ShortNames: row.Short, Categories: row.Categories}
		if row.Prefix != "" {
			res.StorageVersionHash = storageHash(row.Hub())
		}
		list.APIResources = append(list.APIResources, res)
		for i := range row.Sub {
			s := &row.Sub[i]
			sub := metav1.APIResource{Name: row.Resource + "/" + s.Name, Namespaced: row.Namespaced, Kind: row.Kind, Verbs: s.Verbs}
			if s.Kind != "" {
				sub.Group, sub.Version, sub.Kind = s.Group, s.Version, s.Kind
			}
			list.APIResources = append(list.APIResources, sub)
		}
	}
	sort.SliceStable(list.APIResources, func(i, j int) bool { return list.APIResources[i].Name < list.APIResources[j].Name })
	return list
}

// storageHash is the first eight bytes of the hash of group/version/kind as stored: equal in every conformant server.
func storageHash(row *api.Row) string {
	v := row.Version
	if old, ok := storedAs[row.GR()]; ok {
		v = old
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s/%s/%s", row.Group, v, row.Kind)))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// storedAs lists what upstream stores in another version than the one served; its hashes say so, and clients compare them.
var storedAs = map[schema.GroupResource]string{
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}:               "v1beta1",
	{Group: "admissionregistration.k8s.io", Resource: "mutatingadmissionpolicies"}:       "v1beta1",
	{Group: "admissionregistration.k8s.io", Resource: "mutatingadmissionpolicybindings"}: "v1beta1",
}

// aggregated answers with one document for all groups, unless the client has it.
func (h *Handler) aggregated(w http.ResponseWriter, r *http.Request, core bool, acc request.Accept) {
	list := &apidiscovery.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: []apidiscovery.APIGroupDiscovery{}}
	for _, g := range h.load() {
		if (g.name == "") != core {
			continue
		}
		item := apidiscovery.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			item.Versions = append(item.Versions, apidiscovery.APIVersionDiscovery{Version: v.gv.Version, Freshness: apidiscovery.DiscoveryFreshnessCurrent, Resources: discoveries(v)})
		}
		list.Items = append(list.Items, item)
	}
	b, err := json.Marshal(list)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	sum := sha256.Sum256(b)
	etag := fmt.Sprintf("\"%X\"", sum)
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "public")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if acc.MediaType == codec.Protobuf {
		rest.WriteObject(w, r, acc, http.StatusOK, list)
		return
	}
	rest.WriteJSON(w, r, acc, b)
}

func discoveries(v *version) []apidiscovery.APIResourceDiscovery {
	var out []apidiscovery.APIResourceDiscovery
	for _, row := range v.rows {
		d := apidiscovery.APIResourceDiscovery{Resource: row.Resource, ResponseKind: &metav1.GroupVersionKind{Kind: row.Kind}, Scope: apidiscovery.ScopeCluster,
			SingularResource: row.Singular, Verbs: row.Verbs, ShortNames: row.Short, Categories: row.Categories}
		if row.Namespaced {
			d.Scope = apidiscovery.ScopeNamespace
		}
		for i := range row.Sub {
			s := &row.Sub[i]
			kind := metav1.GroupVersionKind{Kind: row.Kind}
			if s.Kind != "" {
				kind = metav1.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
			}
			d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{Subresource: s.Name, ResponseKind: &kind, Verbs: s.Verbs})
		}
		out = append(out, d)
	}
	return out
}

func write(w http.ResponseWriter, r *http.Request, o runtime.Object) {
	acc, ok := request.Negotiate(r)
	if !ok {
		rest.WriteError(w, r, rest.NotAcceptable(r, false))
		return
	}
	rest.WriteObject(w, r, acc, http.StatusOK, o)
}
