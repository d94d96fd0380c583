package rest

import (
	"net/http"

	asv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/apiserver/patch"
	"karve/apiserver/request"
	"karve/apiserver/resource"
)

// scale serves the scale subresource, whose body is a Scale made from the object and put back into it.
func (x *exchange) scale() error {
	switch x.info.Verb {
	case "get":
		rec, err := x.Door.Get(x.r.Context(), x.call, "")
		if err != nil {
			return err
		}
		return x.writeObject(http.StatusOK, resource.ScaleOf(resource.ObjectOf(rec)))
	case "update":
		v, err := x.writeOptions("UpdateOptions")
		if err != nil {
			return err
		}
		body, err := x.readBody(asv1.SchemeGroupVersion.WithKind("Scale"), nil, v)
		if err != nil {
			return err
		}
		s, err := x.Door.Rescale(x.r.Context(), x.call, 1, func(*asv1.Scale) (*asv1.Scale, error) { return body.(*asv1.Scale), nil })
		if err != nil {
			return err
		}
		return x.writeObject(http.StatusOK, s)
	case "patch":
		return x.patchScale()
	}
	return methodNotAllowed()
}

func (x *exchange) patchScale() error {
	v, err := x.writeOptions("PatchOptions")
	if err != nil {
		return err
	}
	kind := types.PatchType(request.ContentType(x.r))
	if err := patchable(kind); err != nil {
		return err
	}
	body, err := readAll(x.w, x.r)
	if err != nil {
		return err
	}
	x.patched, v.kind = body, asv1.SchemeGroupVersion.WithKind("Scale")
	var s *asv1.Scale
	if kind == types.ApplyYAMLPatchType {
		intent, err := x.readIntent(body, asv1.SchemeGroupVersion.WithKind("Scale"), v)
		if err != nil {
			return err
		}
		s, err = x.Door.ApplyScale(x.r.Context(), x.call, intent, x.force())
		if err != nil {
			return err
		}
		return x.writeObject(http.StatusOK, s)
	}
	s, err = x.Door.Rescale(x.r.Context(), x.call, 5, func(s *asv1.Scale) (*asv1.Scale, error) {
		out, strict, err := patch.Apply(s, kind, body)
		if err != nil {
			return nil, err
		}
		if len(strict) > 0 {
			if err := v.strictPatch(strict); err != nil {
				return nil, err
			}
		}
		return out.(*asv1.Scale), nil
	})
	if err != nil {
		return err
	}
	return x.writeObject(http.StatusOK, s)
}
