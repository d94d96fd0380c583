package etcd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"google.golang.org/protobuf/encoding/protowire"

	"karve/store/engine/etcd/etcdtest"
)

// envelope wraps a message as upstream stores it: four magic bytes, then a message of kind and version (field 1, itself
// version and kind), the object (2), and the names of an encoding and a content type, which are empty but there (3 and 4).
func envelope(apiVersion, kind string, raw []byte) []byte {
	var meta []byte
	meta = protowire.AppendString(protowire.AppendTag(meta, 1, protowire.BytesType), apiVersion)
	meta = protowire.AppendString(protowire.AppendTag(meta, 2, protowire.BytesType), kind)
	b := []byte("k8s\x00")
	b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), meta)
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), raw)
	b = protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), "")
	return protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), "")
}

// open takes an envelope apart.
func open(t *testing.T, b []byte) (apiVersion, kind string, raw []byte) {
	t.Helper()
	rest, ok := bytes.CutPrefix(b, []byte("k8s\x00"))
	if !ok {
		t.Fatalf("no envelope: %.20q", b)
	}
	fields := func(b []byte) map[protowire.Number][]byte {
		out := map[protowire.Number][]byte{}
		for len(b) > 0 {
			n, kind, l := protowire.ConsumeTag(b)
			if l < 0 || kind != protowire.BytesType {
				t.Fatalf("no message: %q", b)
			}
			b = b[l:]
			v, l := protowire.ConsumeBytes(b)
			if l < 0 {
				t.Fatalf("no message: %q", b)
			}
			out[n], b = v, b[l:]
		}
		return out
	}
	all := fields(rest)
	meta := fields(all[1])
	return string(meta[1]), string(meta[2]), all[2]
}

// message is what the types of k8s.io/api can do.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// kept is an object as upstream lays it out.
type kept struct {
	key, apiVersion, kind string
	object                message
	path                  string
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("00000000-0000-4000-8000-" + fmt.Sprintf("%012x", len(name))),
		CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)), Labels: map[string]string{"from": "upstream"}}
}

// fixtures are objects whose keys do not follow from their resource, and some whose do.
func fixtures() []kept {
	one := int32(1)
	single := corev1.IPFamilyPolicySingleStack
	return []kept{
		{"/registry/namespaces/old", "v1", "Namespace", &corev1.Namespace{ObjectMeta: meta("", "old"),
			Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}, "/api/v1/namespaces/old"},
		{"/registry/configmaps/old/c", "v1", "ConfigMap", &corev1.ConfigMap{ObjectMeta: meta("old", "c"), Data: map[string]string{"k": "v"}}, "/api/v1/namespaces/old/configmaps/c"},
		{"/registry/secrets/old/s", "v1", "Secret", &corev1.Secret{ObjectMeta: meta("old", "s"), Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"k": {0, 1}}}, "/api/v1/namespaces/old/secrets/s"},
		{"/registry/minions/n", "v1", "Node", &corev1.Node{ObjectMeta: meta("", "n"), Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}, "/api/v1/nodes/n"},
		{"/registry/services/specs/old/svc", "v1", "Service", &corev1.Service{ObjectMeta: meta("old", "svc"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP,
			ClusterIP: "10.96.0.77", ClusterIPs: []string{"10.96.0.77"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: &single,
			SessionAffinity: corev1.ServiceAffinityNone, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}, "/api/v1/namespaces/old/services/svc"},
		{"/registry/services/endpoints/old/svc", "v1", "Endpoints", &corev1.Endpoints{ObjectMeta: meta("old", "svc")}, "/api/v1/namespaces/old/endpoints/svc"}, //nolint:staticcheck // it is stored
		{"/registry/controllers/old/rc", "v1", "ReplicationController", &corev1.ReplicationController{ObjectMeta: meta("old", "rc"),
			Spec: corev1.ReplicationControllerSpec{Replicas: &one}}, "/api/v1/namespaces/old/replicationcontrollers/rc"},
		{"/registry/events/old/e", "v1", "Event", &corev1.Event{ObjectMeta: meta("old", "e"), Reason: "Because", InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "old", Name: "p"}},
			"/api/v1/namespaces/old/events/e"},
		{"/registry/deployments/old/d", "apps/v1", "Deployment", &appsv1.Deployment{ObjectMeta: meta("old", "d"), Spec: appsv1.DeploymentSpec{Replicas: &one,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}}, "/apis/apps/v1/namespaces/old/deployments/d"},
		{"/registry/ingress/old/i", "networking.k8s.io/v1", "Ingress", &networkingv1.Ingress{ObjectMeta: meta("old", "i")}, "/apis/networking.k8s.io/v1/namespaces/old/ingresses/i"},
		{"/registry/leases/old/l", "coordination.k8s.io/v1", "Lease", &coordinationv1.Lease{ObjectMeta: meta("old", "l")}, "/apis/coordination.k8s.io/v1/namespaces/old/leases/l"},
		{"/registry/roles/old/r", "rbac.authorization.k8s.io/v1", "Role", &rbacv1.Role{ObjectMeta: meta("old", "r"),
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}, "/apis/rbac.authorization.k8s.io/v1/namespaces/old/roles/r"},
	}
}

// byHand is a ConfigMap spelled out field by field: metadata (1) with name (1), namespace (3), uid (5), creationTimestamp (8:
// seconds in 1, parts of them in 2), and data (2), whose entries are key (1) and value (2).
func byHand() []byte {
	text := func(b []byte, n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	number := func(b []byte, n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	var m []byte
	m = text(m, 1, "hand")
	m = text(m, 2, "") // generateName
	m = text(m, 3, "old")
	m = text(m, 4, "") // selfLink
	m = text(m, 5, "11111111-2222-4333-8444-555555555555")
	m = text(m, 6, "")  // resourceVersion: it is the revision, not stored
	m = number(m, 7, 0) // generation
	m = text(m, 8, string(number(number(nil, 1, 1_700_000_000), 2, 0)))
	b := text(nil, 1, string(m))
	b = text(b, 2, string(text(text(nil, 1, "k"), 2, "by hand")))
	return envelope("v1", "ConfigMap", b)
}

// TestUpstreamsData opens an etcd that upstream's API server wrote: everything is there, under the revisions it had, and
// can be changed. Keys that are none of ours are left alone.
func TestUpstreamsData(t *testing.T) {
	c := etcdtest.Start(t, 1)
	raw := c.Raw(t)
	revisions := map[string]string{}
	for _, f := range fixtures() {
		b, err := f.object.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		revisions[f.key] = fmt.Sprint(raw.Put(f.key, envelope(f.apiVersion, f.kind, b)))
	}
	hand := fmt.Sprint(raw.Put("/registry/configmaps/old/hand", byHand()))
	others := map[string][]byte{"compact_rev_key": []byte("4"), "/registry/masterleases/192.0.2.1": envelope("v1", "Endpoints", nil),
		"/registry/ranges/servicenodeports": envelope("v1", "RangeAllocation", nil), "/registry/example.org/things/old/t": []byte(`{"apiVersion":"example.org/v1","kind":"Thing"}`)}
	for key, value := range others {
		raw.Put(key, value)
	}
	s := serve(t, c, authority(t))
	for _, f := range fixtures() {
		got := s.must(200, "GET", f.path, "")
		if got.Kind != f.kind || got.APIVersion != f.apiVersion || got.Metadata.ResourceVersion != revisions[f.key] || got.Metadata.Labels["from"] != "upstream" {
			t.Errorf("%s: got %+v, want revision %s", f.path, got, revisions[f.key])
		}
	}
	if got := s.must(200, "GET", "/api/v1/namespaces/old/configmaps/hand", ""); got.Data["k"] != "by hand" || got.Metadata.ResourceVersion != hand ||
		got.Metadata.UID != "11111111-2222-4333-8444-555555555555" {
		t.Errorf("the one made by hand: %+v", got)
	}
	// A Service of upstream's holds its address.
	taken := `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"},"spec":{"clusterIP":"10.96.0.77","ports":[{"port":80}]}}`
	s.must(422, "POST", "/api/v1/namespaces/old/services", taken)
	s.must(200, "PATCH", "/api/v1/namespaces/old/configmaps/hand", `{"data":{"k":"changed"}}`)
	_, _, body := open(t, raw.Get("/registry/configmaps/old/hand").Value)
	var changed corev1.ConfigMap
	if err := changed.Unmarshal(body); err != nil || changed.Data["k"] != "changed" || changed.ResourceVersion != "" {
		t.Errorf("etcd holds %+v, %v", changed, err)
	}
	s.must(200, "DELETE", "/api/v1/namespaces/old/secrets/s", "")
	if kv := raw.Get("/registry/secrets/old/s"); kv != nil {
		t.Error("the deleted secret is in etcd")
	}
	for key, value := range others {
		if kv := raw.Get(key); kv == nil || !bytes.Equal(kv.Value, value) {
			t.Errorf("%s was changed: %v", key, kv)
		}
	}
}

// TestOursForUpstream writes by the API and reads etcd as upstream would.
func TestOursForUpstream(t *testing.T) {
	c := etcdtest.Start(t, 1)
	raw := c.Raw(t)
	s := serve(t, c, authority(t))
	s.must(201, "POST", "/api/v1/namespaces", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"old"}}`)
	s.must(201, "POST", "/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}`)
	bodies := map[string]string{
		"configmaps":             `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"v"}}`,
		"secrets":                `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"k":"AAE="}}`,
		"services":               `{"apiVersion":"v1","kind":"Service","metadata":{"name":"svc"},"spec":{"ports":[{"port":80}]}}`,
		"endpoints":              `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"svc"}}`,
		"events":                 `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"kind":"Pod","namespace":"old","name":"p"},"reason":"Because","type":"Normal"}`,
		"deployments":            `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`,
		"ingresses":              `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"i"},"spec":{"defaultBackend":{"service":{"name":"svc","port":{"number":80}}}}}`,
		"leases":                 `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"}}`,
		"roles":                  `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"r"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]}`,
		"replicationcontrollers": `{"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"rc"},"spec":{"selector":{"a":"b"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`,
	}
	for _, f := range fixtures() {
		collection := f.path[:strings.LastIndexByte(f.path, '/')]
		if body := bodies[collection[strings.LastIndexByte(collection, '/')+1:]]; body != "" {
			s.must(201, "POST", collection, body)
		}
		answered := s.must(200, "GET", f.path, "")
		kv := raw.Get(f.key)
		if kv == nil {
			t.Errorf("%s is not in etcd", f.key)
			continue
		}
		apiVersion, kind, body := open(t, kv.Value)
		if apiVersion != f.apiVersion || kind != f.kind || fmt.Sprint(kv.ModRevision) != answered.Metadata.ResourceVersion {
			t.Errorf("%s: %s %s at %d, answered was %s", f.key, apiVersion, kind, kv.ModRevision, answered.Metadata.ResourceVersion)
		}
		if !bytes.Equal(kv.Value, envelope(apiVersion, kind, body)) {
			t.Errorf("%s: the envelope differs: %q", f.key, kv.Value)
		}
		if err := f.object.Unmarshal(body); err != nil {
			t.Errorf("%s: %v", f.key, err)
			continue
		}
		o := f.object.(metav1.Object)
		if o.GetName() != answered.Metadata.Name || string(o.GetUID()) != answered.Metadata.UID || o.GetResourceVersion() != "" {
			t.Errorf("%s holds %s of %s at %q", f.key, o.GetName(), o.GetUID(), o.GetResourceVersion())
		}
		if leased := kv.Lease != 0; leased != (kind == "Event") {
			t.Errorf("%s: lease %x", f.key, kv.Lease)
		}
	}
}
