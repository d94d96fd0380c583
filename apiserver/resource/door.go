// Package resource is the one door to the store: what get, list, watch, create, update, patch and delete mean for any
// resource, read from its row. Both transports end here (HTTP through apiserver's handlers, in-process through Local), so
// that no rule can be passed by. It owns the objects' life (defaults, strategy, validation, admission, managed fields,
// finalizers, grace); it does not authenticate or authorize, and knows no bytes on a wire.
package resource

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/api/codec"
	"karve/apiserver/admission"
	"karve/apiserver/authn"
	"karve/apiserver/patch"
	"karve/store"
)

// Root is what every key of the store begins with, as upstream lays keys out.
const Root = "/registry/"

// Object is any stored object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Call says on what, for whom and how an operation is to be done. It is not changed by the door.
type Call struct {
	Row             *api.Row
	Sub             string
	Namespace, Name string
	User            *authn.User
	// Manager is the field manager writes are recorded under.
	Manager string
	DryRun  bool
	// Warn passes a warning to the client; it may be nil.
	Warn func(string)
}

// Hook lets a resource claim something outside itself on a write: addresses and ports for Services. It returns a function
// that gives the claim back, called if the write fails (nil for nothing claimed). old is nil on create, obj on delete.
type Hook interface {
	Claim(obj, old Object, dryRun bool) (undo func(), err error)
	Release(obj Object)
}

// Door is the door to one store. Safe for concurrent use once Admission is set.
type Door struct {
	store    *store.Store
	log      *slog.Logger
	now      func() time.Time
	chain    admission.Chain
	hooks    map[schema.GroupResource]Hook
	managers *patch.Managers
	views    heldViews
	rows     func(schema.GroupVersionResource) *api.Row
}

// New returns a door to s without admission.
func New(s *store.Store, log *slog.Logger) *Door {
	return &Door{store: s, log: log, now: time.Now, hooks: map[schema.GroupResource]Hook{}, managers: patch.NewManagers(), rows: api.ByResource}
}

// SetAdmission sets the admission chain; call it before the first write that it is to see.
func (d *Door) SetAdmission(c admission.Chain) { d.chain = c }

// Admission returns the chain, for bodies that are admitted but not stored.
func (d *Door) Admission() admission.Chain { return d.chain }

// SetHook sets the hook of a resource, before the first request.
func (d *Door) SetHook(gr schema.GroupResource, h Hook) { d.hooks[gr] = h }

// Store returns the store behind the door, for health and metrics.
func (d *Door) Store() *store.Store { return d.store }

// Topic returns the event log a key belongs to: its resource's prefix.
func Topic(key string) string {
	rest := strings.TrimPrefix(key, Root)
	for _, p := range prefixes() {
		if strings.HasPrefix(rest, p) {
			return Root + p
		}
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return Root + rest[:i+1]
	}
	return key
}

// prefixes lists the prefixes of more than one segment: the others are a key's first segment.
var prefixes = sync.OnceValue(func() []string {
	var out []string
	for _, r := range api.Rows() {
		if strings.Contains(r.Prefix, "/") {
			out = append(out, r.Prefix+"/")
		}
	}
	return out
})

// Prefix returns the key prefix of a row's objects, in a namespace when one is given.
func Prefix(row *api.Row, namespace string) string {
	p := Root + row.Hub().Prefix + "/"
	if row.Namespaced && namespace != "" {
		p += namespace + "/"
	}
	return p
}

func (c *Call) key() string { return Prefix(c.Row, c.Namespace) + c.Name }

func (c *Call) warn(text string) {
	if c.Warn != nil {
		c.Warn(text)
	}
}

// NotFound is the error of a call whose object is not there.
func (c *Call) NotFound() error { return apierrors.NewNotFound(c.Row.GR(), c.Name) }

// rowOfKey finds the row an object was stored under.
var rowOfPrefix = sync.OnceValue(func() map[string]*api.Row {
	m := map[string]*api.Row{}
	for _, r := range api.Rows() {
		if r.Prefix != "" {
			m[Root+r.Prefix+"/"] = r.Hub()
		}
	}
	return m
})

// Attach is the store's way to make the attachment of a record read back from disk: the decoded object.
func Attach(key string, revision uint64, value []byte) (any, error) {
	row := rowOfPrefix()[Topic(key)]
	if row == nil {
		return nil, nil
	}
	obj, err := codec.DecodeStored(row, value)
	if err != nil {
		return nil, err
	}
	obj.(Object).SetResourceVersion(format(revision))
	return obj, nil
}

// ObjectOf returns the decoded object of a record. It is shared: read only.
func ObjectOf(r *store.Record) Object {
	o, _ := r.Attachment().(Object)
	return o
}

// JSONBody returns the object as JSON without kind and version, which readers share; nil for a record that cannot be read.
func JSONBody(r *store.Record) ([]byte, error) {
	return r.Form(func() ([]byte, error) {
		o := ObjectOf(r)
		if o == nil {
			return nil, nil
		}
		return codec.JSONBody(o)
	})
}
