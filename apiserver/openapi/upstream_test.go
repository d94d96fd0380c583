package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// spec36 is where documents recorded from an upstream API server may be.
const spec36 = "../../../shared/spec"

// TestUpstream compares every document with the recorded one, definition by definition and path by path.
func TestUpstream(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(spec36, "openapi-v3", "*.json.gz"))
	if len(files) == 0 {
		t.Skip("SKIPPED: no recorded documents in " + spec36 + ": nothing was compared with upstream")
	}
	h := New("test")
	diffs, total, documents := 0, 0, 0
	compare := func(name string, ours, theirs map[string]any) {
		before, parts := diffs, total
		defer func() {
			documents++
			t.Logf("%-50s %4d parts, %d differ", name, total-parts, diffs-before)
		}()
		for section, pick := range sections {
			a, b := pick(ours), pick(theirs)
			keys := map[string]bool{}
			for k := range a {
				keys[k] = true
			}
			for k := range b {
				keys[k] = true
			}
			for _, k := range sortedKeys(keys) {
				total++
				if reflect.DeepEqual(a[k], b[k]) {
					continue
				}
				diffs++
				if diffs <= 20 {
					x, y := line(a[k]), line(b[k])
					i := 0
					for i < len(x) && i < len(y) && x[i] == y[i] {
						i++
					}
					t.Errorf("%s %s %s:\n  ours     %s\n  upstream %s", name, section, k, around(x, i), around(y, i))
				}
			}
		}
	}
	recordedPaths := map[string]bool{"v2": true}
	for _, f := range files {
		path := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(f), ".json.gz"), "__", "/")
		recordedPaths[path] = true
		compare(path, get(t, h, "/openapi/v3/"+path), recorded(t, f))
	}
	for path := range h.current() {
		if !recordedPaths[path] {
			t.Errorf("upstream has no document %s", path)
		}
	}
	compare("v2", get(t, h, "/openapi/v2"), recorded(t, filepath.Join(spec36, "openapi-v2.json.gz")))
	t.Logf("%d documents: %d of %d paths, definitions, parameters and heads differ from upstream's", documents, diffs, total)
}

var sections = map[string]func(map[string]any) map[string]any{
	"paths":      func(d map[string]any) map[string]any { m, _ := d["paths"].(map[string]any); return m },
	"parameters": func(d map[string]any) map[string]any { m, _ := d["parameters"].(map[string]any); return m },
	"schemas": func(d map[string]any) map[string]any {
		if m, ok := d["definitions"].(map[string]any); ok {
			return m
		}
		c, _ := d["components"].(map[string]any)
		m, _ := c["schemas"].(map[string]any)
		return m
	},
	"head": func(d map[string]any) map[string]any {
		out := map[string]any{}
		for k, v := range d {
			switch k {
			case "paths", "parameters", "definitions":
			case "components":
				out[k] = v.(map[string]any)["securitySchemes"]
			default:
				out[k] = v
			}
		}
		return out
	},
}

func line(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func around(s string, i int) string {
	return s[max(0, i-100):min(len(s), i+200)]
}

func get(t *testing.T, h *Handler, url string) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	if !h.Serve(w, httptest.NewRequest("GET", url, nil)) || w.Code != 200 {
		t.Fatalf("GET %s: %d", url, w.Code)
	}
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return out
}

func recorded(t *testing.T, file string) map[string]any {
	t.Helper()
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(doc, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
