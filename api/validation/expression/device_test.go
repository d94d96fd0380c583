package expression

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestDevice(t *testing.T) {
	for text, want := range map[string]string{
		`device.driver == "gpu.example.com"`:                                                                           "",
		`device.attributes["gpu.example.com"].model.startsWith("A")`:                                                   "",
		`device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("8Gi")) && !device.allowMultipleAllocations`: "",
		`device.attributes["d"].version.compareTo(semver("1.0.0")) > 0`:                                                "",
		`cel.bind(d, device.attributes["d"], d.a == "b")`:                                                              "",
		``:                      "compilation failed",
		`devices.driver == "x"`: "undeclared reference",
		`device.colour == "x"`:  "undefined field",
		`device.driver`:         "must evaluate to bool or the unknown type, not string",
		`device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == b && c == d))))`: "too complex",
	} {
		errs := Device(text, field.NewPath("x"))
		if (len(errs) == 0) != (want == "") || len(errs) > 0 && !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%q: %v, want %q", text, errs, want)
		}
	}
}
