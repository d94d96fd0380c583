package validation

import (
	"strings"
	"testing"

	admregv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

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
		"toleration":   {func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Equal"}} }, []string{"spec.tolerations[0].operator FieldValueInvalid"}},
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
		"name":        {func(p *corev1.Pod) { p.Name = "q" }, []string{"metadata.name FieldValueInvalid"}},
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
