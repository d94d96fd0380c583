package resource

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/api/codec"
	"karve/api/defaults"
	"karve/api/strategy"
	"karve/apiserver/admission"
	"karve/store"
)

// Result is what a write ended with: a record, or an object when nothing was stored (dry run).
type Result struct {
	Record  *store.Record
	Object  Object
	Created bool
}

func stored(r *store.Record) *Result { return &Result{Record: r} }

// Get returns the object. It is shared when it was stored: read only.
func (r *Result) Get() Object {
	if r.Object == nil {
		return ObjectOf(r.Record)
	}
	return r.Object
}

// Create stores a new object. obj belongs to the door from now on: it is changed and kept.
func (d *Door) Create(ctx context.Context, c *Call, obj Object) (*Result, error) {
	c.dedupOwners(obj)
	return d.insert(ctx, c, obj, true)
}

// insert is Create; track says that the manager's fields are yet to be recorded, which an apply has done itself.
func (d *Door) insert(ctx context.Context, c *Call, obj Object, track bool) (*Result, error) {
	if err := c.place(obj); err != nil {
		return nil, err
	}
	row := c.Row.Hub()
	d.setDefaults(row, obj)
	st := strategy.For(row.GVK())
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		for attempt := 0; ; attempt++ {
			named := obj.DeepCopyObject().(Object)
			named.SetName(generate(obj.GetGenerateName()))
			r, err := d.create(ctx, c, row, &st, named, track)
			if !apierrors.IsAlreadyExists(err) || attempt == 7 {
				return r, err
			}
		}
	}
	return d.create(ctx, c, row, &st, obj, track)
}

func (d *Door) create(ctx context.Context, c *Call, row *api.Row, st *strategy.Strategy, obj Object, track bool) (*Result, error) {
	call := *c
	call.Name = obj.GetName()
	now := metav1.NewTime(d.now()).Rfc3339Copy()
	obj.SetCreationTimestamp(now)
	obj.SetUID(types.UID(uuid.NewString()))
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	if obj.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if track {
		obj = d.track(c, nil, obj)
	}
	a := d.attributes(&call, admission.Create, obj, nil)
	if err := d.chain.Admit(ctx, a); err != nil {
		return nil, err
	}
	obj = a.Object.(Object)
	if st.PrepareCreate != nil {
		st.PrepareCreate(obj)
	}
	undo, err := d.claim(row, obj, nil, c.DryRun)
	if err != nil {
		return nil, err
	}
	if rules := c.rules(); rules.Create != nil {
		if errs := rules.Create(c.judged(obj)); len(errs) > 0 {
			undo()
			return nil, apierrors.NewInvalid(row.GVK().GroupKind(), invalidName(obj), errs)
		}
	}
	if err := d.chain.Validate(ctx, a); err != nil {
		undo()
		return nil, err
	}
	c.warnOf(obj, nil)
	key := Prefix(row, c.Namespace) + obj.GetName()
	if c.DryRun {
		undo()
		if err := d.catchUp(ctx); err != nil {
			return nil, err
		}
		if d.store.Get(key) != nil {
			return nil, apierrors.NewAlreadyExists(c.Row.GR(), obj.GetName())
		}
		if obj, err = asStored(row, obj); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		return &Result{Object: obj, Created: true}, nil
	}
	rec, err := d.commit(ctx, row, key, 0, obj)
	if err != nil {
		undo()
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			return nil, d.alreadyExists(c, obj, conflict)
		}
		return nil, d.failed(c, "create", obj.GetName(), err)
	}
	r := stored(rec)
	r.Created = true
	return r, nil
}

func (d *Door) alreadyExists(c *Call, obj Object, conflict *store.ConflictError) error {
	if conflict.Current != nil {
		if o := ObjectOf(conflict.Current); o != nil && o.GetDeletionTimestamp() != nil {
			e := apierrors.NewAlreadyExists(c.Row.GR(), obj.GetName())
			e.ErrStatus.Message = "object is being deleted: " + e.ErrStatus.Message
			return e
		}
	}
	return apierrors.NewAlreadyExists(c.Row.GR(), obj.GetName())
}

// invalidName is how a refused object is called in its error.
func invalidName(obj Object) string { return obj.GetName() }

// place puts the object into the namespace of the request, or refuses one that says otherwise.
func (c *Call) place(obj Object) error {
	if !c.Row.Namespaced {
		obj.SetNamespace("")
		return nil
	}
	switch obj.GetNamespace() {
	case c.Namespace:
	case "":
		obj.SetNamespace(c.Namespace)
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

func (d *Door) setDefaults(row *api.Row, obj Object) {
	obj.GetObjectKind().SetGroupVersionKind(row.GVK())
	if f := defaults.For(row.GVK()); f != nil {
		f(obj)
	}
}

func (d *Door) attributes(c *Call, op admission.Operation, obj, old Object) *admission.Attributes {
	a := &admission.Attributes{Operation: op, Row: c.Row.Hub(), Subresource: c.Sub, Namespace: c.Namespace, Name: c.Name, User: c.User, DryRun: c.DryRun, Warn: c.warn}
	if obj != nil {
		a.Object = obj
	}
	if old != nil {
		a.Old = old
	}
	return a
}

func (d *Door) claim(row *api.Row, obj, old Object, dryRun bool) (func(), error) {
	nothing := func() {}
	h := d.hooks[row.GR()]
	if h == nil {
		return nothing, nil
	}
	undo, err := h.Claim(obj, old, dryRun)
	if err != nil {
		return nil, err
	}
	if undo == nil {
		return nothing, nil
	}
	return undo, nil
}

// commit encodes obj and makes it durable in place of the revision expected. What readers get is decoded from the stored
// bytes, not obj itself: parts of a second, and lists without entries, do not survive being stored, and nobody may see an
// object that changes at the next restart.
func (d *Door) commit(ctx context.Context, row *api.Row, key string, expect uint64, obj Object) (*store.Record, error) {
	value, err := encode(row, obj)
	if err != nil {
		return nil, err
	}
	return d.store.Commit(ctx, store.Write{Key: key, Expect: expect, Value: value})
}

// encode returns the stored form: no resourceVersion, which is the revision itself.
func encode(row *api.Row, obj Object) ([]byte, error) {
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
	return codec.Encode(row.GVK(), obj)
}

// asStored returns what would be read back of obj had it been stored, without a resourceVersion.
func asStored(row *api.Row, obj Object) (Object, error) {
	value, err := encode(row, obj)
	if err != nil {
		return nil, err
	}
	o, err := codec.DecodeStored(row, value)
	if err != nil {
		return nil, err
	}
	return o.(Object), nil
}

// failed turns an error of the store into the answer a client gets.
func (d *Door) failed(c *Call, verb, name string, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	d.log.Error("store refused a write", "verb", verb, "resource", c.Row.Resource, "namespace", c.Namespace, "name", name, "err", err)
	return apierrors.NewInternalError(fmt.Errorf("%s %s %q: %w", verb, c.Row.Resource, name, err))
}

const suffixLetters = "bcdfghjklmnpqrstvwxz2456789"

// generate appends five random characters to a base, cut so that the name stays within 63.
func generate(base string) string {
	if len(base) > 58 {
		base = base[:58]
	}
	b := make([]byte, 5)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(suffixLetters))))
		if err != nil {
			panic("resource: no randomness: " + err.Error())
		}
		b[i] = suffixLetters[n.Int64()]
	}
	return base + string(b)
}
