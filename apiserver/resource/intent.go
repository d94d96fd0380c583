package resource

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Intent reads the body of a server-side apply (YAML or JSON), which stays untyped: what is absent is not meant.
func Intent(body []byte) (Object, error) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(body, &u.Object); err != nil {
		return nil, apierrors.NewBadRequest("error decoding YAML: " + err.Error())
	}
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	return u, nil
}
