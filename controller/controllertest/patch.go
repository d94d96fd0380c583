package controllertest

import (
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"karve/api"
	"karve/client"
)

func (s *Server) patch(row *api.Row, r *client.Request) (runtime.Object, error) {
	old, err := s.get(row, r)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(old)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Name, err)
	}
	var out []byte
	switch r.PatchType {
	case types.MergePatchType:
		out, err = jsonpatch.MergePatch(doc, r.Patch)
	case types.StrategicMergePatchType:
		out, err = strategicpatch.StrategicMergePatch(doc, r.Patch, row.New())
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(r.Patch); err == nil {
			out, err = p.Apply(doc)
		}
	default:
		err = fmt.Errorf("patch type %s is not supported", r.PatchType)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o := row.New()
	if err := json.Unmarshal(out, o); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return s.update(row, r, o)
}
