package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/apiserver/authn"
	"karve/client"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Check authorizes a call before it is carried out; list holds the options of a list or watch.
type Check func(ctx context.Context, user *authn.User, verb string, c *Call, list *metav1.ListOptions) error

// Local is the in-process transport: the same door, rules and errors as over HTTP, without encoding anything.
type Local struct {
	Door    *Door
	User    *authn.User
	Manager string
	Check   Check
	// Post answers a create on a subresource.
	Post func(ctx context.Context, c *Call, body runtime.Object) (runtime.Object, error)
}

var _ client.Transport = (*Local)(nil)

func (l *Local) call(r *client.Request) (*Call, error) {
	row := api.ByResource(r.Resource)
	if row == nil {
		return nil, apierrors.NewGenericServerResponse(404, r.Verb, r.Resource.GroupResource(), r.Name, "", 0, true)
	}
	m := r.FieldManager
	if m == "" {
		m = l.Manager
	}
	return &Call{Row: row, Sub: r.Subresource, Namespace: r.Namespace, Name: r.Name, User: l.User, Manager: m, DryRun: r.DryRun}, nil
}

// Do carries out any verb but watch.
func (l *Local) Do(ctx context.Context, r *client.Request) (runtime.Object, error) {
	c, err := l.call(r)
	if err != nil {
		return nil, err
	}
	if l.Check != nil {
		if err := l.Check(ctx, l.User, r.Verb, c, &r.List); err != nil {
			return nil, err
		}
	}
	switch r.Verb {
	case "get":
		rec, err := l.Door.Get(ctx, c, "")
		if err != nil {
			return nil, err
		}
		if o := ObjectOf(rec); o != nil {
			return o, nil
		}
		return nil, c.NotFound()
	case "list":
		page, err := l.Door.List(ctx, c, &r.List)
		if err != nil {
			return nil, err
		}
		return listOf(page), nil
	case "create":
		if r.Subresource != "" || c.Row.Prefix == "" {
			return l.Post(ctx, c, r.Object.DeepCopyObject())
		}
		return result(l.Door.Create(ctx, c, r.Object.DeepCopyObject().(Object)))
	case "update":
		return result(l.Door.Update(ctx, c, r.Object.DeepCopyObject().(Object)))
	case "patch":
		if r.PatchType == types.ApplyPatchType {
			intent, err := Intent(r.Patch)
			if err != nil {
				return nil, err
			}
			return result(l.Door.ServerSideApply(ctx, c, intent, PatchOptions{Force: r.Force}))
		}
		return result(l.Door.Patch(ctx, c, r.PatchType, r.Patch, PatchOptions{}))
	case "delete":
		x, err := l.Door.Delete(ctx, c, &r.Delete)
		if err != nil {
			return nil, err
		}
		return x.Answer(c.Row.Hub()), nil
	case "deletecollection":
		page, err := l.Door.DeleteCollection(ctx, c, &r.Delete, &r.List)
		if err != nil {
			return nil, err
		}
		return listOf(page), nil
	}
	return nil, fmt.Errorf("%s %s: no such verb", r.Verb, r.Resource.Resource)
}

func result(r *Result, err error) (runtime.Object, error) {
	if err != nil {
		return nil, err
	}
	return r.Get(), nil
}

func listOf(p *Page) *client.List {
	l := &client.List{ListMeta: p.ListMeta(), Items: make([]runtime.Object, 0, len(p.Records))}
	for _, r := range p.Records {
		if o := ObjectOf(r); o != nil {
			l.Items = append(l.Items, o)
		}
	}
	return l
}

// Watch opens a watch whose events carry the shared objects themselves.
func (l *Local) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	c, err := l.call(r)
	if err != nil {
		return nil, err
	}
	if l.Check != nil {
		if err := l.Check(ctx, l.User, "watch", c, &r.List); err != nil {
			return nil, err
		}
	}
	w, err := l.Door.Watch(ctx, c, &r.List)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	lw := &localWatch{out: make(chan watch.Event, 16), cancel: cancel}
	go lw.run(ctx, w, c.Row.Hub())
	return lw, nil
}

type localWatch struct {
	out    chan watch.Event
	cancel context.CancelFunc
	once   sync.Once
}

func (w *localWatch) Stop()                          { w.once.Do(w.cancel) }
func (w *localWatch) ResultChan() <-chan watch.Event { return w.out }

func (w *localWatch) run(ctx context.Context, from *Watch, row *api.Row) {
	defer close(w.out)
	defer from.Close()
	for {
		changes, err := from.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.send(ctx, watch.Event{Type: watch.Error, Object: StatusOf(err)})
			}
			return
		}
		for i := range changes {
			ch := &changes[i]
			ev := watch.Event{Type: ch.Type}
			if ch.Type == watch.Bookmark {
				ev.Object = Mark(row, ch)
			} else if o := ch.Object(); o != nil {
				ev.Object = o
			} else {
				continue
			}
			if !w.send(ctx, ev) {
				return
			}
		}
	}
}

func (w *localWatch) send(ctx context.Context, ev watch.Event) bool {
	select {
	case w.out <- ev:
		return true
	case <-ctx.Done():
		return false
	}
}

// Mark returns the object a bookmark carries: empty but for its revision.
func Mark(row *api.Row, c *Change) Object {
	o := row.New().(Object)
	o.GetObjectKind().SetGroupVersionKind(row.GVK())
	o.SetResourceVersion(format(c.Revision))
	if c.InitialEnd {
		o.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return o
}

// StatusOf returns the Status that tells a client about err. An error that says nothing of its own is a 500 without a reason.
func StatusOf(err error) *metav1.Status {
	var own apierrors.APIStatus
	if errors.As(err, &own) {
		st := own.Status()
		st.Kind, st.APIVersion = "Status", "v1"
		return &st
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
}
