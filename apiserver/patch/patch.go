// Package patch computes what an object becomes when a patch is applied to it (JSON patch, JSON merge patch, strategic
// merge patch) and keeps the record of which manager owns which field (server-side apply). It is called by the resource
// handlers inside their read-change-write loop; it reads and writes nothing itself and never changes its inputs.
package patch

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// maxOperations is upstream's bound on one JSON patch.
const maxOperations = 10000

// Apply returns what current becomes under body, as a new object of current's Go type. Strict problems (unknown or
// duplicate fields that the patch brought in) come back as warnings; the caller decides what they mean.
func Apply(current runtime.Object, kind types.PatchType, body []byte) (result runtime.Object, strict []error, err error) {
	switch kind {
	case types.JSONPatchType, types.MergePatchType:
		return applyJSON(current, kind, body)
	case types.StrategicMergePatchType:
		return applyStrategic(current, body)
	}
	return nil, nil, fmt.Errorf("patch: type %q is not known", kind)
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// misfit is the answer to a patch after which the object is none of its kind.
func misfit(o runtime.Object, value string, err error) error {
	if _, ok := o.(*corev1.Secret); ok { // errors end up in logs
		value = "<hidden>"
	}
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

func applyJSON(current runtime.Object, kind types.PatchType, body []byte) (runtime.Object, []error, error) {
	var strict []error
	var change func(doc []byte) ([]byte, error)
	var touched part
	t, some := reflect.TypeOf(current).Elem(), false
	if kind == types.JSONPatchType {
		ops, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		if len(ops) > maxOperations {
			return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops)))
		}
		strict = operations(body)
		for _, op := range ops {
			if path, err := op.Path(); err == nil && path == "" && op["value"] == nil && op["from"] == nil { // the library would panic
				return nil, nil, unprocessable(fmt.Errorf("%s operation on the whole object: it needs a value", op.Kind()))
			}
		}
		change = func(doc []byte) ([]byte, error) {
			doc, err := ops.Apply(doc)
			if err != nil {
				return nil, unprocessable(err)
			}
			return doc, nil
		}
		some = touched.pointed(t, ops)
	} else {
		var v map[string]any
		var err error
		if strict, err = kjson.UnmarshalStrict(body, &v); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		change = func(doc []byte) ([]byte, error) {
			doc, err := jsonpatch.MergePatch(doc, body)
			if err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
			return doc, nil
		}
		some = touched.named(t, nil, v)
	}
	if some {
		if changed, more, err := changeJSON(touched.of(current), change); err == nil {
			return touched.onto(current, changed), append(strict, more...), nil
		}
	}
	obj, more, err := changeJSON(current, change)
	if err != nil {
		return nil, nil, err
	}
	return obj, append(strict, more...), nil
}

// changeJSON returns a new object: o after a change of its JSON.
func changeJSON(o runtime.Object, change func(doc []byte) ([]byte, error)) (runtime.Object, []error, error) {
	doc, err := json.Marshal(o)
	if err != nil {
		return nil, nil, fmt.Errorf("patch %T: %w", o, err)
	}
	if doc, err = change(doc); err != nil {
		return nil, nil, err
	}
	obj := newLike(o)
	strict, err := kjson.UnmarshalStrict(doc, obj)
	if err != nil {
		return nil, nil, misfit(o, string(doc), err)
	}
	return obj, strict, nil
}

func applyStrategic(current runtime.Object, body []byte) (runtime.Object, []error, error) {
	var change map[string]any
	strict, err := kjson.UnmarshalStrict(body, &change)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	var touched part
	if touched.named(reflect.TypeOf(current).Elem(), nil, change) {
		// the merge writes into the patch it is given
		if changed, more, err := mergeStrategic(touched.of(current), runtime.DeepCopyJSON(change)); err == nil {
			return touched.onto(current, changed), append(strict, more...), nil
		}
	}
	obj, more, err := mergeStrategic(current, change)
	if err != nil {
		return nil, nil, err
	}
	return obj, append(strict, more...), nil
}

// mergeStrategic returns a new object: o after a strategic merge of change, which it uses up.
func mergeStrategic(o runtime.Object, change map[string]any) (runtime.Object, []error, error) {
	doc, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, nil, fmt.Errorf("patch %T: %w", o, err)
	}
	obj := newLike(o)
	meta, err := strategicpatch.NewPatchMetaFromStruct(obj)
	if err != nil {
		return nil, nil, fmt.Errorf("patch %T: %w", o, err)
	}
	merged, err := strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(doc, change, meta)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	var strict []error
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, obj, true); err != nil {
		s, ok := runtime.AsStrictDecodingError(err)
		if !ok {
			return nil, nil, misfit(o, fmt.Sprintf("%+v", change), err)
		}
		strict = s.Errors()
	}
	return obj, strict, nil
}

// newLike returns an empty object of o's Go type.
func newLike(o runtime.Object) runtime.Object {
	return reflect.New(reflect.TypeOf(o).Elem()).Interface().(runtime.Object)
}

// StrictMessage joins strict decoding problems the way upstream reports them.
func StrictMessage(errs []error) string {
	seen := map[string]bool{}
	var out []string
	for _, e := range errs {
		if s := e.Error(); !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return "strict decoding error: " + strings.Join(out, ", ")
}

// ManagerOr returns the field manager a request is recorded under: the one it named, or the first part of its agent.
func ManagerOr(manager, agent string) string {
	if manager != "" {
		return manager
	}
	name, _, _ := strings.Cut(agent, "/")
	if len(name) > 128 {
		name = name[:128]
	}
	var b strings.Builder
	for _, r := range name {
		if r < 0x20 || r == 0x7f {
			r = '?'
		}
		b.WriteRune(r)
	}
	if b.Len() == 0 {
		return "unknown"
	}
	return b.String()
}
