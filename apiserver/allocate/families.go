package allocate

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/validation"
)

// families fills in what a Service does not say of its address families, in place, and returns what is wrong with what it
// does say. The cluster has one family.
func (s *Services) families(svc, old *corev1.Service) field.ErrorList {
	sp := &svc.Spec
	if sp.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		switch {
		case old != nil && old.Spec.IPFamilyPolicy != nil:
			policy = *old.Spec.IPFamilyPolicy
		case sp.ClusterIP == corev1.ClusterIPNone && len(sp.Selector) == 0:
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		sp.IPFamilyPolicy = &policy
	}
	if errs := validation.ServiceAddresses(svc); len(errs) > 0 {
		return errs
	}
	errs := stacks(sp, old)
	errs = append(errs, s.infer(sp)...)
	if len(errs) > 0 {
		return errs
	}
	single := *sp.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if sp.ClusterIP == corev1.ClusterIPNone && len(sp.Selector) == 0 {
		// nothing is given out, and its endpoints are whatever their maker says
		if len(sp.IPFamilies) == 0 {
			sp.IPFamilies = []corev1.IPFamily{s.family()}
		}
		if len(sp.IPFamilies) == 1 && !single {
			sp.IPFamilies = append(slices.Clone(sp.IPFamilies), other(sp.IPFamilies[0]))
		}
		return nil
	}
	p := field.NewPath("spec")
	if *sp.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(p.Child("ipFamilyPolicy"), sp.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range sp.IPFamilies {
		if f != s.family() {
			errs = append(errs, field.Invalid(p.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if len(errs) == 0 && len(sp.IPFamilies) == 0 {
		sp.IPFamilies = []corev1.IPFamily{s.family()}
	}
	return errs
}

// stacks checks that the policy goes with the number of addresses and families; on an update it trims what a change to a
// single stack leaves behind.
func stacks(sp *corev1.ServiceSpec, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	p := field.NewPath("spec", "ipFamilyPolicy")
	single := *sp.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	refuse := func(detail string) { errs = append(errs, field.Invalid(p, sp.IPFamilyPolicy, detail)) }
	if old != nil && single {
		if len(sp.ClusterIPs) > 1 && slices.Equal(sp.ClusterIPs, old.Spec.ClusterIPs) {
			sp.ClusterIPs = sp.ClusterIPs[:1]
		}
		if len(sp.IPFamilies) > 1 && slices.Equal(sp.IPFamilies, old.Spec.IPFamilies) {
			sp.IPFamilies = sp.IPFamilies[:1]
		}
	}
	if old != nil && !single {
		if n := len(sp.ClusterIPs); n > 0 && n < len(old.Spec.ClusterIPs) {
			refuse("must be 'SingleStack' to release the secondary cluster IP")
		}
		if n := len(sp.IPFamilies); n > 0 && n < len(old.Spec.IPFamilies) {
			refuse("must be 'SingleStack' to release the secondary IP family")
		}
	}
	if single && len(sp.ClusterIPs) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
	}
	if single && len(sp.IPFamilies) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	return errs
}

// infer takes the families that are not named from the addresses that are.
func (s *Services) infer(sp *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range sp.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			break
		}
		a, err := netip.ParseAddr(ip)
		if err != nil || i < len(sp.IPFamilies) {
			continue
		}
		if f := family(a); f != s.family() {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), sp.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", f)))
		} else {
			sp.IPFamilies = append(slices.Clone(sp.IPFamilies), f)
		}
	}
	return errs
}

// unchanged reports whether an update leaves a Service that prefers two stacks as it is: it keeps what it was given.
func unchanged(svc, old *corev1.Service) bool {
	prefers := func(p *corev1.IPFamilyPolicy, otherwise bool) bool {
		return p == nil && otherwise || p != nil && *p == corev1.IPFamilyPolicyPreferDualStack
	}
	return old != nil && svc.Spec.Type == old.Spec.Type && hasAddress(svc) && prefers(svc.Spec.IPFamilyPolicy, false) && prefers(old.Spec.IPFamilyPolicy, true) &&
		slices.Equal(svc.Spec.ClusterIPs, old.Spec.ClusterIPs) && slices.Equal(svc.Spec.IPFamilies, old.Spec.IPFamilies)
}

func (s *Services) family() corev1.IPFamily { return family(s.cidr.Addr()) }

func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
