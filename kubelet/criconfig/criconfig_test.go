package criconfig

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExpand(t *testing.T) {
	known := func(n string) (string, bool) { v, ok := map[string]string{"A": "1", "B": ""}[n]; return v, ok }
	for in, want := range map[string]string{"": "", "x": "x", "$(A)": "1", "a$(A)b$(B)c": "a1bc", "$$(A)": "$(A)", "$(C)": "$(C)", "$(A": "$(A", "$A": "$A", "$": "$", "$$$(A)": "$1"} {
		if got := Expand(in, known); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

type lookup struct{}

func (lookup) ConfigMap(string) (*corev1.ConfigMap, error) {
	return &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}, nil
}
func (lookup) Secret(string) (*corev1.Secret, error) {
	return &corev1.Secret{Data: map[string][]byte{"s": []byte("x")}}, nil
}

func testPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"l": "v"}},
		Spec: corev1.PodSpec{NodeName: "n1", DNSPolicy: corev1.DNSClusterFirst}}
}

func TestEnv(t *testing.T) {
	field := func(p string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: p}}
	}
	limit := func(r, div string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: r, Divisor: resource.MustParse(div)}}
	}
	c := &corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1500m")}},
		EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{}}, {SecretRef: &corev1.SecretEnvSource{}}},
		Env: []corev1.EnvVar{{Name: "P_b", Value: "own"}, {Name: "X", Value: "$(P_a)-$(WEB_SERVICE_HOST)"}, {Name: "LABEL", ValueFrom: field("metadata.labels['l']")},
			{Name: "IPS", ValueFrom: field("status.podIPs")}, {Name: "NODE", ValueFrom: field("spec.nodeName")}, {Name: "CPU", ValueFrom: limit("limits.cpu", "1")},
			{Name: "MILLI", ValueFrom: limit("limits.cpu", "1m")}, {Name: "MEM", ValueFrom: limit("limits.memory", "1Mi")}}}
	services := []*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.2", Ports: []corev1.ServicePort{{Name: "h-t", Port: 80, Protocol: "TCP"}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: "ns"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 443}}}}}
	facts := &Facts{Lookup: lookup{}, Services: services, PodIPs: []string{"1.1.1.1", "::2"}, Allocatable: corev1.ResourceList{"memory": resource.MustParse("1Gi")}}
	pod := testPod()
	vars, err := Env(pod, c, facts)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range vars {
		got[v.Name] = v.Value
	}
	for k, want := range map[string]string{"P_a": "1", "P_b": "own", "s": "x", "X": "1-10.0.0.2", "LABEL": "v", "IPS": "1.1.1.1,::2", "NODE": "n1", "CPU": "2", "MILLI": "1500", "MEM": "1024",
		"WEB_SERVICE_PORT_H_T": "80", "WEB_PORT_80_TCP_ADDR": "10.0.0.2", "WEB_PORT": "tcp://10.0.0.2:80", "KUBERNETES_SERVICE_HOST": "10.0.0.1"} {
		if got[k] != want {
			t.Errorf("%s=%q, want %q", k, got[k], want)
		}
	}
	no := false
	pod.Spec.EnableServiceLinks = &no
	if vars, err = Env(pod, &corev1.Container{}, facts); err != nil || slices.ContainsFunc(vars, func(v Var) bool { return strings.HasPrefix(v.Name, "WEB_") }) || len(vars) == 0 {
		t.Errorf("without links: %v %v", vars, err)
	}
	_, err = Env(pod, &corev1.Container{Env: []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "none"}}}}}, facts)
	if err == nil || err.Error() != "couldn't find key none in Secret ns/sec" {
		t.Error(err)
	}
}

func TestResolver(t *testing.T) {
	d := &DNS{Servers: []string{"10.96.0.10"}, Domain: "cluster.local", Host: "search corp.example\nnameserver 192.0.2.53\noptions edns0\n"}
	show := func(c *runtimeapi.DNSConfig) string { return fmt.Sprint(c.Servers, c.Searches, c.Options) }
	cluster := "[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example] [ndots:5]"
	host := "[192.0.2.53] [corp.example] [edns0]"
	two := "2"
	for _, tc := range []struct {
		name string
		fn   func(*corev1.PodSpec)
		want string
	}{
		{"cluster first", func(*corev1.PodSpec) {}, cluster},
		{"default", func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSDefault }, host},
		{"host network", func(s *corev1.PodSpec) { s.HostNetwork = true }, host},
		{"host network, cluster first", func(s *corev1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet }, cluster},
		{"none", func(s *corev1.PodSpec) {
			s.DNSPolicy, s.DNSConfig = corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"x"}}
		}, "[1.1.1.1] [x] []"},
		{"options win", func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "rotate"}}}
		}, "[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example] [ndots:2 rotate]"},
	} {
		p := testPod()
		tc.fn(&p.Spec)
		if got := show(d.Resolver(p)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestResourcesAndQOS(t *testing.T) {
	list := func(cpu, mem string) corev1.ResourceList {
		out := corev1.ResourceList{}
		if cpu != "" {
			out["cpu"] = resource.MustParse(cpu)
		}
		if mem != "" {
			out["memory"] = resource.MustParse(mem)
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		req, lim corev1.ResourceList
		parent   string
		want     string
	}{
		{"nothing", nil, nil, "/k/kubepods/besteffort/podu", "shares 2 quota 0 memory 0 oom 1000"},
		{"guaranteed", list("500m", "64Mi"), list("500m", "64Mi"), "/k/kubepods/podu", "shares 512 quota 50000 memory 67108864 oom -997"},
		{"limits only", nil, list("1", "64Mi"), "/k/kubepods/podu", "shares 1024 quota 100000 memory 67108864 oom -997"},
		{"burstable", list("100m", "256Mi"), list("", ""), "/k/kubepods/burstable/podu", "shares 102 quota 0 memory 0 oom 750"},
		{"tiny", list("1m", ""), list("1m", ""), "/k/kubepods/burstable/podu", "shares 2 quota 1000 memory 0 oom 999"},
	} {
		p := testPod()
		p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: tc.req, Limits: tc.lim}}}
		r := ContainerResources(p, &p.Spec.Containers[0], 1<<30)
		if got := fmt.Sprintf("shares %d quota %d memory %d oom %d", r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes, r.OomScoreAdj); got != tc.want || CgroupParent("/k", p) != tc.parent {
			t.Errorf("%s: %s %s", tc.name, got, CgroupParent("/k", p))
		}
	}
}

func TestNonRoot(t *testing.T) {
	yes, zero, some := true, int64(0), int64(7)
	for _, tc := range []struct {
		name  string
		sc    *corev1.SecurityContext
		image *runtimeapi.Image
		error string
	}{
		{"root image allowed", nil, &runtimeapi.Image{}, ""},
		{"root image", &corev1.SecurityContext{RunAsNonRoot: &yes}, &runtimeapi.Image{}, "image will run as root"},
		{"root user", &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &zero}, &runtimeapi.Image{}, "breaks non-root policy"},
		{"named user", &corev1.SecurityContext{RunAsNonRoot: &yes}, &runtimeapi.Image{Username: "alice"}, "non-numeric user (alice)"},
		{"numeric user", &corev1.SecurityContext{RunAsNonRoot: &yes}, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 7}}, ""},
		{"given user", &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &some}, &runtimeapi.Image{}, ""},
	} {
		p := testPod()
		p.Spec.Containers = []corev1.Container{{Name: "c", SecurityContext: tc.sc}}
		_, err := Container(&ContainerInput{Pod: p, Container: &p.Spec.Containers[0], Node: &Node{}, Image: tc.image})
		if tc.error == "" && err != nil || tc.error != "" && (err == nil || !strings.Contains(err.Error(), tc.error)) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestHosts(t *testing.T) {
	p := testPod()
	p.Spec.Subdomain = "sub"
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}}
	host, domain := Hostname(p, "n1", "cluster.local")
	text := Hosts(p, []string{"10.0.0.9"}, host, domain, "")
	for _, want := range []string{"10.0.0.9\tp.sub.ns.svc.cluster.local\tp\n", "# Entries added by HostAliases.\n1.2.3.4\ta\tb\n", "127.0.0.1\tlocalhost\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	p.Spec.HostNetwork = true
	if text = Hosts(p, nil, "n1", "", "9.9.9.9\tx\n"); !strings.HasPrefix(text, "# Kubernetes-managed hosts file (host network).\n9.9.9.9\tx\n") {
		t.Error(text)
	}
}
