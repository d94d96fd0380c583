package validation

import (
	"strings"
	"testing"
	"time"

	admregv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/defaults"
)

var pods = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}

func newPod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c:1"}}}}
	if change != nil {
		change(p)
	}
	defaults.For(pods)(p)
	return p
}

// expect compares causes, given as "field reason"; the order does not matter.
func expect(t *testing.T, name string, got errors, want ...string) {
	t.Helper()
	left := map[string]int{}
	for _, w := range want {
		left[w]++
	}
	for _, e := range got {
		left[e.Field+" "+string(e.Type)]--
	}
	for k, n := range left {
		if n != 0 {
			t.Errorf("%s: %s: off by %d; got %v", name, k, n, got)
		}
	}
}

func TestPodCreate(t *testing.T) {
	c := func(f func(*corev1.Container)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { f(&p.Spec.Containers[0]) }
	}
	for name, x := range map[string]struct {
		change func(*corev1.Pod)
		want   []string
	}{
		"good":         {nil, nil},
		"no container": {func(p *corev1.Pod) { p.Spec.Containers = nil }, []string{"spec.containers FieldValueRequired"}},
		"bad name":     {func(p *corev1.Pod) { p.Name = "A" }, []string{"metadata.name FieldValueInvalid"}},
		"lost mount":   {c(func(c *corev1.Container) { c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}} }), []string{"spec.containers[0].volumeMounts[0].name FieldValueNotFound"}},
		"env":          {c(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{}}} }), []string{"spec.containers[0].env[0].valueFrom FieldValueInvalid"}},
		"port":         {c(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 70000}} }), []string{"spec.containers[0].ports[0].containerPort FieldValueInvalid"}},
		"probe":        {c(func(c *corev1.Container) { c.LivenessProbe = &corev1.Probe{SuccessThreshold: 2} }), []string{"spec.containers[0].livenessProbe FieldValueRequired", "spec.containers[0].livenessProbe.successThreshold FieldValueInvalid"}},
		"two volumes":  {func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "a"}, {Name: "a"}} }, []string{"spec.volumes[1].name FieldValueDuplicate"}},
		"affinity": {func(p *corev1.Pod) {
			term := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "k", Operator: "In", Values: []string{"!"}}}}
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}},
				PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: term}}}}
		}, []string{"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0] FieldValueInvalid"}},
		"spread twice": {func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "a", WhenUnsatisfiable: "DoNotSchedule"},
				{MaxSkew: 1, TopologyKey: "b", WhenUnsatisfiable: "DoNotSchedule"}, {MaxSkew: 2, TopologyKey: "a", WhenUnsatisfiable: "DoNotSchedule"}}
		}, []string{"spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable} FieldValueDuplicate"}},
		"toleration": {func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Equal"}} }, []string{"spec.tolerations[0].operator FieldValueInvalid"}},
		"host port": {func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 81}}
		}, []string{"spec.containers[0].ports[0].hostPort FieldValueInvalid"}},
	} {
		expect(t, name, For(pods).Create(newPod(x.change)), x.want...)
	}
}

func TestPodUpdate(t *testing.T) {
	old := newPod(nil)
	old.ResourceVersion = "1"
	for name, x := range map[string]struct {
		change func(*corev1.Pod)
		want   []string
	}{
		"image":      {func(p *corev1.Pod) { p.Spec.Containers[0].Image = "c:2" }, nil},
		"toleration": {func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Exists"}} }, nil},
		"node":       {func(p *corev1.Pod) { p.Spec.NodeName = "n" }, []string{"spec FieldValueForbidden"}},
		"container": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
			p.Spec.Containers[1].Name = "d"
		}, []string{"spec.containers FieldValueForbidden"}},
		"name":        {func(p *corev1.Pod) { p.Name = "q" }, []string{"metadata.name FieldValueInvalid", "metadata.name FieldValueInvalid"}},
		"grace shown": {func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, nil},
	} {
		n := old.DeepCopy()
		x.change(n)
		expect(t, name, For(pods).Update(n, old), x.want...)
	}
}

func TestWorkloads(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "n"}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	d.Spec.Template.Labels = map[string]string{"a": "b"}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "c"}}
	defaults.For(gvk)(d)
	d.ResourceVersion = "1"
	expect(t, "good", For(gvk).Create(d))
	n := d.DeepCopy()
	n.Spec.Selector.MatchLabels = map[string]string{"a": "c"}
	expect(t, "selector", For(gvk).Update(n, d), "spec.selector FieldValueInvalid", "spec.template.metadata.labels FieldValueInvalid")
	n = d.DeepCopy()
	zero := intstr.FromInt32(0)
	n.Spec.Strategy.RollingUpdate.MaxSurge, n.Spec.Strategy.RollingUpdate.MaxUnavailable = &zero, &zero
	expect(t, "stuck", For(gvk).Update(n, d), "spec.strategy.rollingUpdate.maxUnavailable FieldValueInvalid")
}

func TestIndexes(t *testing.T) {
	for s, want := range map[string]int32{"": 0, "1": 1, "0,2-4": 4, "5": -1, "3-1": -1, "a": -1, "1,1": -1} {
		n, err := indexes(s, 5)
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("indexes(%q) = %d, want %d (%v)", s, n, want, err)
		}
	}
}

func TestConfigAndSecret(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	yes := true
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", ResourceVersion: "1"}, Immutable: &yes, Data: map[string]string{"k": "v"}}
	n := old.DeepCopy()
	n.Immutable, n.Data["k"] = nil, "w"
	expect(t, "frozen", For(gvk).Update(n, old), "immutable FieldValueForbidden", "data FieldValueForbidden")
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "n"}, Type: corev1.SecretTypeTLS}
	expect(t, "tls", For(schema.GroupVersionKind{Version: "v1", Kind: "Secret"}).Create(s), "data[tls.crt] FieldValueRequired", "data[tls.key] FieldValueRequired")
}

func TestRoleRefNeverChanges(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: rbacv1.GroupName, Version: "v1", Kind: "RoleBinding"}
	old := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "n", ResourceVersion: "1"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "r"}}
	n := old.DeepCopy()
	n.RoleRef.Name = "admin"
	expect(t, "roleRef", For(gvk).Update(n, old), "roleRef FieldValueInvalid")
}

func TestPolicyExpressions(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: admissionGroup, Version: "v1", Kind: "ValidatingAdmissionPolicy"}
	o := &admregv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	o.Spec.MatchConstraints = &admregv1.MatchResources{ResourceRules: []admregv1.NamedRuleWithOperations{{RuleWithOperations: admregv1.RuleWithOperations{
		Operations: []admregv1.OperationType{"CREATE"}, Rule: admregv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}}}}
	o.Spec.Variables = []admregv1.Variable{{Name: "n", Expression: "size(object.spec.containers)"}}
	o.Spec.Validations = []admregv1.Validation{{Expression: "variables.n < 3"}, {Expression: "variables.m < 3"}, {Expression: "1 +"}}
	defaults.For(gvk)(o)
	expect(t, "policy", For(gvk).Create(o), "spec.validations[1].expression FieldValueInvalid", "spec.validations[2].expression FieldValueInvalid")
}

func TestJobIdentityIsGenerated(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "n", UID: "u"}}
	j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	j.Spec.Template.Labels = map[string]string{"a": "b", "controller-uid": "u", "job-name": "j", batchv1.ControllerUidLabel: "u", batchv1.JobNameLabel: "j"}
	j.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: "Never", Containers: []corev1.Container{{Name: "c", Image: "c"}}}
	defaults.For(gvk)(j)
	expect(t, "foreign selector", For(gvk).Create(j), "spec.selector FieldValueInvalid")
}

func TestUnknownKindChecksMetadata(t *testing.T) {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a/b"}}
	expect(t, "unknown", For(schema.GroupVersionKind{Kind: "Nothing"}).Create(c), "metadata.name FieldValueInvalid")
}

func TestPodSubresources(t *testing.T) {
	old := newPod(func(p *corev1.Pod) {
		p.ResourceVersion = "1"
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1"), "example.com/x": resource.MustParse("1")}
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"example.com/x": resource.MustParse("1")}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "e:1"}}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	})
	const eph = "spec.ephemeralContainers"
	for name, x := range map[string]struct {
		sub    string
		change func(*corev1.Pod)
		want   []string
	}{
		"as it is": {"ephemeralcontainers", func(*corev1.Pod) {}, nil},
		"one more": {"ephemeralcontainers", func(p *corev1.Pod) {
			e := p.Spec.EphemeralContainers[0]
			e.Name = "f"
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, e)
		}, nil},
		"changed": {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "e:2" }, []string{eph + forbidden}},
		"gone":    {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil }, []string{eph + forbidden}},
		"mirror": {"ephemeralcontainers", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} },
			[]string{"metadata.annotations[kubernetes.io/config.mirror]" + forbidden, "metadata.annotations[kubernetes.io/config.mirror] FieldValueInvalid"}},
		"more cpu":   {"resize", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("2") }, nil},
		"memory too": {"resize", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests["memory"] = resource.MustParse("2") }, nil},
		"no cpu":     {"resize", func(p *corev1.Pod) { delete(p.Spec.Containers[0].Resources.Requests, "cpu") }, []string{"spec FieldValueInvalid", "spec.containers[0].resources.requests" + forbidden}},
		"a device": {"resize", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["example.com/x"] = resource.MustParse("2")
			p.Spec.Containers[0].Resources.Limits["example.com/x"] = resource.MustParse("2")
		}, []string{"spec" + forbidden}},
		"two families": {"status", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}} }, nil},
		"no address":   {"status", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "here"}} }, []string{"status.podIPs[0] FieldValueInvalid"}},
		"one family":   {"status", func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "10.0.0.2"}} }, []string{"status.podIPs FieldValueInvalid"}},
		"host": {"status", func(p *corev1.Pod) {
			p.Status.HostIP = "10.0.0.1"
			p.Status.HostIPs = []corev1.HostIP{{IP: "10.0.0.2"}}
		}, []string{"status.hostIPs[0].ip FieldValueInvalid"}},
		"revived": {"status", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} }, []string{"status.containerStatuses[0].state" + forbidden}},
	} {
		n := old.DeepCopy()
		x.change(n)
		for _, e := range For(pods).Sub[x.sub](old.DeepCopy(), old) {
			t.Fatalf("%s of the pod as it is: %v", x.sub, e)
		}
		expect(t, x.sub+", "+name, For(pods).Sub[x.sub](n, old), x.want...)
	}
}

func TestRequestsAreDecided(t *testing.T) {
	rules := For(schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"})
	spec := For(schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"}).Create(&certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}})
	is := func(list ...certv1.RequestConditionType) *certv1.CertificateSigningRequest {
		r := &certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", ResourceVersion: "1"}}
		for _, c := range list {
			r.Status.Conditions = append(r.Status.Conditions, certv1.CertificateSigningRequestCondition{Type: c, Status: corev1.ConditionTrue})
		}
		return r
	}
	const yes, no, forbidden = certv1.CertificateApproved, certv1.CertificateDenied, "status.conditions FieldValueForbidden"
	with := func(r *certv1.CertificateSigningRequest, certificate string) *certv1.CertificateSigningRequest {
		r.Status.Certificate = []byte(certificate)
		return r
	}
	for name, x := range map[string]struct {
		sub      string
		old, now *certv1.CertificateSigningRequest
		want     []string
	}{
		"approved":        {"approval", is(), is(yes), nil},
		"taken back":      {"approval", is(yes), is(), []string{forbidden}},
		"both":            {"approval", is(yes), is(yes, no), []string{"status.conditions FieldValueInvalid"}},
		"twice":           {"approval", is(yes), is(yes, yes), []string{"status.conditions[1].type FieldValueDuplicate"}},
		"by the signer":   {"status", is(), is(yes), []string{forbidden}},
		"no certificate":  {"status", is(yes), with(is(yes), "none"), []string{"status.certificate FieldValueInvalid"}},
		"signed again":    {"status", with(is(yes), "a"), with(is(yes), "b"), []string{"status.certificate FieldValueForbidden", "status.certificate FieldValueInvalid"}},
		"failed":          {"status", is(yes), is(yes, certv1.CertificateFailed), nil},
		"signed by judge": {"approval", is(), with(is(yes), "a"), []string{"status.certificate FieldValueForbidden"}},
	} {
		var errs errors
		for _, e := range rules.Sub[x.sub](x.now, x.old) {
			if !strings.HasPrefix(e.Field, "spec.") { // the request itself is empty
				errs = append(errs, e)
			}
		}
		expect(t, name, errs, x.want...)
	}
	if len(spec) == 0 {
		t.Error("an empty request is good")
	}
}

func TestMetadata(t *testing.T) {
	rules := For(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", Finalizers: []string{"plain", "foregroundDeletion", "example.com/x"}}}
	expect(t, "a finalizer", rules.Create(c), "metadata.finalizers[0] FieldValueInvalid")
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", UID: "a", ResourceVersion: "1"}}
	now := old.DeepCopy()
	now.UID, now.Labels = "b", map[string]string{"not good": ""}
	bad := "metadata.labels FieldValueInvalid"
	expect(t, "an update", rules.Update(now, old), "metadata.uid FieldValueInvalid", "metadata.uid FieldValueInvalid", bad, bad, bad, bad)
	expect(t, "a kind of others", For(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Thing"}).Create(c))
}

func TestEventsLiveBesideTheirObject(t *testing.T) {
	rules := For(schema.GroupVersionKind{Version: "v1", Kind: "Event"})
	const wrong = "involvedObject.namespace FieldValueInvalid"
	for _, x := range []struct {
		event, object string
		want          []string
	}{{"n", "n", nil}, {"n", "m", []string{wrong}}, {"n", "", []string{wrong}}, {"default", "", nil}} {
		e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: x.event}, InvolvedObject: corev1.ObjectReference{Namespace: x.object}}
		expect(t, x.event+" about "+x.object, rules.Create(e), x.want...)
	}
}

func TestServiceNames(t *testing.T) {
	rules := For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
	for name, want := range map[string][]string{"1abc": nil, "abc": nil, "a.b": {"metadata.name FieldValueInvalid"}} {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n"}, Spec: corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}}
		defaults.For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})(s)
		expect(t, name, rules.Create(s), want...)
	}
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "n"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}, Ports: []corev1.ServicePort{{Port: 80}}}}
	defaults.For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})(s)
	expect(t, "a list alone", rules.Create(s), "spec.clusterIPs FieldValueInvalid")
}

func TestRevisionsOfTheSameData(t *testing.T) {
	rules := For(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ControllerRevision"})
	of := func(data string) *appsv1.ControllerRevision {
		return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "n", ResourceVersion: "1"}, Data: runtime.RawExtension{Raw: []byte(data)}}
	}
	expect(t, "reordered", rules.Update(of(`{"b":1, "a":[2]}`), of(`{"a":[2],"b":1}`)))
	expect(t, "changed", rules.Update(of(`{"a":[2],"b":2}`), of(`{"a":[2],"b":1}`)), "data FieldValueInvalid")
}

// A schema that is not structural must not bring the library down when a version selects by a field.
func TestSelectableFieldsOfNoStructure(t *testing.T) {
	c := &apiextv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"}}
	gvk := schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	c.Spec.Group, c.Spec.Scope, c.Spec.Names = "example.com", "Cluster", apiextv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"}
	c.Spec.Versions = []apiextv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, SelectableFields: []apiextv1.SelectableField{{JSONPath: ".spec.a"}},
		Schema: &apiextv1.CustomResourceValidation{OpenAPIV3Schema: &apiextv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextv1.JSONSchemaProps{
			"spec": {Type: "array", Items: &apiextv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextv1.JSONSchemaProps{{Type: "string"}}}}}}}}}
	defaults.For(gvk)(c)
	c.Status.StoredVersions = []string{"v1"}
	for _, errs := range []errors{For(gvk).Create(c), For(gvk).Update(c, c)} {
		if len(errs) == 0 {
			t.Error("the schema is good")
		}
		for _, e := range errs {
			if e.Type == field.ErrorTypeInternal {
				t.Error(e)
			}
		}
	}
}

const (
	forbidden = " FieldValueForbidden"
	wrong     = " FieldValueInvalid"
	missing   = " FieldValueRequired"
	doubled   = " FieldValueDuplicate"
	unknown   = " FieldValueNotSupported"
)

func TestPodMetadata(t *testing.T) {
	note := func(k, v string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{k: v} }
	}
	const at = "metadata.annotations["
	secure := func(v string, f corev1.SeccompProfileType) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			note(corev1.SeccompPodAnnotationKey, v)(p)
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: f}}
		}
	}
	windows := func(f func(*corev1.PodSpec)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
			f(&p.Spec)
		}
	}
	yes := true
	user := func(name string) func(*corev1.Pod) {
		return windows(func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{RunAsUserName: &name}}
		})
	}
	const runAs = "spec.containers[0].securityContext.windowsOptions.runAsUserName"
	for name, x := range map[string]struct {
		change func(*corev1.Pod)
		want   []string
	}{
		"mirror without node":   {note(corev1.MirrorPodAnnotationKey, "x"), []string{at + corev1.MirrorPodAnnotationKey + "]" + wrong}},
		"cost":                  {note(corev1.PodDeletionCost, "-5"), nil},
		"no cost":               {note(corev1.PodDeletionCost, "+5"), []string{at + corev1.PodDeletionCost + "]" + wrong}},
		"a cost too high":       {note(corev1.PodDeletionCost, "4294967296"), []string{at + corev1.PodDeletionCost + "]" + wrong}},
		"seccomp":               {note(corev1.SeccompPodAnnotationKey, "localhost/a/b"), nil},
		"no seccomp":            {note(corev1.SeccompPodAnnotationKey, "none"), []string{"metadata.annotations." + corev1.SeccompPodAnnotationKey + wrong}},
		"seccomp agrees":        {secure("runtime/default", corev1.SeccompProfileTypeRuntimeDefault), nil},
		"seccomp differs":       {secure("runtime/default", corev1.SeccompProfileTypeUnconfined), []string{"spec.securityContext.seccompProfile.type" + forbidden}},
		"apparmor":              {note(appArmorPrefix+"c", "localhost/x"), nil},
		"apparmor of another":   {note(appArmorPrefix+"d", "x"), []string{at + appArmorPrefix + "d]" + wrong, at + appArmorPrefix + "d]" + wrong}},
		"padded image":          {func(p *corev1.Pod) { p.Spec.Containers[0].Image = " c" }, []string{"spec.containers[0].image" + wrong}},
		"windows, linux fields": {windows(func(s *corev1.PodSpec) { s.HostIPC, s.ShareProcessNamespace = true, &yes }), []string{"spec.hostIPC" + forbidden, "spec.shareProcessNamespace" + forbidden}},
		"a user of a domain":    {user(`CORP\joe`), nil},
		"a user of two":         {user(`A\B\joe`), []string{runAs + wrong}},
		"a user of dots":        {user(`..`), []string{runAs + wrong}},
		"a user with a star":    {user(`j*e`), []string{runAs + wrong}},
		"process of the host": {windows(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: &yes}}
		}), []string{"spec.hostNetwork" + wrong}},
		"sysctl of the host's network": {func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net/core/somaxconn", Value: "1"}, {Name: "kernel.shm_rmid_forced", Value: "1"}}}
		}, []string{"spec.securityContext.sysctls[0].name" + wrong}},
		"rules without a policy": {func(p *corev1.Pod) {
			p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Stop", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "Is"}}}
		}, []string{"spec.containers[0].restartPolicy" + missing, "spec.containers[0].restartPolicyRules[0].action" + unknown, "spec.containers[0].restartPolicyRules[0].exitCodes.operator" + unknown}},
	} {
		expect(t, name, For(pods).Create(newPod(x.change)), x.want...)
	}
	padded := corev1.PodTemplateSpec{Spec: newPod(func(p *corev1.Pod) { p.Spec.Containers[0].Image = " c" }).Spec}
	expect(t, "padded image of a template", podTemplate(&padded, field.NewPath("template")))
}

func TestLabelKeys(t *testing.T) {
	term := func(match, mismatch []string, exprs ...string) *corev1.PodAffinityTerm {
		a := &corev1.PodAffinityTerm{TopologyKey: "zone", MatchLabelKeys: match, MismatchLabelKeys: mismatch, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}
		for _, k := range exprs {
			a.LabelSelector.MatchExpressions = append(a.LabelSelector.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: "In", Values: []string{"v"}})
		}
		return a
	}
	p := field.NewPath("t")
	expect(t, "merged", podTerm(term([]string{"hash"}, nil, "hash"), p))
	expect(t, "twice", podTerm(term([]string{"hash", "hash"}, nil, "hash", "hash"), p), "t[1]"+wrong)
	expect(t, "named by the selector", podTerm(term([]string{"app"}, nil, "app"), p), "t[0]"+wrong)
	expect(t, "mismatch may be narrowed", podTerm(term(nil, []string{"app"}, "app"), p))
	expect(t, "match and mismatch", podTerm(term([]string{"x"}, []string{"x"}), p), "t.matchLabelKeys[0]"+wrong)
	none := term([]string{"x"}, nil)
	none.LabelSelector = nil
	expect(t, "without a selector", podTerm(none, p), "t.matchLabelKeys"+forbidden)
}

func TestPodChanges(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	always := corev1.ContainerRestartPolicyAlways
	old := newPod(func(p *corev1.Pod) {
		p.ResourceVersion = "1"
		p.Annotations = map[string]string{appArmorPrefix + "c": "unconfined"}
		p.Spec.ActiveDeadlineSeconds = seconds(10)
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "b"}}
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i"}, {Name: "side", Image: "s", RestartPolicy: &always}}
		p.Status.QOSClass = corev1.PodQOSBestEffort
		done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: done}, {Name: "side", State: done}}
	})
	for name, x := range map[string]struct {
		sub    string
		change func(*corev1.Pod)
		want   []string
	}{
		"apparmor goes": {"", func(p *corev1.Pod) { p.Annotations = nil }, []string{"metadata.annotations[" + appArmorPrefix + "c]" + forbidden}},
		"sooner":        {"", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = seconds(5) }, nil},
		"later":         {"", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = seconds(50) }, []string{"spec.activeDeadlineSeconds" + wrong}},
		"a gate opens":  {"", func(p *corev1.Pod) { p.Spec.SchedulingGates = p.Spec.SchedulingGates[:1] }, nil},
		"another gate":  {"", func(p *corev1.Pod) { p.Spec.SchedulingGates[1].Name = "c" }, []string{"spec.schedulingGates[1].name" + forbidden}},
		"narrowed":      {"", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, nil},
		"condition":     {"status", func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{{Type: "not a name"}} }, []string{"metadata.conditions[0].Type" + wrong}},
		"class":         {"status", func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSBurstable }, []string{"status.qosClass" + wrong}},
		"init again":    {"status", func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].State = corev1.ContainerState{} }, []string{"status.initContainerStatuses[0].state" + forbidden}},
		"sidecar again": {"status", func(p *corev1.Pod) { p.Status.InitContainerStatuses[1].State = corev1.ContainerState{} }, nil},
		"a claim not asked": {"status", func(p *corev1.Pod) {
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}, {Name: "x"}}
		}, []string{"status.resourceClaimStatuses[0].name" + wrong, "status.resourceClaimStatuses[1].name" + wrong, "status.resourceClaimStatuses[1].name" + doubled}},
		"no user": {"status", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: -1}},
				AllocatedResourcesStatus: []corev1.ResourceStatus{{Name: "example.com/gpu", Resources: []corev1.ResourceHealth{{ResourceID: "a", Health: "Fine"}, {ResourceID: "a", Health: "Healthy"}}}}}}
		}, []string{"status.containerStatuses[0].linux.uid" + wrong, "status.containerStatuses[0].allocatedResourcesStatus[0].name" + wrong,
			"status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health" + unknown, "status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].resourceID" + doubled}},
		"init resized": {"resize", func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
		},
			[]string{"spec" + wrong, "spec" + forbidden}},
	} {
		n := old.DeepCopy()
		x.change(n)
		check := For(pods).Update
		if x.sub != "" {
			check = For(pods).Sub[x.sub]
		}
		expect(t, name, check(n, old), x.want...)
	}
}

func TestServiceChanges(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	single, local := corev1.IPFamilyPolicySingleStack, corev1.ServiceExternalTrafficPolicyLocal
	old := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "n", ResourceVersion: "1"}}
	old.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	old.Spec.ClusterIP, old.Spec.ClusterIPs, old.Spec.IPFamilies, old.Spec.IPFamilyPolicy = "10.0.0.1", []string{"10.0.0.1"}, []corev1.IPFamily{"IPv4"}, &single
	defaults.For(gvk)(old)
	balanced := old.DeepCopy()
	balanced.Spec.Type, balanced.Spec.ExternalTrafficPolicy, balanced.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, local, 30001
	defaults.For(gvk)(balanced)
	for name, x := range map[string]struct {
		from   *corev1.Service
		change func(*corev1.ServiceSpec)
		want   []string
	}{
		"nothing":         {old, func(*corev1.ServiceSpec) {}, nil},
		"another address": {old, func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "10.0.0.2", []string{"10.0.0.2"} }, []string{"spec.clusterIPs[0]" + wrong}},
		"no address":      {old, func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "", nil }, []string{"spec.clusterIPs[0]" + wrong}},
		"another family":  {old, func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv6"} }, []string{"spec.ipFamilies[0]" + wrong, "spec.clusterIPs[0]" + wrong}},
		"an external name": {old, func(s *corev1.ServiceSpec) {
			*s = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "a.b", SessionAffinity: "None", InternalTrafficPolicy: s.InternalTrafficPolicy, Ports: s.Ports}
		}, nil},
		"same load balancer": {balanced, func(*corev1.ServiceSpec) {}, nil},
		"another check":      {balanced, func(s *corev1.ServiceSpec) { s.HealthCheckNodePort = 30002 }, []string{"spec.healthCheckNodePort" + forbidden}},
		"no check":           {balanced, func(s *corev1.ServiceSpec) { s.HealthCheckNodePort = 0 }, []string{"spec.healthCheckNodePort" + forbidden, "spec.healthCheckNodePort" + missing}},
		"two node ports": {balanced, func(s *corev1.ServiceSpec) {
			s.Ports = []corev1.ServicePort{{Name: "a", Port: 80, Protocol: "TCP", NodePort: 30005, TargetPort: intstr.FromInt32(1)}, {Name: "b", Port: 81, Protocol: "TCP", NodePort: 30005, TargetPort: intstr.FromInt32(1)}}
		}, []string{"spec.ports[1].nodePort" + doubled}},
	} {
		n := x.from.DeepCopy()
		x.change(&n.Spec)
		expect(t, name, For(gvk).Update(n, x.from), x.want...)
	}
}

func TestStorageChanges(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "PersistentVolumeClaim"}
	gold, slow := "gold", "slow"
	old := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", ResourceVersion: "1"}}
	old.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}
	old.Spec.Resources.Requests = corev1.ResourceList{"storage": resource.MustParse("8Gi")}
	old.Spec.VolumeAttributesClassName = &gold
	old.Status.Phase = corev1.ClaimBound
	old.Status.Capacity = corev1.ResourceList{"storage": resource.MustParse("4Gi")}
	old.Status.CurrentVolumeAttributesClassName = &gold
	defaults.For(gvk)(old)
	size := func(s string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests["storage"] = resource.MustParse(s) }
	}
	const requested = "spec.resources.requests.storage"
	for name, x := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   []string
	}{
		"larger":           {size("9Gi"), nil},
		"smaller":          {size("5Gi"), nil},
		"as small as held": {size("4Gi"), []string{requested + forbidden}},
		"another class":    {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = &slow }, nil},
		"no class":         {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = nil }, []string{"spec" + forbidden, "spec.volumeAttributesClassName" + forbidden}},
		"storage class":    {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &slow }, nil},
		"old annotation": {func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: "x"}
		},
			[]string{"metadata.annotations[" + corev1.BetaStorageClassAnnotation + "]" + wrong}},
	} {
		n := old.DeepCopy()
		x.change(n)
		expect(t, name, For(gvk).Update(n, old), x.want...)
	}
	n := old.DeepCopy()
	n.Status.AllocatedResources = corev1.ResourceList{"cpu": resource.MustParse("1"), "storage": resource.MustParse("1Gi")}
	n.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{"storage": "Lost"}
	expect(t, "claim status", For(gvk).Sub["status"](n, old), "status.allocatedResources"+unknown, "status.allocatedResourceStatus"+unknown)

	zone := func(key string) *corev1.VolumeNodeAffinity {
		return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: "In", Values: []string{"a"}}}}}}}
	}
	for to, want := range map[string]bool{corev1.LabelFailureDomainBetaZone: true, corev1.LabelTopologyZone: true, corev1.LabelTopologyRegion: false} {
		if got := sameAffinity(zone(to), zone(corev1.LabelFailureDomainBetaZone)); got != want {
			t.Errorf("the zone becomes %s: same is %v", to, got)
		}
	}
	expect(t, "terms that ask for nothing", topologies(make([]corev1.TopologySelectorTerm, 2), field.NewPath("t")), "t[0].matchLabelExpressions"+doubled, "t[0].matchLabelExpressions"+doubled,
		"t[1].matchLabelExpressions"+doubled, "t[1].matchLabelExpressions"+doubled, "t[1].matchLabelExpressions"+doubled)
}

func TestNodesAndQuotas(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Node"}
	old := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "1"}, Spec: corev1.NodeSpec{DoNotUseExternalID: "a"}}
	n := old.DeepCopy()
	n.Spec.DoNotUseExternalID = "b"
	n.Spec.ConfigSource = &corev1.NodeConfigSource{}
	n.Status.Addresses = []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}, {Type: "InternalIP", Address: "10.0.0.1"}}
	expect(t, "node", For(gvk).Update(n, old), "spec.externalID"+forbidden, "spec.configSource"+wrong, "status.addresses[1]"+doubled)
	expect(t, "node status", For(gvk).Sub["status"](n, old), "spec.externalID"+forbidden, "spec.configSource"+wrong, "status.addresses[1]"+doubled)
	n = old.DeepCopy()
	n.Status.Config = &corev1.NodeConfigStatus{Active: &corev1.NodeConfigSource{ConfigMap: &corev1.ConfigMapNodeConfigSource{Name: "c", Namespace: "n", KubeletConfigKey: "k"}}}
	expect(t, "node config", For(gvk).Update(n, old), "status.config.active.configMap.uid"+missing, "status.config.active.configMap.resourceVersion"+missing)
	expect(t, "ranges", podCIDRs([]string{"10.0.0.0/24", "x"}), "spec.podCIDRs[1]"+wrong, "spec.podCIDRs InternalError", "spec.podCIDRs"+wrong)

	q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("1"), "cpu": resource.MustParse("1"), "services": resource.MustParse("1")}}}
	for scope, n := range map[corev1.ResourceQuotaScope]int{corev1.ResourceQuotaScopeBestEffort: 2, corev1.ResourceQuotaScopeTerminating: 1, corev1.ResourceQuotaScopeVolumeAttributesClass: 3} {
		q.Spec.Scopes = []corev1.ResourceQuotaScope{scope}
		if got := resourceQuota(q); len(got) != n {
			t.Errorf("%s cannot count %d of the resources: %v", scope, n, got)
		}
	}
}

func TestJobStatus(t *testing.T) {
	gvk := schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}
	at, later := metav1.NewTime(time.Unix(100, 0)), metav1.NewTime(time.Unix(200, 0))
	is := func(types ...batchv1.JobConditionType) (out []batchv1.JobCondition) {
		for _, c := range types {
			out = append(out, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue})
		}
		return out
	}
	running := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "n", ResourceVersion: "1"}, Status: batchv1.JobStatus{StartTime: &at, Active: 1, Failed: 2}}
	failed := running.DeepCopy()
	failed.Status.Active, failed.Status.Conditions = 0, is(batchv1.JobFailureTarget, batchv1.JobFailed)
	three := int32(3)
	for name, x := range map[string]struct {
		old    *batchv1.Job
		change func(*batchv1.JobStatus)
		want   []string
	}{
		"complete": {running, func(s *batchv1.JobStatus) {
			s.Active, s.Succeeded, s.CompletionTime, s.Conditions = 0, 1, &later, is(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
		}, nil},
		"complete at once": {running, func(s *batchv1.JobStatus) { s.Conditions = is(batchv1.JobComplete) }, []string{"status.conditions" + wrong, "status.completionTime" + missing, "status.active" + wrong}},
		"failed at once":   {running, func(s *batchv1.JobStatus) { s.Active, s.Conditions = 0, is(batchv1.JobFailed) }, []string{"status.conditions" + wrong}},
		"ended before":     {running, func(s *batchv1.JobStatus) { s.CompletionTime = &metav1.Time{Time: time.Unix(1, 0)} }, []string{"status.completionTime" + wrong, "status.completionTime" + wrong}},
		"restarted":        {running, func(s *batchv1.JobStatus) { s.StartTime = &later }, []string{"status.startTime" + wrong}},
		"fewer failures":   {running, func(s *batchv1.JobStatus) { s.Failed = 1 }, []string{"status.failed" + wrong}},
		"more ready":       {running, func(s *batchv1.JobStatus) { s.Ready = &three }, []string{"status.ready" + wrong}},
		"indexes":          {running, func(s *batchv1.JobStatus) { s.CompletedIndexes = "1" }, []string{"status.completedIndexes" + wrong}},
		"uncounted": {running, func(s *batchv1.JobStatus) {
			s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a", ""}, Failed: []types.UID{"a"}}
		}, []string{"status.uncountedTerminatedPods.succeeded[1]" + wrong, "status.uncountedTerminatedPods.failed[0]" + doubled}},
		"alive again":      {failed, func(s *batchv1.JobStatus) { s.Conditions = nil }, []string{"status.conditions" + wrong, "status.conditions" + wrong}},
		"failed, as it is": {failed, func(*batchv1.JobStatus) {}, nil},
		"failed, and complete": {failed, func(s *batchv1.JobStatus) {
			s.CompletionTime = &later
			s.Conditions = append(s.Conditions, is(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)...)
		}, []string{"status.conditions" + wrong, "status.conditions" + wrong, "status.conditions" + wrong, "status.conditions" + wrong}},
	} {
		n := x.old.DeepCopy()
		x.change(&n.Status)
		expect(t, name, For(gvk).Sub["status"](n, x.old), x.want...)
	}
}

func TestDevices(t *testing.T) {
	q := func(s string) *resource.Quantity {
		v := resource.MustParse(s)
		return &v
	}
	values := func(list ...string) (out []resource.Quantity) {
		for _, s := range list {
			out = append(out, *q(s))
		}
		return out
	}
	p := field.NewPath("c")
	for name, x := range map[string]struct {
		policy *resourcev1.CapacityRequestPolicy
		shared bool
		want   []string
	}{
		"none":               {nil, false, nil},
		"of a whole device":  {&resourcev1.CapacityRequestPolicy{}, false, []string{"c.requestPolicy" + forbidden}},
		"values":             {&resourcev1.CapacityRequestPolicy{Default: q("1"), ValidValues: values("1", "2")}, true, nil},
		"no default":         {&resourcev1.CapacityRequestPolicy{ValidValues: values("1")}, true, []string{"c.requestPolicy.default" + missing}},
		"another default":    {&resourcev1.CapacityRequestPolicy{Default: q("3"), ValidValues: values("1", "2")}, true, []string{"c.requestPolicy.validValues" + wrong}},
		"unsorted and twice": {&resourcev1.CapacityRequestPolicy{Default: q("2"), ValidValues: values("2", "1", "2")}, true, []string{"c.requestPolicy.validValues[1]" + wrong, "c.requestPolicy.validValues[2]" + doubled}},
		"too much":           {&resourcev1.CapacityRequestPolicy{Default: q("1"), ValidValues: values("1", "99")}, true, []string{"c.requestPolicy.validValues[1]" + wrong}},
		"range":              {&resourcev1.CapacityRequestPolicy{Default: q("4"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("2"), Max: q("8"), Step: q("2")}}, true, nil},
		"off the steps":      {&resourcev1.CapacityRequestPolicy{Default: q("5"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("2"), Max: q("8"), Step: q("2")}}, true, []string{"c.requestPolicy.validRange.step" + wrong}},
		"no step":            {&resourcev1.CapacityRequestPolicy{Default: q("5"), ValidRange: &resourcev1.CapacityRequestPolicyRange{Min: q("2"), Step: q("0")}}, true, []string{"c.requestPolicy.validRange.step" + wrong}},
		"no least":           {&resourcev1.CapacityRequestPolicy{Default: q("5"), ValidRange: &resourcev1.CapacityRequestPolicyRange{}}, true, []string{"c.requestPolicy.validRange.min" + missing}},
		"both":               {&resourcev1.CapacityRequestPolicy{Default: q("1"), ValidValues: values("1"), ValidRange: &resourcev1.CapacityRequestPolicyRange{}}, true, []string{"c.requestPolicy" + forbidden}},
	} {
		expect(t, name, capacity(&resourcev1.DeviceCapacity{Value: *q("10"), RequestPolicy: x.policy}, x.shared, p), x.want...)
	}
	expect(t, "conditions", bindingConditions([]string{"a", "a", "b"}, []string{"b"}, p), "c.bindingConditions[1]"+doubled, "c.bindingFailureConditions[0]"+wrong)
	expect(t, "too many", bindingConditions(make([]string, 5), []string{"b"}, p), "c.bindingConditions FieldValueTooMany", "c.bindingConditions[1]"+doubled, "c.bindingConditions[2]"+doubled, "c.bindingConditions[3]"+doubled, "c.bindingConditions[4]"+doubled)
	text, number := "a", int64(1)
	expect(t, "no value", attribute(&resourcev1.DeviceAttribute{}, p), "c"+wrong)
	expect(t, "two values", attribute(&resourcev1.DeviceAttribute{StringValue: &text, IntValue: &number}, p), "c"+wrong)
	expect(t, "an empty list", attribute(&resourcev1.DeviceAttribute{IntValues: []int64{}}, p), "c.ints"+wrong)

	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", ResourceVersion: "1"}}
	claim.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "x", AllocationMode: "All"}}}
	gvk := schema.GroupVersionKind{Group: "resource.k8s.io", Version: "v1", Kind: "ResourceClaim"}
	taken := claim.DeepCopy()
	taken.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "d.example.com", Pool: "p", Device: "d"}}}}
	taken.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	expect(t, "allocated", For(gvk).Sub["status"](taken, claim))
	n := taken.DeepCopy()
	n.Status.Allocation.Devices.Results[0].Device = "e"
	expect(t, "allocated once", For(gvk).Sub["status"](n, taken), "status.allocation"+wrong)
	n = taken.DeepCopy()
	n.Status.Allocation.Devices.Results[0].Request = "nic"
	n.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "d.example.com", Pool: "p", Device: "other", NetworkData: &resourcev1.NetworkDeviceData{IPs: []string{"10.0.0.1"}}}}
	expect(t, "another's device", For(gvk).Sub["status"](n, claim), "status.allocation.devices.results[0].request"+wrong, "status.devices[0]"+wrong, "status.devices[0].networkData.ips[0]"+wrong)
	n = taken.DeepCopy()
	n.Status.Allocation = nil
	expect(t, "in use of nothing", For(gvk).Sub["status"](n, claim), "status.reservedFor"+forbidden)
}

func TestAutoscalers(t *testing.T) {
	target := func(version, kind string) func(*asv2.HorizontalPodAutoscalerSpec) {
		return func(s *asv2.HorizontalPodAutoscalerSpec) {
			s.ScaleTargetRef.APIVersion, s.ScaleTargetRef.Kind = version, kind
		}
	}
	metric := func(m asv2.MetricSpec) func(*asv2.HorizontalPodAutoscalerSpec) {
		return func(s *asv2.HorizontalPodAutoscalerSpec) { s.Metrics = []asv2.MetricSpec{m} }
	}
	one := resource.MustParse("1")
	object := &asv2.ObjectMetricSource{DescribedObject: asv2.CrossVersionObjectReference{APIVersion: "a/b/c", Kind: "K", Name: "n"},
		Metric: asv2.MetricIdentifier{Name: "m"}, Target: asv2.MetricTarget{Type: asv2.ValueMetricType, Value: &one}}
	for name, x := range map[string]struct {
		change func(*asv2.HorizontalPodAutoscalerSpec)
		want   []string
	}{
		"a controller":      {target("v1", "ReplicationController"), nil},
		"no version":        {target("", "ReplicationController"), nil},
		"of the core":       {target("v1", "Pod"), []string{"spec.scaleTargetRef.apiVersion" + wrong}},
		"a version alone":   {target("v7beta1", "Deployment"), []string{"spec.scaleTargetRef.apiVersion" + wrong}},
		"two slashes":       {target("a/b/c", "Deployment"), []string{"spec.scaleTargetRef.apiVersion" + wrong}},
		"described":         {metric(asv2.MetricSpec{Type: asv2.ObjectMetricSourceType, Object: object}), []string{"spec.metrics[0].object.describedObject.apiVersion" + wrong}},
		"two other sources": {metric(asv2.MetricSpec{Type: asv2.ResourceMetricSourceType, External: &asv2.ExternalMetricSource{}, Object: object}), []string{"spec.metrics[0].object.describedObject.apiVersion" + wrong, "spec.metrics[0].resource" + missing, "spec.metrics[0].object" + forbidden, "spec.metrics[0].external" + forbidden}},
	} {
		o := &asv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "n"}, Spec: asv2.HorizontalPodAutoscalerSpec{MaxReplicas: 2,
			ScaleTargetRef: asv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}}}
		x.change(&o.Spec)
		expect(t, name, For(schema.GroupVersionKind{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}).Create(o), x.want...)
	}
}
