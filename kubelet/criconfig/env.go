// Package criconfig turns a pod and one of its containers into what a CRI runtime is asked for: environment, command,
// security, resources, names, DNS. kubelet/podrun calls it just before a sandbox or container is made. It is pure: what
// it needs of the API or the node is passed in. Volumes are not its business.
package criconfig

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Lookup finds objects of the pod's namespace that an environment refers to. Its errors are those of the API.
type Lookup interface {
	ConfigMap(name string) (*corev1.ConfigMap, error)
	Secret(name string) (*corev1.Secret, error)
}

// Facts are what a container's environment may refer to besides the spec.
type Facts struct {
	Lookup      Lookup
	Services    []*corev1.Service
	PodIPs      []string
	HostIPs     []string
	Allocatable corev1.ResourceList
}

type environ struct {
	names  []string
	values map[string]string
}

func (e *environ) set(name, value string) {
	if _, had := e.values[name]; !had {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// Var is one variable.
type Var struct{ Name, Value string }

// Env returns the environment of a container: services, then envFrom, then env, a later one of a name winning.
func Env(pod *corev1.Pod, c *corev1.Container, f *Facts) ([]Var, error) {
	services := serviceEnv(pod, f.Services)
	out := &environ{values: map[string]string{}}
	for i := range c.EnvFrom {
		if err := envFrom(out, &c.EnvFrom[i], f.Lookup); err != nil {
			return nil, err
		}
	}
	known := func(name string) (string, bool) {
		if v, ok := out.values[name]; ok {
			return v, true
		}
		v, ok := services.values[name]
		return v, ok
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, ok, err := envValue(pod, c, v, f, known)
		if err != nil {
			return nil, err
		}
		if ok {
			out.set(v.Name, value)
		}
	}
	vars := make([]Var, 0, len(out.names)+len(services.names))
	for _, n := range out.names {
		vars = append(vars, Var{n, out.values[n]})
	}
	for _, n := range services.names {
		if _, had := out.values[n]; !had {
			vars = append(vars, Var{n, services.values[n]})
		}
	}
	return vars, nil
}

func envFrom(out *environ, from *corev1.EnvFromSource, look Lookup) error {
	add := func(keys []string, get func(string) string) {
		slices.Sort(keys)
		for _, k := range keys {
			name := from.Prefix + k
			if len(validation.IsRelaxedEnvVarName(name)) == 0 {
				out.set(name, get(k))
			}
		}
	}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := look.ConfigMap(from.ConfigMapRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(from.ConfigMapRef.Optional) {
				return nil
			}
			return err
		}
		add(keysOf(cm.Data), func(k string) string { return cm.Data[k] })
	case from.SecretRef != nil:
		s, err := look.Secret(from.SecretRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && optional(from.SecretRef.Optional) {
				return nil
			}
			return err
		}
		add(keysOf(s.Data), func(k string) string { return string(s.Data[k]) })
	}
	return nil
}

func optional(b *bool) bool { return b != nil && *b }

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

func envValue(pod *corev1.Pod, c *corev1.Container, v *corev1.EnvVar, f *Facts, known func(string) (string, bool)) (string, bool, error) {
	from := v.ValueFrom
	if from == nil || v.Value != "" {
		return Expand(v.Value, known), true, nil
	}
	switch {
	case from.FieldRef != nil:
		value, err := Field(pod, from.FieldRef.FieldPath, f)
		return value, true, err
	case from.ResourceFieldRef != nil:
		target := c
		if from.ResourceFieldRef.ContainerName != "" {
			target = containerNamed(pod, from.ResourceFieldRef.ContainerName)
		}
		value, err := ResourceField(target, from.ResourceFieldRef, f.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		cm, err := f.Lookup.ConfigMap(r.Name)
		if err != nil {
			return "", false, missing(err, r.Optional)
		}
		if value, ok := cm.Data[r.Key]; ok {
			return value, true, nil
		}
		if optional(r.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		s, err := f.Lookup.Secret(r.Name)
		if err != nil {
			return "", false, missing(err, r.Optional)
		}
		if value, ok := s.Data[r.Key]; ok {
			return string(value), true, nil
		}
		if optional(r.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
	}
	return "", false, fmt.Errorf("variable %s has a source that this node does not know", v.Name)
}

func missing(err error, opt *bool) error {
	if apierrors.IsNotFound(err) && optional(opt) {
		return nil
	}
	return err
}

// containerNamed returns a container or init container of the pod, or nil.
func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// Expand replaces $(NAME) by its value and $$ by $; a name that is not known stays as written.
func Expand(s string, known func(string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString(s[i : i+2])
				i++
				continue
			}
			if v, ok := known(s[i+2 : i+end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// Field returns the value of a downward API path.
func Field(pod *corev1.Pod, path string, f *Facts) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("unsupported fieldPath: %s", path)
	}
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return FormatMap(pod.Labels), nil
	case "metadata.annotations":
		return FormatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", path)
}

func subscript(path string) (name, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	name, rest, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['")
	return name, rest, ok
}

// FormatMap writes labels or annotations as the downward API does: one key="value" a line, by key.
func FormatMap(m map[string]string) string {
	keys := keysOf(m)
	slices.Sort(keys)
	lines := make([]string, len(keys))
	for i, k := range keys {
		lines[i] = k + "=" + strconv.Quote(m[k])
	}
	return strings.Join(lines, "\n")
}

// ResourceField returns a request or limit of a container as a count of the divisor, rounded up. A limit that is not set
// is what the node can give.
func ResourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if c == nil {
		return "", fmt.Errorf("container %s of the resource field reference does not exist", ref.ContainerName)
	}
	side, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || side != "limits" && side != "requests" {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	list := c.Resources.Limits
	if side == "requests" {
		list = c.Resources.Requests
	}
	q, set := list[corev1.ResourceName(name)]
	if side == "limits" && (!set || q.IsZero()) {
		q = allocatable[corev1.ResourceName(name)]
	}
	div := ref.Divisor
	if div.IsZero() {
		div = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt(ceil(q.MilliValue(), div.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceil(q.Value(), div.Value()), 10), nil
}

func ceil(a, b int64) int64 {
	if b <= 0 {
		return 0
	}
	return (a + b - 1) / b
}

// serviceEnv returns the variables that tell a pod about the services of its namespace (when it wants them) and about the
// API server.
func serviceEnv(pod *corev1.Pod, services []*corev1.Service) *environ {
	out := &environ{values: map[string]string{}}
	wants := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	list := slices.Clone(services)
	slices.SortFunc(list, func(a, b *corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	chosen := map[string]*corev1.Service{}
	var order []string
	for _, s := range list {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		master := s.Namespace == metav1Default && s.Name == "kubernetes"
		local := wants && s.Namespace == pod.Namespace
		if !master && !local {
			continue
		}
		if _, had := chosen[s.Name]; !had {
			order = append(order, s.Name)
			chosen[s.Name] = s
		} else if local {
			chosen[s.Name] = s
		}
	}
	for _, name := range order {
		serviceVars(out, chosen[name])
	}
	return out
}

const metav1Default = "default"

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

func serviceVars(out *environ, s *corev1.Service) {
	name, ip := envName(s.Name), s.Spec.ClusterIP
	out.set(name+"_SERVICE_HOST", ip)
	out.set(name+"_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port)))
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			out.set(name+"_SERVICE_PORT_"+envName(p.Name), strconv.Itoa(int(p.Port)))
		}
	}
	for i, p := range s.Spec.Ports {
		proto := string(p.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		port := strconv.Itoa(int(p.Port))
		url := strings.ToLower(proto) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out.set(name+"_PORT", url)
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out.set(prefix, url)
		out.set(prefix+"_PROTO", strings.ToLower(proto))
		out.set(prefix+"_PORT", port)
		out.set(prefix+"_ADDR", ip)
	}
}
