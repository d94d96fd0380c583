package patch

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestStrictOperations(t *testing.T) {
	for _, c := range []struct {
		body string
		want []string
	}{
		{`[{"op":"add","path":"/data","value":{"a":"b"}}]`, nil},
		{`[{"op":"add","path":"/data","path":"/data","value":{"a":"b"},"extra":1}]`, []string{`json patch duplicate field "[0].path"`, `json patch unknown field "[0].extra"`}},
		{`[{"op":"add","path":"/data","value":{"a":"b","a":"c"}}]`, []string{`json patch duplicate field "[0].value.a"`, `duplicate field "data.a"`}},
	} {
		_, strict, err := Apply(&corev1.ConfigMap{}, types.JSONPatchType, []byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
		}
		if len(strict) != len(c.want) {
			t.Errorf("%s: %v, want %v", c.body, strict, c.want)
			continue
		}
		for i := range strict {
			if strict[i].Error() != c.want[i] {
				t.Errorf("%s: %v, want %s", c.body, strict[i], c.want[i])
			}
		}
	}
}
