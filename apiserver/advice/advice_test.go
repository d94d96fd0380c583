package advice

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

var (
	deployment = reflect.TypeFor[appsv1.Deployment]()
	pod        = reflect.TypeFor[corev1.Pod]()
	configMap  = reflect.TypeFor[corev1.ConfigMap]()
)

func TestUnknown(t *testing.T) {
	for _, c := range []struct {
		t          reflect.Type
		path, want string
	}{
		{deployment, "spec.replcas", `(did you mean "spec.replicas"?)`},
		{deployment, "spec.Replicas", `(did you mean "spec.replicas"?)`},
		{deployment, "spec.template.spec.containers[0].ports[1].container_port", `(did you mean "spec.template.spec.containers[0].ports[1].containerPort"?)`},
		{deployment, "spec.containers", `(did you mean "spec.template.spec.containers"?)`},
		{deployment, "replicas", `(did you mean "spec.replicas"?)`},
		{deployment, "spec.template.spec.contianers", `(did you mean "spec.template.spec.containers"?)`},
		{deployment, "metadata.nodeSelector", `(did you mean "spec.template.spec.nodeSelector"?)`},
		{pod, "spec.imagePullPolicy", `(did you mean "spec.containers[*].imagePullPolicy" or "spec.ephemeralContainers[*].imagePullPolicy"?)`},
		{pod, "spec.securityContext.privileged", `(did you mean "spec.containers[*].securityContext.privileged"`},
		{configMap, "dota", `(did you mean "data"?)`},
		{configMap, "extra", `(known here: apiVersion, binaryData, data, immutable, kind, metadata)`},
		{configMap, "metadata.a.b", ``},
		{configMap, strings.Repeat("x", 1000), ``},
		{configMap, "", `(known here: apiVersion`},
	} {
		text := fmt.Sprintf("unknown field %q", c.path)
		got := Unknown(c.t, []error{errors.New(text)})[0].Error()
		if !strings.HasPrefix(got, text) || c.want == "" && got != text || !strings.HasPrefix(strings.TrimPrefix(got, text), strings.TrimSuffix(" "+c.want, " ")) {
			t.Errorf("%s\n got %s\nwant %s %s", c.t, got, text, c.want)
		}
	}
	other := errors.New(`duplicate field "spec.replcas"`)
	if got := Unknown(deployment, []error{other})[0]; got != other {
		t.Errorf("another problem became %v", got)
	}
}

func TestUndeclared(t *testing.T) {
	const said = "failed to create typed patch object (n/web; apps/v1, Kind=Deployment): errors:\n  .spec.replcas: field not declared in schema\n  .spec.template.spec.containers[name=\"w.eb\"].imge: field not declared in schema"
	if got, want := Undeclared(deployment, said), `spec.replcas: did you mean "spec.replicas"?, spec.template.spec.containers[*].imge: did you mean "spec.template.spec.containers[*].image"?`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := Undeclared(deployment, "failed: .spec.replicas: expected numeric"); got != "" {
		t.Errorf("another refusal: %s", got)
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		yaml bool
		text string
		want string
	}{
		{false, `{"a": 1,}`, `at line 1, column 9: "{\"a\": 1,}"`},
		{false, "{\n  \"a\": 1\n  \"b\": 2\n}", `at line 3, column 3: "  \"b\": 2"`},
		{false, "{\n  \"grün\": x\n}", `at line 2, column 11: "  \"grün\": x"`},
		{false, `{"a": 1`, `at line 1, column 7: "{\"a\": 1"`},
		{false, `{"a": 1}`, ""},
		{false, "", ""},
		{false, "kind: Secret\npassword: hunter2", `at line 1, column 1`},
		{false, `{"kind": "Secret", "data": {"a": hunter2}}`, `at line 1, column 34`},
		{false, `{"long": "` + strings.Repeat("x", 200) + `", oops: 1, "more": "` + strings.Repeat("y", 200) + `"}`, `at line 1, column 214: ..."` + strings.Repeat("x", 37) + `\", oops: 1, \"more\": \"` + strings.Repeat("y", 22) + `"...`},
		{true, "a: b: c", `at line 1, column 5: "a: b: c"`},
		{true, "\tx", `at line 1, column 1: "\tx"`},
		{true, "a: 1\nb: [1, 2\nc: 3\n", `at line 3, column 4: "c: 3"`},
		{true, "a:\n  b: 1\n c: 2\n", `at line 3, column 2: " c: 2"`},
		{true, "a:\n- 1\n  b: 2\nc: 3", `at line 3, column 4: "  b: 2"`},
		{true, "x: \"unterminated\nb: 2\n", `at line 2, column 4: "b: 2"`},
		{true, "a: @x", `at line 1, column 4: "a: @x"`},
		{true, "a: 1\n\tb: 2\n", `at line 2, column 1: "\tb: 2"`},
		{true, "metadata:\n  name: web\n   labels:\n    a: b\n", `at line 3, column 10: "   labels:"`},
		{true, "containers:\n  - name: x\n   image: y\n", `at line 3, column 4: "   image: y"`},
		{true, "a: 'it's'\n", `at line 1, column 4: "a: 'it's'"`},
		{true, "a: 1\n", ""},
		{true, "kind: Secret\ndata:\n  a: hunter2\n b: hunter3\n", `at line 4, column 2`},
	} {
		if got := (Body{Text: []byte(c.text), YAML: c.yaml}).Malformed(); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
		if got := (Body{Text: []byte(c.text), YAML: c.yaml, Secret: true}).Malformed(); strings.Contains(got, `"`) {
			t.Errorf("%q is repeated though it is secret: %s", c.text, got)
		}
	}
	long := Body{Text: []byte("{" + strings.Repeat(" ", maxJSON))}
	if got := long.Malformed(); got != "" {
		t.Errorf("a text of %d bytes is searched: %s", len(long.Text), got)
	}
}

func TestMisfit(t *testing.T) {
	for _, c := range []struct {
		t    reflect.Type
		yaml bool
		text string
		want string
	}{
		{deployment, false, `{"spec":{"replicas":"three"}}`, `spec.replicas: "three" is not a whole number (int32)`},
		{deployment, false, `{"spec":{"replicas":4294967296}}`, `spec.replicas: 4294967296 is not a whole number (int32)`},
		{deployment, false, `{"metadata":{"labels":["a"]}}`, `metadata.labels is not an object with strings by name`},
		{deployment, true, "spec:\n  replicas: three\n", `spec.replicas: "three" is not a whole number (int32) (line 2, column 13)`},
		{pod, false, `{"spec":{"containers":[{"name":"a"},{"name":"b","env":[{"name":"X","value":5}]}]}}`, `spec.containers[1].env[0].value: 5 is not a string: put it in quotes`},
		{pod, true, "spec:\n  containers:\n  - env:\n    - name: X\n      value: yes\n", `spec.containers[0].env[0].value: true is not a string: put it in quotes (line 5, column 14)`},
		{pod, false, `{"spec":{"containers":[{"resources":{"limits":{"memory":"2 gigs"}}}]}}`, `spec.containers[0].resources.limits[memory]: "2 gigs" is not a quantity such as "100m", "1.5" or "2Gi"`},
		{pod, false, `{"spec":{"containers":{"name":"a"}}}`, `spec.containers is not a list of objects`},
		{pod, false, `{"spec":{"hostNetwork":"yes"}}`, `spec.hostNetwork: "yes" is not true or false`},
		{configMap, false, `{"metadata":{"creationTimestamp":"yesterday"}}`, `metadata.creationTimestamp: "yesterday" is not a time such as "2006-01-02T15:04:05Z"`},
		{configMap, false, `{"binaryData":{"a":"%%%"}}`, `binaryData[a]: "%%%" is not text in base64`},
		{configMap, false, `{"metadata":"x"}`, `metadata: "x" is not an object`},
		{configMap, false, `[]`, `the body is not an object with apiVersion, binaryData, data, immutable, kind, metadata`},
		{configMap, false, `{"data":{"a":"1"},"other":5}`, ``},
		{configMap, false, strings.Repeat("[", 10000) + strings.Repeat("]", 10000), ``},
	} {
		if got := (Body{Text: []byte(c.text), YAML: c.yaml}).Misfit(c.t); got != c.want {
			t.Errorf("%.200s:\n got %s\nwant %s", c.text, got, c.want)
		}
	}
	secret := Body{Text: []byte(`{"data":{"password":"hunter2!"}}`), Secret: true}
	if got, want := secret.Misfit(reflect.TypeFor[corev1.Secret]()), "data[password] is not text in base64"; got != want {
		t.Errorf("of a Secret\n got %s\nwant %s", got, want)
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ group, version, resource, sub, want string }{
		{"", "v1", "deployments", "", "did you mean /apis/apps/v1/namespaces/NAMESPACE/deployments?"},
		{"apps", "v1", "deploy", "", "did you mean /apis/apps/v1/namespaces/NAMESPACE/deployments?"},
		{"apps", "v1", "deployment", "", "did you mean /apis/apps/v1/namespaces/NAMESPACE/deployments?"},
		{"apps", "v1", "deploymnets", "", `did you mean "deployments"?`},
		{"extensions", "v1beta1", "ingresses", "", "did you mean /apis/networking.k8s.io/v1/namespaces/NAMESPACE/ingresses?"},
		{"", "v1", "configmap", "", "did you mean /api/v1/namespaces/NAMESPACE/configmaps?"},
		{"batch", "v1beta1", "cronjobs", "", "did you mean /apis/batch/v1/namespaces/NAMESPACE/cronjobs?"},
		{"app", "v1", "widgets", "", `did you mean the group "apps"?`},
		{"networking", "v1", "widgets", "", `did you mean the group "networking.k8s.io"?`},
		{"apps", "v2", "widgets", "", `group "apps" is served as "v1"`},
		{"apps", "v1", "deployments", "scales", `deployments has the subresources "scale", "status"`},
		{"", "v1", "configmaps", "status", "configmaps has no subresources"},
		{"", "v1", "configmaps", "", ""},
		{"acme.example.com", "v1", "widgets", "", ""},
		{"acme.example.com", "v1", strings.Repeat("x", 10000), "", ""},
	} {
		gvr := schema.GroupVersionResource{Group: c.group, Version: c.version, Resource: c.resource}
		if got := Path(gvr, c.sub); got != c.want {
			t.Errorf("%.60v %s:\n got %s\nwant %s", gvr, c.sub, got, c.want)
		}
	}
}

func TestKind(t *testing.T) {
	want := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	for _, c := range []struct {
		got  schema.GroupVersionKind
		want string
	}{
		{schema.GroupVersionKind{Version: "v1", Kind: "configmap"}, `did you mean kind "ConfigMap"?`},
		{schema.GroupVersionKind{Version: "v1", Kind: "ConfigMaps"}, `did you mean kind "ConfigMap"?`},
		{schema.GroupVersionKind{Version: "v2", Kind: "ConfigMap"}, `here the body's apiVersion is "v1"`},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, "a Deployment is sent to /apis/apps/v1/namespaces/NAMESPACE/deployments"},
		{schema.GroupVersionKind{Version: "v1", Kind: "List"}, "send the objects of a list one by one"},
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deploymnet"}, `here the body has apiVersion "v1" and kind "ConfigMap" (did you mean "Deployment", which is sent elsewhere?)`},
		{want, ""},
	} {
		if got := Kind(c.got, want); got != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.got, got, c.want)
		}
	}
}

func TestInvalid(t *testing.T) {
	labels := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	stored := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: labels}}
	sent := &appsv1.Deployment{}
	sent.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "logs"}}
	cron := &batchv1.CronJob{}
	for _, c := range []struct {
		v                    Invalid
		kind                 metav1.CauseType
		field, message, want string
	}{
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueNotSupported, "spec.template.spec.restartPolicy", `Unsupported value: "always": supported values: "Always", "OnFailure", "Never"`, `did you mean "Always"?`},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueNotSupported, "spec.strategy.type", `Unsupported value: "Blue": supported values: "Recreate", "RollingUpdate"`, ""},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueNotSupported, "spec", `Unsupported value: {"a":1}: supported values: "x"`, ""},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueRequired, "spec.selector", "Required value", "an object with matchExpressions, matchLabels"},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueRequired, "spec.template.spec.containers", "Required value", "a list of objects"},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueRequired, "spec.template.spec.containers[0].image", "Required value", "a string"},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueRequired, "spec.template.spec.containers[0].image", "Required value: say which", ""},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueRequired, "spec.nowhere", "Required value", ""},
		{Invalid{Type: deployment, Stored: stored}, metav1.CauseTypeFieldValueInvalid, "spec.selector", `Invalid value: {"matchLabels":{"app":"api"}}: field is immutable`, `it is {"matchLabels":{"app":"web"}}: to change it, delete the object and create it anew`},
		{Invalid{Type: deployment}, metav1.CauseTypeFieldValueInvalid, "spec.selector", `Invalid value: null: field is immutable`, `to change it, delete the object and create it anew`},
		{Invalid{Type: deployment, Stored: stored, Secret: true}, metav1.CauseTypeFieldValueInvalid, "spec.selector", `Invalid value: null: field is immutable`, `to change it, delete the object and create it anew`},
		{Invalid{Type: deployment, Sent: sent}, metav1.CauseTypeFieldValueNotFound, "spec.template.spec.containers[0].volumeMounts[0].name", `Not found: "dta"`, `did you mean "data"? spec.template.spec.volumes has "data", "logs"`},
		{Invalid{Type: deployment, Sent: sent}, metav1.CauseTypeFieldValueNotFound, "spec.template.spec.initContainers[0].volumeDevices[0].name", `Not found: "zzzzzzz"`, `spec.template.spec.volumes has "data", "logs"`},
		{Invalid{Type: pod, Sent: &corev1.Pod{}}, metav1.CauseTypeFieldValueNotFound, "spec.containers[0].volumeMounts[0].name", `Not found: "x"`, `there are no volumes in spec.volumes`},
		{Invalid{Type: pod, Sent: cron}, metav1.CauseTypeFieldValueNotFound, "spec.jobTemplate.spec.template.spec.containers[0].volumeMounts[0].name", `Not found: "x"`, `there are no volumes in spec.jobTemplate.spec.template.spec.volumes`},
	} {
		said := `Deployment.apps "web" is invalid: ` + c.field + ": " + c.message
		st := &metav1.Status{Message: said, Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: c.kind, Field: c.field, Message: c.message}}}}
		c.v.Advise(st)
		want, more := c.message, ""
		if c.want != "" {
			more = " (" + c.want + ")"
		}
		if got := st.Details.Causes[0]; got.Message != want+more || got.Type != c.kind || got.Field != c.field || st.Message != said+more {
			t.Errorf("%s: %s\n got %s\nwant %s%s\n all %s", c.field, c.message, got.Message, want, more, st.Message)
		}
	}
}

func TestRule(t *testing.T) {
	for _, c := range []struct {
		a    Access
		want string
	}{
		{Access{User: "alice", Verb: "list", Namespace: "shop", Resource: "configmaps"},
			`a Role with the rule {apiGroups: [""], resources: ["configmaps"], verbs: ["list"]} bound to the user in the namespace "shop" would allow it; to ask: kubectl auth can-i list configmaps -n shop; to give it: kubectl create role NAME --verb=list --resource=configmaps -n shop, and kubectl create rolebinding NAME --role=NAME --user=alice -n shop`},
		{Access{User: "system:serviceaccount:shop:bot", Verb: "delete", Group: "apps", Resource: "deployments", Namespace: "shop", Name: "web", Roles: []string{"edit", "admin"}},
			`a Role with the rule {apiGroups: ["apps"], resources: ["deployments"], verbs: ["delete"]} (resourceNames: ["web"] would limit it to this one) bound to the user in the namespace "shop" would allow it, and these cluster roles hold one: "edit", "admin"; to ask: kubectl auth can-i delete deployments.apps -n shop; to give it: kubectl create role NAME --verb=delete --resource=deployments.apps -n shop, and kubectl create rolebinding NAME --role=NAME --serviceaccount=shop:bot -n shop`},
		{Access{User: "alice", Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "web"},
			`a Role with the rule {apiGroups: [""], resources: ["pods/exec"], verbs: ["create"]} bound to the user in the namespace "shop" would allow it; to ask: kubectl auth can-i create pods --subresource=exec -n shop; to give it: kubectl create role NAME --verb=create --resource=pods/exec -n shop, and kubectl create rolebinding NAME --role=NAME --user=alice -n shop`},
		{Access{User: "x; rm -rf /", Verb: "list", Resource: "nodes"},
			`a ClusterRole with the rule {apiGroups: [""], resources: ["nodes"], verbs: ["list"]} bound to the user at the cluster scope would allow it; to ask: kubectl auth can-i list nodes`},
		{Access{User: "alice", Verb: "list", Namespace: "$(reboot)", Resource: "pods"},
			`a Role with the rule {apiGroups: [""], resources: ["pods"], verbs: ["list"]} bound to the user in the namespace "$(reboot)" would allow it`},
		{Access{User: "alice", Verb: "get", Path: "/metrics"},
			`a ClusterRole with the rule {nonResourceURLs: ["/metrics"], verbs: ["get"]} would allow it; to ask: kubectl auth can-i get /metrics; to give it: kubectl create clusterrole NAME --verb=get --non-resource-url=/metrics, and kubectl create clusterrolebinding NAME --clusterrole=NAME --user=alice`},
		{Access{User: "system:anonymous", Verb: "list", Resource: "nodes"}, "the request was anonymous: send a client certificate or a bearer token"},
		{Access{User: "alice", Verb: "list", Resource: strings.Repeat("x", 10000)}, ""},
	} {
		if got := c.a.Rule(); got != c.want {
			t.Errorf("%.80v:\n got %s\nwant %s", c.a, got, c.want)
		}
	}
}

func TestSince(t *testing.T) {
	at := func(s int) *metav1.Time { return ptr.To(metav1.NewTime(time.Date(2026, 1, 2, 3, 4, s, 0, time.UTC))) }
	entry := func(manager string, when int, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: "Update", APIVersion: "apps/v1", Time: at(when), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	make := func(revision string, replicas int32, label string, entries ...metav1.ManagedFieldsEntry) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "u", ResourceVersion: revision, Labels: map[string]string{"tier": label}, ManagedFields: entries},
			Spec: appsv1.DeploymentSpec{Replicas: &replicas}}
	}
	created := entry("kubectl-create", 0, `{"f:spec":{"f:replicas":{}}}`)
	scaled := entry("autoscaler", 9, `{"f:spec":{"f:replicas":{}}}`)
	now := make("12", 5, "back", created, scaled)
	other := make("12", 5, "back", created)
	other.UID = "v"
	for _, c := range []struct {
		name string
		s    Since
		want string
	}{
		{"the revision is known", Since{Now: now, Before: make("10", 3, "front", created), Sent: make("10", 4, "front", created)},
			`changed since resourceVersion 10 by "autoscaler" at 2026-01-02T03:04:09Z: spec.replicas, metadata.labels[tier]; it is at resourceVersion 12 now`},
		{"it is not, but the client's record is", Since{Now: make("12", 5, "back", entry("kubectl-create", 7, `{"f:spec":{"f:paused":{},"f:replicas":{}}}`)), Sent: make("10", 4, "front", created)},
			`changed since resourceVersion 10 by "kubectl-create" at 2026-01-02T03:04:07Z (spec.paused); it is at resourceVersion 12 now`},
		{"the client sent no record", Since{Now: now, Sent: make("10", 4, "front")},
			`changed since resourceVersion 10 by "autoscaler" at 2026-01-02T03:04:09Z; it is at resourceVersion 12 now`},
		{"a patch", Since{Now: now}, `changed by "autoscaler" at 2026-01-02T03:04:09Z; it is at resourceVersion 12 now`},
		{"another object", Since{Now: other, Sent: make("10", 4, "front")}, `it was deleted and created anew at 0001-01-01T00:00:00Z`},
	} {
		if got := c.s.Text(); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	causes := []metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Field: ".spec.replicas", Message: `conflict with "autoscaler" using apps/v1`}}
	if got, want := Owners(now, causes), `"autoscaler" last wrote at 2026-01-02T03:04:09Z; leave the fields out, send the values they have, or take them over with force=true`; got != want {
		t.Errorf("owners:\n got %s\nwant %s", got, want)
	}
}

// The worst that a request can ask for: what it costs is bounded whatever is sent.
func BenchmarkWorst(b *testing.B) {
	wide := map[string]any{}
	for i := range 2000 {
		wide[fmt.Sprintf("k%07d", i)] = "some text or other"
	}
	data, err := json.Marshal(map[string]any{"data": wide, "metadata": map[string]any{"zzz": 0, "name": 5}})
	if err != nil || len(data) > maxText {
		b.Fatal(len(data), err)
	}
	badYAML := "a:\n" + strings.Repeat("  - {name: x, image: y}\n", maxText/25) + " c: 2\n"
	unknown := make([]error, maxUnknown)
	for i := range unknown {
		unknown[i] = fmt.Errorf("unknown field %q", fmt.Sprintf("spec.template.spec.containers[0].nothing%dlike", i))
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"misfit, JSON", func() { Body{Text: data}.Misfit(configMap) }},
		{"misfit, YAML", func() { Body{Text: data, YAML: true}.Misfit(configMap) }},
		{"malformed, JSON", func() { Body{Text: data[:len(data)-1]}.Malformed() }},
		{"malformed, YAML", func() { Body{Text: []byte(badYAML), YAML: true}.Malformed() }},
		{"unknown fields", func() { Unknown(pod, unknown) }},
		{"path", func() {
			Path(schema.GroupVersionResource{Group: "x", Version: "v1", Resource: strings.Repeat("x", maxWord)}, "")
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.do()
			}
		})
	}
}
