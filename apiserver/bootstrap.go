package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/apiserver/admission"
	"karve/apiserver/authz"
	"karve/apiserver/loops"
	"karve/client"
)

// bootstrap writes the objects that every cluster has: system namespaces, default roles, flow schemas, priority classes, the API
// server's own Service with its endpoints, and the Service of the cluster's DNS. Each is only added or brought up to date.
func (s *Server) bootstrap(ctx context.Context) error {
	t := s.transport(loopback, "kube-apiserver", false)
	for _, ns := range []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, metav1.NamespaceDefault} {
		if err := ensure(ctx, t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, nil); err != nil {
			return err
		}
	}
	for _, o := range authz.BootstrapPolicy() {
		if err := ensureRole(ctx, t, o); err != nil {
			return err
		}
	}
	for _, o := range nodePolicy() {
		if err := ensureRole(ctx, t, o); err != nil {
			return err
		}
	}
	if err := s.fair.Ensure(ctx); err != nil {
		return err
	}
	for _, pc := range admission.SystemPriorityClasses() {
		if err := ensure(ctx, t, pc, nil); err != nil {
			return err
		}
	}
	if err := ensure(ctx, t, &netv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: netv1.ServiceCIDRSpec{CIDRs: []string{s.opts.ServiceCIDR.String()}}}, nil); err != nil {
		return err
	}
	if err := loops.RangeReady(ctx, t, time.Now()); err != nil {
		return err
	}
	return s.bootstrapServices(ctx, t)
}

// nodePolicy is what karve's nodes may do beyond the Node authorizer: route Services and answer names with the one identity
// they have, and ask for that identity when they join.
func nodePolicy() []client.Object {
	const name = "karve:node-network"
	group := func(g string) []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: g}}
	}
	bind := func(name, role, g string) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: group(g),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	read := []string{"get", "list", "watch"}
	return []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"services", "nodes", "namespaces"}},
			{Verbs: read, APIGroups: []string{discoveryv1.GroupName}, Resources: []string{"endpointslices"}},
		}},
		bind(name, name, "system:nodes"),
		bind("karve:node-bootstrapper", "system:node-bootstrapper", "system:bootstrappers"),
	}
}

func (s *Server) bootstrapServices(ctx context.Context, t client.Transport) error {
	first := s.opts.ServiceCIDR.Masked().Addr().Next()
	labels := map[string]string{"component": "apiserver", "provider": "kubernetes"}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default", Labels: labels},
		Spec: corev1.ServiceSpec{ClusterIP: first.String(), Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(int32(s.opts.Advertise.Port()))}}}}
	if err := ensure(ctx, t, svc, nil); err != nil {
		return err
	}
	// An address that only this machine can reach is no endpoint for pods.
	if a := s.opts.Advertise.Addr(); a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() {
		if err := s.ownEndpoints(ctx, t); err != nil {
			return err
		}
	}
	if !s.opts.DNS.IsValid() {
		return nil
	}
	dns := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem,
		Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{ClusterIP: s.opts.DNS.String(), Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)}}}}
	return ensure(ctx, t, dns, nil)
}

// ownEndpoints points the kubernetes Service at this server.
func (s *Server) ownEndpoints(ctx context.Context, t client.Transport) error {
	addr, port := s.opts.Advertise.Addr().String(), int32(s.opts.Advertise.Port())
	ep := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default", Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: addr}}, Ports: []corev1.EndpointPort{{Name: "https", Port: port, Protocol: corev1.ProtocolTCP}}}}}
	if err := ensure(ctx, t, ep, func(old *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(old.Subsets, ep.Subsets) {
			return false
		}
		old.Subsets = ep.Subsets
		return true
	}); err != nil {
		return err
	}
	name, tcp, yes := "https", corev1.ProtocolTCP, true
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: addressType(s.opts.Advertise.Addr()), Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Protocol: &tcp, Port: &port}}}
	return ensure(ctx, t, slice, func(old *discoveryv1.EndpointSlice) bool {
		if len(old.Endpoints) == 1 && len(old.Ports) == 1 && slices.Equal(old.Endpoints[0].Addresses, slice.Endpoints[0].Addresses) && *old.Ports[0].Port == port {
			return false
		}
		old.Endpoints, old.Ports = slice.Endpoints, slice.Ports
		return true
	})
}

func addressType(a netip.Addr) discoveryv1.AddressType {
	if a.Is4() {
		return discoveryv1.AddressTypeIPv4
	}
	return discoveryv1.AddressTypeIPv6
}

// ensure creates obj when it is missing; change may bring an existing one up to date and says whether it did.
func ensure[T client.Object](ctx context.Context, t client.Transport, obj T, change func(T) bool) error {
	res := client.Of[T](t)
	got, err := res.Get(ctx, obj.GetNamespace(), obj.GetName())
	switch {
	case apierrors.IsNotFound(err):
		if _, err = res.Create(ctx, obj); apierrors.IsAlreadyExists(err) {
			err = nil
		}
	case err == nil && change != nil:
		next := got.DeepCopyObject().(T)
		if change(next) {
			_, err = res.Update(ctx, next)
		}
	}
	if err != nil {
		return fmt.Errorf("bootstrap %T %s: %w", obj, client.Key(obj), err)
	}
	return nil
}

// ensureRole adds what a default role or binding lacks, and leaves what people added, unless they opted out.
func ensureRole(ctx context.Context, t client.Transport, o client.Object) error {
	switch r := o.(type) {
	case *rbacv1.ClusterRole:
		return ensure(ctx, t, r, func(old *rbacv1.ClusterRole) bool {
			if !auto(old) {
				return false
			}
			changed := meta(&old.ObjectMeta, &r.ObjectMeta)
			if r.AggregationRule != nil {
				if equality.Semantic.DeepEqual(old.AggregationRule, r.AggregationRule) {
					return changed
				}
				old.AggregationRule = r.AggregationRule
				return true
			}
			rules := lacking(old.Rules, r.Rules)
			old.Rules = append(old.Rules, rules...)
			return changed || len(rules) > 0
		})
	case *rbacv1.Role:
		return ensure(ctx, t, r, func(old *rbacv1.Role) bool {
			if !auto(old) {
				return false
			}
			rules := lacking(old.Rules, r.Rules)
			old.Rules = append(old.Rules, rules...)
			return meta(&old.ObjectMeta, &r.ObjectMeta) || len(rules) > 0
		})
	case *rbacv1.ClusterRoleBinding:
		return ensure(ctx, t, r, func(old *rbacv1.ClusterRoleBinding) bool { return auto(old) && addSubjects(&old.Subjects, r.Subjects) })
	case *rbacv1.RoleBinding:
		return ensure(ctx, t, r, func(old *rbacv1.RoleBinding) bool { return auto(old) && addSubjects(&old.Subjects, r.Subjects) })
	}
	return fmt.Errorf("bootstrap %T: not a role or binding", o)
}

func auto(o metav1.Object) bool { return o.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] != "false" }

func meta(old, want *metav1.ObjectMeta) bool {
	changed := false
	for k, v := range want.Labels {
		if old.Labels[k] != v {
			old.Labels = maps.Clone(old.Labels)
			if old.Labels == nil {
				old.Labels = map[string]string{}
			}
			old.Labels[k], changed = v, true
		}
	}
	return changed
}

func lacking(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(h, w) }) {
			out = append(out, w)
		}
	}
	return out
}

func addSubjects(have *[]rbacv1.Subject, want []rbacv1.Subject) bool {
	changed := false
	for _, w := range want {
		if !slices.Contains(*have, w) {
			*have, changed = append(*have, w), true
		}
	}
	return changed
}
