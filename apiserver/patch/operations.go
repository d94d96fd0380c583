package patch

import (
	"fmt"

	kjson "sigs.k8s.io/json"
)

// operation is what a member of a JSON patch can say.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// operations returns what members of a JSON patch say besides, or twice. The patch is known to be one.
func operations(body []byte) []error {
	var v []operation
	strict, err := kjson.UnmarshalStrict(body, &v)
	if err != nil {
		return nil // whoever applies it finds out
	}
	for i, e := range strict {
		strict[i] = fmt.Errorf("json patch %w", e)
	}
	return strict
}
