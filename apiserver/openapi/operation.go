package openapi

import (
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	names "karve/api/schema"
)

// operation is one method of one path, free of the differences between the versions of OpenAPI.
type operation struct {
	method, id, text, action, tag string
	kind                          schema.GroupVersionKind
	params                        []param
	// body names the definition of what is sent; empty means nothing is.
	body              string
	bodyRequired      bool
	consumes, produce []string
	answers           []answer
	// result names the definition of what is answered; empty means text. noKind leaves out the kind and action.
	result string
	noKind bool
}

type answer struct {
	code, text string
}

// param is a parameter in the path or the query.
type param struct {
	name, in, kind, text string
	required             bool
}

// endpoint is a path with its operations; common are the parameters that every one of them has.
type endpoint struct {
	path   string
	ops    []operation
	common []param
}

var (
	ok       = []answer{{"200", "OK"}}
	written  = append(ok[:1:1], answer{"201", "Created"})
	created  = append(written[:2:2], answer{"202", "Accepted"})
	deleting = append(ok[:1:1], answer{"202", "Accepted"})

	anything    = []string{"*/*"}
	encodings   = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	customKinds = encodings[:2:2]
	patchTypes  = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
	// customPatches has no strategic merge patch: it needs a Go type.
	customPatches = []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"}
)

const (
	meta           = "io.k8s.apimachinery.pkg.apis.meta.v1."
	deprecatedWith = ". deprecated: use the 'watch' parameter with a list operation instead"
	namespaceText  = "object name and auth scope, such as for teams and projects"
	prettyText     = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."
)

var (
	namespaceParam = param{name: "namespace", in: "path", kind: "string", text: namespaceText, required: true}
	prettyParam    = param{name: "pretty", in: "query", kind: "string", text: prettyText}
)

// paths computes the endpoints of one resource.
type paths struct {
	served
	options func(definition string) []param
	base    string
	group   string // the group and version as they appear inside an operation's id
	tag     string
	out     []endpoint
}

// resource returns the endpoints of one row, subresources and deprecated watch paths included.
func resource(s served, options func(string) []param) []endpoint {
	p := &paths{served: s, options: options, base: basePath(s.Row.Group, s.Row.Version), group: camel(s.Row.Group) + camel(s.Row.Version)}
	p.tag = tag(s.Row.Group) + "_" + s.Row.Version
	scope, prefix := "", "/"
	var place []param
	if p.Row.Namespaced {
		scope, prefix, place = "Namespaced", "/namespaces/{namespace}/", []param{namespaceParam}
	}
	collection := prefix + p.Row.Resource
	item := collection + "/{name}"
	one := append(place[:len(place):len(place)], param{name: "name", in: "path", kind: "string", text: "name of the " + p.Row.Kind, required: true})
	kind := scope + p.Row.Kind
	p.add(collection, place, p.collection(kind))
	p.add(item, one, p.item(kind))
	if p.Row.Namespaced && p.Row.Has("list") {
		p.add("/"+p.Row.Resource, nil, []operation{p.list(p.Row.Kind + "ForAllNamespaces")})
	}
	if p.Row.Has("watch") {
		p.add("/watch"+collection, place, []operation{p.watch(kind+"List", "watchlist")})
		p.add("/watch"+item, one, []operation{p.watch(kind, "watch")})
		if p.Row.Namespaced {
			p.add("/watch/"+p.Row.Resource, nil, []operation{p.watch(p.Row.Kind+"ListForAllNamespaces", "watchlist")})
		}
	}
	for i := range p.Row.Sub {
		p.subresource(&p.Row.Sub[i], item, kind, place)
	}
	return p.out
}

// add appends an endpoint; place are the parameters its path has.
func (p *paths) add(path string, place []param, ops []operation) {
	if len(ops) == 0 {
		return
	}
	for i := range ops {
		ops[i].tag = p.tag
		if ops[i].kind.Kind == "" {
			ops[i].kind = p.Row.GVK()
		}
		ops[i].params = append(ops[i].params, place...)
		sortParams(ops[i].params)
	}
	e := endpoint{path: p.base + path, ops: ops}
	e.hoist()
	p.out = append(p.out, e)
}

func (p *paths) encodings() []string {
	if p.custom {
		return customKinds
	}
	return encodings
}

func (p *paths) patches() []string {
	if p.custom {
		return customPatches
	}
	return patchTypes
}

func (p *paths) op(method, verb, id, action, text string, answers []answer) operation {
	return operation{method: method, id: verb + p.group + id, action: action, text: text, answers: answers, consumes: anything, produce: p.encodings(),
		result: p.Name, params: []param{prettyParam}}
}

func (p *paths) list(id string) operation {
	text := "list or watch objects of kind "
	if !p.Row.Has("watch") {
		text = "list objects of kind "
	}
	o := p.op("get", "list", id, "list", text+p.Row.Kind, ok)
	o.result = p.ListName
	o.produce = streams(o.produce)
	o.params = append(o.params, p.options(meta+"ListOptions")...)
	return o
}

func (p *paths) watch(id, action string) operation {
	text := "watch changes to an object of kind " + p.Row.Kind + deprecatedWith + ", filtered to a single item with the 'fieldSelector' parameter."
	if action == "watchlist" {
		text = "watch individual changes to a list of " + p.Row.Kind + deprecatedWith + "."
	}
	o := p.op("get", "watch", id, action, text, ok)
	o.result = meta + "WatchEvent"
	o.produce = streams(o.produce)
	o.params = append(o.params, p.options(meta+"ListOptions")...)
	return o
}

// streams adds the framed forms of the encodings that have one.
func streams(list []string) []string {
	out := append([]string(nil), list...)
	for _, e := range list {
		if e != "application/yaml" {
			out = append(out, e+";stream=watch")
		}
	}
	return out
}

func (p *paths) collection(kind string) []operation {
	var ops []operation
	if p.Row.Has("list") {
		ops = append(ops, p.list(kind))
	}
	if p.Row.Has("create") {
		ops = append(ops, p.write("post", "create", kind, "post", "create "+article(p.Row.Kind), "CreateOptions", created))
	}
	if p.Row.Has("deletecollection") {
		o := p.op("delete", "delete", "Collection"+kind, "deletecollection", "delete collection of "+p.Row.Kind, ok)
		o.result, o.body = meta+"Status", meta+"DeleteOptions"
		o.params = append(o.params, p.options(meta+"DeleteOptions")...)
		for _, q := range p.options(meta + "ListOptions") {
			if q.name != "watch" && q.name != "allowWatchBookmarks" {
				o.params = append(o.params, q)
			}
		}
		ops = append(ops, o)
	}
	return ops
}

func (p *paths) item(kind string) []operation {
	var ops []operation
	if p.Row.Has("get") {
		ops = append(ops, p.op("get", "read", kind, "get", "read the specified "+p.Row.Kind, ok))
	}
	if p.Row.Has("update") {
		ops = append(ops, p.write("put", "replace", kind, "put", "replace the specified "+p.Row.Kind, "UpdateOptions", written))
	}
	if p.Row.Has("patch") {
		ops = append(ops, p.patch(kind, "partially update the specified "+p.Row.Kind))
	}
	if p.Row.Has("delete") {
		o := p.op("delete", "delete", kind, "delete", "delete "+article(p.Row.Kind), deleting)
		o.body = meta + "DeleteOptions"
		if !p.Row.ReturnsDeleted {
			o.result = meta + "Status"
		}
		o.params = append(o.params, p.options(meta+"DeleteOptions")...)
		ops = append(ops, o)
	}
	return ops
}

func (p *paths) write(method, verb, id, action, text, options string, answers []answer) operation {
	o := p.op(method, verb, id, action, text, answers)
	o.body, o.bodyRequired = p.Name, true
	o.params = append(o.params, p.options(meta+options)...)
	return o
}

func (p *paths) patch(id, text string) operation {
	o := p.write("patch", "patch", id, "patch", text, "PatchOptions", written)
	o.body, o.consumes = meta+"Patch", p.patches()
	return o
}

// subresource adds the endpoints of one subresource. What has options for a kind is a connection, not an object.
func (p *paths) subresource(s *api.Sub, item, kind string, place []param) {
	gvk := p.Row.GVK()
	definition := p.Name
	if s.Kind != "" {
		gvk = schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
		if gvk.Version == "" {
			gvk.Version = p.Row.Version
		}
		definition = names.Name(gvk)
	}
	one := append(place[:len(place):len(place)], param{name: "name", in: "path", kind: "string", text: "name of the " + gvk.Kind, required: true})
	path, id := item+"/"+s.Name, kind+camel(s.Name)
	if strings.HasSuffix(gvk.Kind, "Options") {
		p.connect(s, gvk, definition, path, id, one)
		return
	}
	var ops []operation
	if s.Has("get") {
		ops = append(ops, p.op("get", "read", id, "get", "read "+s.Name+" of the specified "+p.Row.Kind, ok))
	}
	if s.Has("create") {
		ops = append(ops, p.write("post", "create", id, "post", "create "+s.Name+" of "+article(p.Row.Kind), "CreateOptions", created))
	}
	if s.Has("update") {
		ops = append(ops, p.write("put", "replace", id, "put", "replace "+s.Name+" of the specified "+p.Row.Kind, "UpdateOptions", written))
	}
	if s.Has("patch") {
		ops = append(ops, p.patch(id, "partially update "+s.Name+" of the specified "+p.Row.Kind))
	}
	for i := range ops {
		o := &ops[i]
		o.kind, o.result = gvk, definition
		if o.method != "patch" && o.body != "" {
			o.body = definition
		}
		if s.Name == "log" {
			// The only object's subresource that is text.
			o.result, o.produce = "", append([]string{"text/plain"}, encodings...)
			o.params = append(o.params, p.options("io.k8s.api.core.v1.PodLogOptions")...)
		}
	}
	p.add(path, one, ops)
}

// connect adds a connection's endpoints: its methods, and for proxies every method, with and without a path behind.
func (p *paths) connect(s *api.Sub, gvk schema.GroupVersionKind, definition, path, id string, one []param) {
	methods := []string{"get", "post"}
	proxy := s.Name == "proxy"
	if proxy {
		methods = []string{"delete", "get", "head", "options", "patch", "post", "put"}
	}
	ops := func(suffix string) []operation {
		var out []operation
		for _, m := range methods {
			out = append(out, operation{method: m, id: "connect" + p.group + strings.ToUpper(m[:1]) + m[1:] + id + suffix, action: "connect", kind: gvk,
				text: "connect " + strings.ToUpper(m) + " requests to " + s.Name + " of " + p.Row.Kind, consumes: anything, produce: anything, answers: ok,
				params: slices.Clone(p.options(definition))})
		}
		return out
	}
	p.add(path, one, ops(""))
	if proxy {
		p.add(path+"/{path}", append(one[:len(one):len(one)], param{name: "path", in: "path", kind: "string", text: "path to the resource", required: true}), ops("WithPath"))
	}
}

// hoist moves the parameters that all operations share to the endpoint.
func (e *endpoint) hoist() {
	count := map[param]int{}
	for _, o := range e.ops {
		for _, q := range o.params {
			count[q]++
		}
	}
	for i := range e.ops {
		var own []param
		for _, q := range e.ops[i].params {
			if count[q] < len(e.ops) {
				own = append(own, q)
			} else if i == 0 {
				e.common = append(e.common, q)
			}
		}
		e.ops[i].params = own
	}
}

// sortParams orders parameters by name, then place.
func sortParams(list []param) {
	sort.SliceStable(list, func(i, j int) bool {
		if list[i].name != list[j].name {
			return list[i].name < list[j].name
		}
		return list[i].in < list[j].in
	})
}

// article puts an article before a noun that is not a plural.
func article(noun string) string {
	if strings.HasSuffix(noun, "s") && !strings.HasSuffix(noun, "ss") {
		return noun
	}
	if noun != "" && strings.ContainsRune("AEIOUaeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

func basePath(group, version string) string {
	if group == "" {
		return "/api/" + version
	}
	return "/apis/" + group + "/" + version
}

// camel joins the parts of a group or another name for an operation's id: "rbac.authorization.k8s.io" → "RbacAuthorization".
func camel(name string) string {
	if name == "" {
		return "Core"
	}
	var b strings.Builder
	for _, part := range strings.FieldsFunc(strings.TrimSuffix(name, ".k8s.io"), func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// tag is camel with a small first letter.
func tag(group string) string {
	c := camel(group)
	return strings.ToLower(c[:1]) + c[1:]
}
