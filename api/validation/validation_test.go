package validation

import (
	"strings"
	"testing"

	admregv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

func TestSchedules(t *testing.T) {
	for s, want := range map[string]string{
		"*/5 * * * *": "", "0 0 1 JAN mon-fri": "", "@hourly": "", "@every 1h": "",
		"* * * *": "expected exactly 5 fields, found 4", "60 * * * *": "above maximum", "@sometimes": "unrecognized descriptor", "*/0 * * * *": "positive number", "5-1 * * * *": "beyond end",
	} {
		err := parseSchedule(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("parseSchedule(%q) = %v, want %q", s, err, want)
		}
	}
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
	const eph, forbidden = "spec.ephemeralContainers", " FieldValueForbidden"
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
		"changed":    {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "e:2" }, []string{eph + forbidden}},
		"gone":       {"ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil }, []string{eph + forbidden}},
		"mirror":     {"ephemeralcontainers", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, []string{"<nil>" + forbidden}},
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
		var want []string
		for _, w := range x.want {
			want = append(want, strings.Replace(w, "<nil>", field.NewPath("").String(), 1))
		}
		for _, e := range For(pods).Sub[x.sub](old.DeepCopy(), old) {
			t.Fatalf("%s of the pod as it is: %v", x.sub, e)
		}
		expect(t, x.sub+", "+name, For(pods).Sub[x.sub](n, old), want...)
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
