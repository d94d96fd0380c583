package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
	"karve/api/convert"
	"karve/api/strategy"
	"karve/apiserver/admission"
	"karve/apiserver/patch"
	"karve/store"
)

// optimistic is how often a patch is tried again when others write in between.
const optimistic = 5

const modified = "the object has been modified; please apply your changes to the latest version and try again"

// change makes the wanted object out of the current one, which it must not touch. A fresh object is returned each time.
type change func(current Object) (Object, error)

// Update replaces an object by obj (through c.Sub when set). An obj without resourceVersion replaces whatever is there.
func (d *Door) Update(ctx context.Context, c *Call, obj Object) (*Result, error) {
	if err := c.place(obj); err != nil {
		return nil, err
	}
	if err := c.named(obj); err != nil {
		return nil, err
	}
	c.dedupOwners(obj)
	row := c.Row.Hub()
	d.setDefaults(row, obj)
	st := strategy.For(row.GVK())
	if c.Sub == "" && st.AllowCreateOnUpdate && d.store.Get(c.key()) == nil && !d.outdated(ctx, c.key(), nil) {
		if !unconditional(obj) || obj.GetUID() != "" {
			return nil, c.otherUID(obj.GetUID(), "")
		}
		return d.insert(ctx, c, obj, true)
	}
	unconditional := unconditional(obj)
	tries := 1
	if unconditional {
		tries = optimistic
	}
	return d.write(ctx, c, tries, func(current Object) (Object, error) {
		if obj.GetUID() != "" && obj.GetUID() != current.GetUID() {
			return nil, c.otherUID(obj.GetUID(), current.GetUID())
		}
		want := obj.DeepCopyObject().(Object)
		if unconditional && c.Sub == "" && !st.AllowUnconditionalUpdate {
			return nil, apierrors.NewInvalid(schema.GroupKind{Group: c.Row.Group, Kind: c.Row.Resource}, c.Name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), uint64(0), "must be specified for an update")})
		}
		if unconditional {
			want.SetResourceVersion(current.GetResourceVersion())
		}
		return d.track(c, current, want), nil
	})
}

// unconditional says that obj replaces whatever is there: it names no revision.
func unconditional(obj Object) bool {
	rv := obj.GetResourceVersion()
	return rv == "" || rv == "0"
}

// named refuses an object under another name than the request's, or under none.
func (c *Call) named(obj Object) error {
	switch obj.GetName() {
	case c.Name:
		return nil
	case "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", c.Name))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Name))
}

// otherUID is the conflict of a client that means another object of the same name, in the words of upstream's store.
func (c *Call) otherUID(meant, have types.UID) error {
	return apierrors.NewConflict(c.Row.GR(), c.Name, fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %s, UID in object meta: %s", c.key(), meant, have))
}

// PatchOptions are the options of a patch beyond the call's own.
type PatchOptions struct {
	Force bool
	// Strict decides what unknown or duplicate fields in a patch mean: an error, a warning, nothing.
	Strict func([]error) error
}

// Patch changes an object by a JSON, merge or strategic merge patch.
func (d *Door) Patch(ctx context.Context, c *Call, kind types.PatchType, body []byte, opts PatchOptions) (*Result, error) {
	row := c.Row.Hub()
	return d.write(ctx, c, optimistic, func(current Object) (Object, error) {
		out, strict, err := patch.Apply(c.view(current), kind, body)
		if err != nil {
			return nil, err
		}
		if len(strict) > 0 && opts.Strict != nil {
			if err := opts.Strict(strict); err != nil {
				return nil, err
			}
		}
		want := convert.To(out, row.GVK()).(Object)
		if want.GetNamespace() != current.GetNamespace() {
			return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		if err := c.named(want); err != nil {
			return nil, err
		}
		d.setDefaults(row, want)
		c.dedupOwners(want)
		return d.track(c, current, want), nil
	})
}

// ServerSideApply merges a manager's intent (untyped, as sent) into an object, creating it when it is not there.
func (d *Door) ServerSideApply(ctx context.Context, c *Call, intent Object, opts PatchOptions) (*Result, error) {
	row := c.Row.Hub()
	reset := strategy.For(row.GVK()).ResetFields[c.Sub]
	apply := func(live Object) (Object, error) {
		out, err := d.managers.Apply(c.Row, c.Sub, reset, c.view(live), intent.DeepCopyObject(), c.Manager, opts.Force)
		if err != nil {
			return nil, err
		}
		return convert.To(out, row.GVK()).(Object), nil
	}
	for attempt := 0; ; attempt++ {
		if d.store.Get(c.key()) != nil {
			r, err := d.write(ctx, c, optimistic, func(current Object) (Object, error) {
				out, err := apply(current)
				if err != nil {
					return nil, err
				}
				d.setDefaults(row, out)
				return out, c.named(out)
			})
			if !apierrors.IsNotFound(err) || c.Sub != "" || attempt == optimistic {
				return r, err
			}
		}
		if c.Sub != "" {
			return nil, c.NotFound()
		}
		if intent.GetUID() != "" {
			return nil, apierrors.NewConflict(c.Row.GR(), c.Name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", intent.GetUID()))
		}
		empty := row.New().(Object)
		empty.GetObjectKind().SetGroupVersionKind(row.GVK())
		obj, err := apply(empty)
		if err != nil {
			return nil, err
		}
		if err := c.named(obj); err != nil {
			return nil, err
		}
		obj.SetResourceVersion("")
		r, err := d.insert(ctx, c, obj, false)
		if !apierrors.IsAlreadyExists(err) || attempt == optimistic {
			return r, err
		}
	}
}

// write is the read-change-write loop of every update.
func (d *Door) write(ctx context.Context, c *Call, tries int, make change) (*Result, error) {
	checked := false
	for attempt := 1; ; attempt++ {
		rec := d.store.Get(c.key())
		r, err := d.writeOnce(ctx, c, rec, make)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			if attempt >= tries {
				return nil, apierrors.NewConflict(c.Row.GR(), c.Name, errors.New(modified))
			}
			continue
		}
		if checked || !rests(err, err == nil && r.Record != rec && !c.DryRun) || !d.outdated(ctx, c.key(), rec) {
			return r, err
		}
		checked = true
		attempt--
	}
}

// writeOnce is one attempt of write on top of rec.
func (d *Door) writeOnce(ctx context.Context, c *Call, rec *store.Record, make change) (*Result, error) {
	row := c.Row.Hub()
	st := strategy.For(row.GVK())
	if rec == nil {
		return nil, c.NotFound()
	}
	current := ObjectOf(rec)
	if current == nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("update %s %q: the stored object cannot be read", c.Row.Resource, c.Name))
	}
	want, err := make(current)
	if err != nil {
		return nil, err
	}
	if err := c.sameObject(want, current); err != nil {
		return nil, err
	}
	return d.replace(ctx, c, row, &st, rec, current, want)
}

// sameObject checks that the client means the object at this revision.
func (c *Call) sameObject(want, current Object) error {
	if rv := want.GetResourceVersion(); rv != "" && rv != "0" && rv != current.GetResourceVersion() {
		return apierrors.NewConflict(c.Row.GR(), c.Name, errors.New(modified))
	}
	return nil
}

// replace takes a wanted object through strategy, admission and validation into the store.
func (d *Door) replace(ctx context.Context, c *Call, row *api.Row, st *strategy.Strategy, rec *store.Record, current, want Object) (*Result, error) {
	keepMeta(want, current)
	a := d.attributes(c, admission.Update, want, current)
	if err := d.chain.Admit(ctx, a); err != nil {
		return nil, err
	}
	want = a.Object.(Object)
	rules := c.rules()
	prepare, check := st.PrepareUpdate, rules.Update
	if c.Sub != "" {
		prepare, check = st.Sub[c.Sub], rules.Sub[c.Sub]
	}
	if prepare != nil {
		prepare(want, current)
	}
	undo, err := d.claim(row, want, current, c.DryRun)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if errs := check(c.judged(want), c.judged(current)); len(errs) > 0 {
			undo()
			return nil, apierrors.NewInvalid(row.GVK().GroupKind(), c.Name, errs)
		}
	}
	if err := d.chain.Validate(ctx, a); err != nil {
		undo()
		return nil, err
	}
	if c.Sub == "" {
		c.warnOf(want, current)
	}
	if c.DryRun {
		undo()
		if want, err = asStored(row, want); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		want.SetResourceVersion(current.GetResourceVersion())
		return &Result{Object: want}, nil
	}
	if finished(want, current) {
		// The client gets what it asked for; watchers are told of the object as it was stored.
		if _, err := d.remove(ctx, c, row, rec); err != nil {
			return nil, err
		}
		if want, err = asStored(row, want); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		want.SetResourceVersion(current.GetResourceVersion())
		return &Result{Object: want}, nil
	}
	value, same, err := encodeChange(row, rec, current, want)
	if err != nil {
		undo()
		return nil, apierrors.NewInternalError(err)
	}
	if same { // nothing changed: no revision is spent
		return stored(rec), nil
	}
	next, err := d.store.Commit(ctx, store.Write{Key: rec.Key, Expect: rec.Revision, Value: value})
	if err != nil {
		undo()
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			return nil, err
		}
		return nil, d.failed(c, "update", c.Name, err)
	}
	return stored(next), nil
}

// encodeChange returns the stored form of want, and whether it says what is stored already. The times at which managers last
// wrote are no change by themselves.
func encodeChange(row *api.Row, rec *store.Record, current, want Object) (value []byte, same bool, err error) {
	fields := want.GetManagedFields()
	if onlyTimesDiffer(fields, current.GetManagedFields()) {
		want.SetManagedFields(current.GetManagedFields())
		if value, err = encode(row, want); err != nil || bytes.Equal(value, rec.Value) {
			return value, err == nil, err
		}
		want.SetManagedFields(fields)
	}
	value, err = encode(row, want)
	return value, err == nil && bytes.Equal(value, rec.Value), err
}

func onlyTimesDiffer(a, b []metav1.ManagedFieldsEntry) bool {
	return slices.EqualFunc(a, b, func(x, y metav1.ManagedFieldsEntry) bool {
		return x.Manager == y.Manager && x.Operation == y.Operation && x.APIVersion == y.APIVersion && x.Subresource == y.Subresource &&
			x.FieldsType == y.FieldsType && (x.FieldsV1 == nil) == (y.FieldsV1 == nil) && (x.FieldsV1 == nil || x.FieldsV1.Equal(*y.FieldsV1))
	})
}

// keepMeta carries over what a client cannot change by leaving it out.
func keepMeta(want, current Object) {
	want.GetObjectKind().SetGroupVersionKind(current.GetObjectKind().GroupVersionKind())
	if want.GetUID() == "" {
		want.SetUID(current.GetUID())
	}
	if t := want.GetCreationTimestamp(); t.IsZero() {
		want.SetCreationTimestamp(current.GetCreationTimestamp())
	}
	if current.GetDeletionTimestamp() != nil && want.GetDeletionTimestamp() == nil {
		want.SetDeletionTimestamp(current.GetDeletionTimestamp())
	}
	if current.GetDeletionGracePeriodSeconds() != nil && want.GetDeletionGracePeriodSeconds() == nil {
		want.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
	}
	if want.GetGeneration() == 0 {
		want.SetGeneration(current.GetGeneration())
	}
}

// finished reports whether an update took away the last thing that kept a deleted object alive.
func finished(want, current Object) bool {
	if current.GetDeletionTimestamp() == nil || len(want.GetFinalizers()) > 0 {
		return false
	}
	if g := current.GetDeletionGracePeriodSeconds(); g != nil && *g > 0 {
		return false
	}
	ns, ok := want.(*corev1.Namespace)
	return !ok || len(ns.Spec.Finalizers) == 0
}
