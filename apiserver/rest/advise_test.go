package rest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"karve/apiserver/resource"
)

const (
	secrets     = "/api/v1/namespaces/n/secrets"
	deployments = "/apis/apps/v1/namespaces/n/deployments"
	merge       = "Content-Type: application/merge-patch+json"
	inJSON      = "Content-Type: application/json"
	inYAML      = "Content-Type: application/yaml"
)

// What is added to an error stands behind upstream's sentence, and nothing else of the answer changes.
func TestErrorsHelp(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	e.must(http.StatusCreated, "POST", secrets, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"b"}}`)
	for _, c := range []struct {
		method, target, body string
		header               string
		code                 int32
		sentence, added      string
	}{
		{"POST", deployments + "?fieldValidation=Strict", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replcas":1}}`, inJSON,
			400, `strict decoding error: unknown field "spec.replcas"`, ` (did you mean "spec.replicas"?)`},
		{"POST", cms, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":{"k":1}}`, inJSON,
			400, `of type string`, `; data[k]: 1 is not a string: put it in quotes`},
		{"POST", cms, "a: b: c", inYAML,
			400, `(613a20623a2063)`, `; at line 1, column 5: "a: b: c"`},
		{"POST", secrets, "kind: Secret\ndata:\n  a: hunter2\n b: hunter3", inYAML,
			400, `(<hidden>)`, `; at line 4, column 2`},
		{"POST", cms, `{"apiVersion":"apps/v1","kind":"Deployment"}`, inJSON,
			400, `unknown conversion`, `; a Deployment is sent to /apis/apps/v1/namespaces/NAMESPACE/deployments`},
		{"PATCH", cms + "/a", `{"data":`, merge,
			400, `unexpected end of JSON input`, `; at line 1, column 8: "{\"data\":"`},
		{"PATCH", secrets + "/s", `{"data":["hunter2"]}`, merge,
			422, `"<hidden>": json: cannot unmarshal array into Go struct field Secret.data of type map[string][]uint8`, ` (data is not an object with objects by name)`},
		{"PATCH", secrets + "/s?fieldValidation=Strict", `{"dta":{"a":"hunter2"}}`, merge,
			422, `"<hidden>": strict decoding error: unknown field "dta"`, ` (did you mean "data"?)`},
		{"PATCH", cms + "/a?fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: n}\ndota: {}", "Content-Type: application/apply-patch+yaml",
			500, `.dota: field not declared in schema`, `; dota: did you mean "data"?`},
		{"PUT", cms, "", inJSON, 405, `on the requested resource`, `; what can be done there: create, delete`},
		{"GET", "/api/v1/namespaces/n/nodes", "", inJSON, 404, `the requested resource`, `; nodes are in no namespace: /api/v1/nodes`},
		{"GET", deployments + "/d/scal", "", inJSON, 404, `the requested resource`, `; deployments has the subresources "scale", "status"`},
		{"DELETE", cms + "/a?gracePeriodSeconds=x", "", inJSON, 400, `invalid syntax`, `; the parameter gracePeriodSeconds takes a whole number of seconds`},
	} {
		st := status(t, e.do(c.method, c.target, c.body, c.header))
		if st.Code != c.code || !strings.Contains(st.Message, c.sentence+c.added) {
			t.Errorf("%s %s %s\n got %d %s\nwant %d ...%s%s", c.method, c.target, c.body, st.Code, st.Message, c.code, c.sentence, c.added)
		}
		if strings.Contains(st.Message, "hunter") {
			t.Errorf("%s %s: what is secret is repeated: %s", c.method, c.target, st.Message)
		}
		for i := 0; st.Details != nil && i < len(st.Details.Causes); i++ {
			if text := st.Details.Causes[i].Message; strings.Contains(text, "hunter") {
				t.Errorf("%s %s: what is secret is repeated: %s", c.method, c.target, text)
			}
		}
	}
}

// Who changed an object, and what it holds, is told to those who may read it.
func TestErrorsTellReadersOnly(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	was := e.must(http.StatusOK, "GET", cms+"/a", "").Body.String()
	e.must(http.StatusOK, "PATCH", cms+"/a?fieldManager=carol", `{"data":{"k":"w"}}`, merge)
	var asked []string
	for _, c := range []struct {
		reader bool
		added  string
	}{{true, `try again; changed since resourceVersion 1 by "carol" at `}, {false, "try again"}} {
		e.May = func(_ context.Context, verb string, c *resource.Call) bool {
			asked = append(asked, verb+" "+c.Namespace+"/"+c.Name+c.Sub)
			return c.User.Name == "test" && verb == "get"
		}
		if !c.reader {
			e.May = nil
		}
		st := status(t, e.must(http.StatusConflict, "PUT", cms+"/a", was, inJSON))
		_, rest, ok := strings.Cut(st.Message, c.added)
		if !ok || !c.reader && rest != "" || c.reader && !strings.Contains(rest, ": data[k]; it is at resourceVersion 2 now") {
			t.Errorf("reader %v: %s", c.reader, st.Message)
		}
		if st.Details == nil || len(st.Details.Causes) > 0 || st.Details.Name != "a" {
			t.Errorf("reader %v: details are %v", c.reader, st.Details)
		}
	}
	if len(asked) != 1 || asked[0] != "get n/a" {
		t.Errorf("asked whether the user may %q, want get n/a", asked)
	}
}
