package validation

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxData is how much a ConfigMap or a Secret may hold, in bytes.
const maxData = 1 << 20

func addCore(t table) {
	rule(t, "", "v1", "ConfigMap", true, subdomain, configMap, configMapUpdate)
	rule(t, "", "v1", "Secret", true, subdomain, secret, secretUpdate)
	rule(t, "", "v1", "ServiceAccount", true, subdomain, (func(*corev1.ServiceAccount) errors)(nil), nil)
	rule(t, "", "v1", "Namespace", false, label, func(o *corev1.Namespace) errors {
		return finalizers(o, func(int) *field.Path { return field.NewPath("spec", "finalizers") })
	}, nil, ownUpdate(func(o, old *corev1.Namespace) errors { return nil }), onSub("status", namespaceStatus), onSub("finalize", func(o, _ *corev1.Namespace) errors {
		return finalizers(o, field.NewPath("spec", "finalizers").Index)
	}))
	rule(t, "", "v1", "Node", false, subdomain, node, nodeUpdate, onSub("status", nodeUpdate))
	rule(t, "", "v1", "LimitRange", true, subdomain, limitRange, nil)
	rule(t, "", "v1", "ResourceQuota", true, subdomain, resourceQuota, func(o, old *corev1.ResourceQuota) errors {
		a, b := sets.New(o.Spec.Scopes...), sets.New(old.Spec.Scopes...)
		if !a.Equal(b) {
			return errors{field.Invalid(field.NewPath("spec", "scopes"), o.Spec.Scopes, "field is immutable").WithOrigin("immutable")}
		}
		return nil
	}, onSub("status", func(o, _ *corev1.ResourceQuota) errors {
		p := field.NewPath("status")
		return append(quotaResources(o.Status.Hard, p.Child("hard")), quotaResources(o.Status.Used, p.Child("used"))...)
	}))
	rule(t, "", "v1", "ComponentStatus", false, subdomain, (func(*corev1.ComponentStatus) errors)(nil), nil)
	rule(t, "", "v1", "Binding", true, subdomain, binding, nil)
}

// finalizers checks what keeps a namespace; at says where the causes point, which a create and a finalize tell differently.
func finalizers(o *corev1.Namespace, at func(i int) *field.Path) errors {
	var errs errors
	for i, f := range o.Spec.Finalizers {
		errs = append(errs, finalizer(string(f), at(i))...)
	}
	return errs
}

func binding(o *corev1.Binding) errors {
	var errs errors
	p := field.NewPath("target")
	if k := o.Target.Kind; k != "" && k != "Node" {
		errs = append(errs, field.NotSupported(p.Child("kind"), k, []string{"Node", "<empty>"}))
	}
	if o.Target.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	}
	return errs
}

const unqualifiedFinalizer = "name is neither a standard finalizer name nor is it fully qualified"

func standardFinalizer(s string) bool {
	return s == string(corev1.FinalizerKubernetes) || s == metav1.FinalizerOrphanDependents || s == metav1.FinalizerDeleteDependents
}

func finalizer(s string, p *field.Path) errors {
	errs := invalid(p, s, validation.IsQualifiedName(s))
	if !strings.Contains(s, "/") && !standardFinalizer(s) {
		errs = append(errs, field.Invalid(p, s, unqualifiedFinalizer))
	}
	return errs
}

func namespaceStatus(o, old *corev1.Namespace) errors {
	p := field.NewPath("status", "Phase")
	if o.DeletionTimestamp == nil {
		if o.Status.Phase != corev1.NamespaceActive {
			return errors{field.Invalid(p, o.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
		}
		return nil
	}
	if o.Status.Phase != corev1.NamespaceTerminating {
		return errors{field.Invalid(p, o.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}

func dataKey(p *field.Path, k string) errors {
	return invalid(p.Key(k), k, validation.IsConfigMapKey(k))
}

func configMap(o *corev1.ConfigMap) errors {
	var errs errors
	total := 0
	for _, k := range sortedKeys(o.Data) {
		errs = append(errs, dataKey(field.NewPath("data"), k)...)
		if _, both := o.BinaryData[k]; both {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(k), k, "duplicate of key present in binaryData"))
		}
		total += len(o.Data[k])
	}
	for _, k := range sortedKeys(o.BinaryData) {
		errs = append(errs, dataKey(field.NewPath("binaryData"), k)...)
		total += len(o.BinaryData[k])
	}
	if total > maxData {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxData))
	}
	return errs
}

const frozen = "field is immutable when `immutable` is set"

func configMapUpdate(o, old *corev1.ConfigMap) errors {
	if old.Immutable == nil || !*old.Immutable {
		return nil
	}
	var errs errors
	if o.Immutable == nil || !*o.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), frozen))
	}
	if !equality.Semantic.DeepEqual(o.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), frozen))
	}
	if !equality.Semantic.DeepEqual(o.BinaryData, old.BinaryData) {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), frozen))
	}
	return errs
}

func secret(o *corev1.Secret) errors {
	var errs errors
	data := field.NewPath("data")
	total := 0
	for _, k := range sortedKeys(o.Data) {
		errs = append(errs, dataKey(data, k)...)
		total += len(o.Data[k])
	}
	if total > maxData {
		errs = append(errs, field.TooLong(data, "", maxData))
	}
	must := func(keys ...string) {
		for _, k := range keys {
			if _, ok := o.Data[k]; !ok {
				errs = append(errs, field.Required(data.Key(k), ""))
			}
		}
	}
	jsonIn := func(k string) {
		v, ok := o.Data[k]
		if !ok {
			errs = append(errs, field.Required(data.Key(k), ""))
			return
		}
		if err := json.Unmarshal(v, &map[string]any{}); err != nil {
			errs = append(errs, field.Invalid(data.Key(k), "<secret contents redacted>", err.Error()))
		}
	}
	switch o.Type {
	case corev1.SecretTypeServiceAccountToken:
		if o.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		jsonIn(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		jsonIn(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := o.Data[corev1.BasicAuthUsernameKey]
		_, pass := o.Data[corev1.BasicAuthPasswordKey]
		if !user && !pass {
			must(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(o.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		must(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return errs
}

func secretUpdate(o, old *corev1.Secret) errors {
	errs := immutable(field.NewPath("type"), o.Type, old.Type)
	if old.Immutable == nil || !*old.Immutable {
		return errs
	}
	if o.Immutable == nil || !*o.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), frozen))
	}
	if !equality.Semantic.DeepEqual(o.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), frozen))
	}
	return errs
}

func taints(list []corev1.Taint, p *field.Path) errors {
	var errs errors
	seen := map[corev1.TaintEffect]sets.Set[string]{}
	for i, t := range list {
		at := p.Index(i)
		errs = append(errs, labelName(at.Child("key"), t.Key)...)
		errs = append(errs, labelValue(at.Child("value"), t.Value)...)
		errs = append(errs, oneOfRequired(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		if seen[t.Effect].Has(t.Key) {
			d := field.Duplicate(at, t)
			d.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, d)
			continue
		}
		if seen[t.Effect] == nil {
			seen[t.Effect] = sets.New[string]()
		}
		seen[t.Effect].Insert(t.Key)
	}
	return errs
}

func node(o *corev1.Node) errors {
	// upstream reports the taints under metadata
	errs := taints(o.Spec.Taints, field.NewPath("metadata", "taints"))
	errs = append(errs, nodeResources(o)...)
	return append(errs, podCIDRs(o.Spec.PodCIDRs)...)
}

func nodeResources(o *corev1.Node) errors {
	var errs errors
	if s := o.Status.NodeInfo.Swap; s != nil && s.Capacity != nil && *s.Capacity <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "nodeSwapStatus", "capacity"), *s.Capacity, "must be greater than zero"))
	}
	p := field.NewPath("status")
	for _, n := range sortedNames(o.Status.Capacity) {
		errs = append(errs, quantity(n, o.Status.Capacity[n], p.Child("capacity", string(n)))...)
	}
	for _, n := range sortedNames(o.Status.Allocatable) {
		errs = append(errs, quantity(n, o.Status.Allocatable[n], p.Child("allocatable", string(n)))...)
	}
	return errs
}

func podCIDRs(list []string) errors {
	if len(list) == 0 {
		return nil
	}
	p := field.NewPath("spec", "podCIDRs")
	var errs errors
	for i, c := range list {
		errs = append(errs, validation.IsValidCIDRForLegacyField(p.Index(i), c, false, nil)...)
	}
	if len(list) < 2 {
		return errs
	}
	families := map[bool]int{}
	for i, c := range list {
		_, ipnet, err := net.ParseCIDR(c)
		if err != nil {
			errs = append(errs, field.InternalError(p, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[%d]: %v (%w)", i, ipnet, err)))
			families = nil
			break
		}
		families[ipnet.IP.To4() != nil]++
	}
	if len(list) > 2 || len(families) < 2 {
		errs = append(errs, field.Invalid(p, list, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

// nodeUpdate judges a write of a node, beside node itself as upstream does, or of its status.
func nodeUpdate(o, old *corev1.Node) errors {
	errs := nodeResources(o)
	seen := sets.New[corev1.NodeAddress]()
	for i, a := range o.Status.Addresses {
		if seen.Has(a) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
		seen.Insert(a)
	}
	p := field.NewPath("spec")
	if was := old.Spec.PodCIDRs; len(was) > 0 {
		refuse := field.Forbidden(p.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid")
		if len(was) != len(o.Spec.PodCIDRs) {
			errs = append(errs, refuse)
		} else {
			for i := range was {
				if was[i] != o.Spec.PodCIDRs[i] {
					errs = append(errs, refuse)
				}
			}
		}
	}
	if old.Spec.ProviderID != "" && o.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(p.Child("providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	if o.Spec.ConfigSource != nil {
		errs = append(errs, configSource(o.Spec.ConfigSource, false, p.Child("configSource"))...)
	}
	if c := o.Status.Config; c != nil {
		at := field.NewPath("status", "config")
		for _, f := range []struct {
			name string
			v    *corev1.NodeConfigSource
		}{{"assigned", c.Assigned}, {"active", c.Active}, {"lastKnownGood", c.LastKnownGood}} {
			if f.v != nil {
				errs = append(errs, configSource(f.v, true, at.Child(f.name))...)
			}
		}
	}
	errs = append(errs, taints(o.Spec.Taints, field.NewPath("metadata", "taints"))...)
	if o.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(p.Child("externalID"), "may not be updated"))
	}
	return errs
}

// configSource checks a reference that no kubelet follows any more, but that old objects may still carry.
func configSource(s *corev1.NodeConfigSource, reported bool, p *field.Path) errors {
	if s.ConfigMap == nil {
		return errors{field.Invalid(p, s, "exactly one reference subfield must be non-nil")}
	}
	var errs errors
	c, at := s.ConfigMap, p.Child("configMap")
	if reported {
		errs = append(errs, need(at.Child("uid"), string(c.UID), "uid must be set in status")...)
		errs = append(errs, need(at.Child("resourceVersion"), c.ResourceVersion, "resourceVersion must be set in status")...)
	} else {
		if c.UID != "" {
			errs = append(errs, field.Forbidden(at.Child("uid"), "uid must not be set in spec"))
		}
		if c.ResourceVersion != "" {
			errs = append(errs, field.Forbidden(at.Child("resourceVersion"), "resourceVersion must not be set in spec"))
		}
	}
	for _, f := range []struct {
		name, v string
		wrong   []string
	}{{"namespace", c.Namespace, label(c.Namespace, false)}, {"name", c.Name, subdomain(c.Name, false)}, {"kubeletConfigKey", c.KubeletConfigKey, validation.IsConfigMapKey(c.KubeletConfigKey)}} {
		if f.v == "" {
			errs = append(errs, field.Required(at.Child(f.name), f.name+" must be set"))
			continue
		}
		errs = append(errs, invalid(at.Child(f.name), f.v, f.wrong)...)
	}
	return errs
}

func limitRange(o *corev1.LimitRange) errors {
	var errs errors
	seen := sets.New[corev1.LimitType]()
	for i := range o.Spec.Limits {
		l, at := &o.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, limitType(l.Type, at.Child("type"))...)
		if seen.Has(l.Type) {
			errs = append(errs, field.Duplicate(at.Child("type"), l.Type))
		}
		seen.Insert(l.Type)
		errs = append(errs, limitItem(l, at)...)
	}
	return errs
}

func limitType(t corev1.LimitType, p *field.Path) errors {
	errs := qualifiedName(p, string(t))
	if len(errs) > 0 || strings.Contains(string(t), "/") {
		return errs
	}
	switch t {
	case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
		return nil
	}
	return errors{field.Invalid(p, t, "must be a standard limit type or fully qualified")}
}

func limitItem(l *corev1.LimitRangeItem, p *field.Path) errors {
	var errs errors
	names := sets.New[string]()
	collect := func(name string, list corev1.ResourceList) {
		for _, n := range sortedNames(list) {
			errs = append(errs, limitResource(l.Type, n, p.Child(name).Key(string(n)))...)
			names.Insert(string(n))
		}
	}
	collect("max", l.Max)
	collect("min", l.Min)
	if l.Type == corev1.LimitTypePod {
		if len(l.Default) > 0 {
			errs = append(errs, field.Forbidden(p.Child("default"), "may not be specified when `type` is 'Pod'"))
		}
		if len(l.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(p.Child("defaultRequest"), "may not be specified when `type` is 'Pod'"))
		}
	} else {
		collect("default", l.Default)
		collect("defaultRequest", l.DefaultRequest)
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, min := l.Min[corev1.ResourceStorage]
		_, max := l.Max[corev1.ResourceStorage]
		if !min && !max {
			errs = append(errs, field.Required(p.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	collect("maxLimitRequestRatio", l.MaxLimitRequestRatio)
	for _, k := range sets.List(names) {
		errs = append(errs, limitOrder(l, corev1.ResourceName(k), p)...)
	}
	return errs
}

func limitResource(t corev1.LimitType, n corev1.ResourceName, p *field.Path) errors {
	if t == corev1.LimitTypePod || t == corev1.LimitTypeContainer {
		return containerResourceName(n, p)
	}
	return resourceName(n, p)
}

// limitOrder checks that min ≤ defaultRequest ≤ default ≤ max, and that the ratio can be met.
func limitOrder(l *corev1.LimitRangeItem, n corev1.ResourceName, p *field.Path) errors {
	var errs errors
	at := func(name string) *field.Path { return p.Child(name).Key(string(n)) }
	lo, hasLo := l.Min[n]
	hi, hasHi := l.Max[n]
	def, hasDef := l.Default[n]
	req, hasReq := l.DefaultRequest[n]
	ratio, hasRatio := l.MaxLimitRequestRatio[n]
	if hasLo && hasHi && lo.Cmp(hi) > 0 {
		errs = append(errs, field.Invalid(at("min"), lo.String(), fmt.Sprintf("min value %s is greater than max value %s", lo.String(), hi.String())))
	}
	if hasReq && hasLo && lo.Cmp(req) > 0 {
		errs = append(errs, field.Invalid(at("defaultRequest"), req.String(), fmt.Sprintf("min value %s is greater than default request value %s", lo.String(), req.String())))
	}
	if hasReq && hasHi && req.Cmp(hi) > 0 {
		errs = append(errs, field.Invalid(at("defaultRequest"), req.String(), fmt.Sprintf("default request value %s is greater than max value %s", req.String(), hi.String())))
	}
	if hasReq && hasDef && req.Cmp(def) > 0 {
		errs = append(errs, field.Invalid(at("defaultRequest"), req.String(), fmt.Sprintf("default request value %s is greater than default limit value %s", req.String(), def.String())))
	}
	if hasDef && hasLo && lo.Cmp(def) > 0 {
		errs = append(errs, field.Invalid(at("default"), lo.String(), fmt.Sprintf("min value %s is greater than default value %s", lo.String(), def.String())))
	}
	if hasDef && hasHi && def.Cmp(hi) > 0 {
		errs = append(errs, field.Invalid(at("default"), hi.String(), fmt.Sprintf("default value %s is greater than max value %s", def.String(), hi.String())))
	}
	if hasRatio {
		if ratio.Value() < 1 && ratio.MilliValue() < 1000 {
			errs = append(errs, field.Invalid(at("maxLimitRequestRatio"), ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
		}
		if hasLo && hasHi && !lo.IsZero() {
			most := hi.AsApproximateFloat64() / lo.AsApproximateFloat64()
			if ratio.AsApproximateFloat64() > most {
				errs = append(errs, field.Invalid(at("maxLimitRequestRatio"), ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), most)))
			}
		}
	}
	if !overcommits(n) && hasDef && hasReq && def.Cmp(req) != 0 {
		errs = append(errs, field.Invalid(at("defaultRequest"), req.String(), fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", def.String(), req.String(), n)))
	}
	return errs
}

var quotaScopes = sets.New("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity", "VolumeAttributesClass")

func quotaResources(l corev1.ResourceList, p *field.Path) errors {
	var errs errors
	for _, n := range sortedNames(l) {
		at := p.Key(string(n))
		q := l[n]
		errs = append(errs, quotaResourceName(n, at)...)
		errs = append(errs, quantity(n, q, at)...)
	}
	return errs
}

func quotaResourceName(n corev1.ResourceName, p *field.Path) errors {
	errs := qualifiedName(p, string(n))
	if len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(n), "/") && !standard(n) && !strings.HasPrefix(string(n), "requests.") && !strings.HasPrefix(string(n), "count/") {
		return errors{field.Invalid(p, n, "must be a standard resource type or fully qualified")}
	}
	return nil
}

// scoped says which of the standard resources a scope can count: pods and what they ask for, or claims.
func scoped(s corev1.ResourceQuotaScope, n corev1.ResourceName) bool {
	switch s {
	case corev1.ResourceQuotaScopeBestEffort:
		return n == corev1.ResourcePods
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		switch n {
		case corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory:
			return true
		}
		return false
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return n == corev1.ResourcePersistentVolumeClaims || n == corev1.ResourceRequestsStorage
	}
	return true
}

// scopes checks each scope, that it can count the resources, and that they do not rule each other out.
func scopes(list []corev1.ResourceQuotaScope, hard corev1.ResourceList, p *field.Path, value any) errors {
	var errs errors
	for _, s := range list {
		for _, n := range sortedNames(hard) {
			if standard(n) && n != corev1.ResourceStorage && !scoped(s, n) {
				errs = append(errs, field.Invalid(p, value, "unsupported scope applied to resource"))
			}
		}
	}
	have := sets.New(list...)
	for _, pair := range [][2]corev1.ResourceQuotaScope{{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort}, {corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating}} {
		if have.HasAll(pair[0], pair[1]) {
			errs = append(errs, field.Invalid(p, value, "conflicting scopes"))
		}
	}
	return errs
}

func resourceQuota(o *corev1.ResourceQuota) errors {
	p := field.NewPath("spec")
	errs := quotaResources(o.Spec.Hard, p.Child("hard"))
	for _, s := range o.Spec.Scopes {
		if !quotaScopes.Has(string(s)) {
			errs = append(errs, field.Invalid(p.Child("scopes"), o.Spec.Scopes, "unsupported scope"))
		}
	}
	errs = append(errs, scopes(o.Spec.Scopes, o.Spec.Hard, p.Child("scopes"), o.Spec.Scopes)...)
	if o.Spec.ScopeSelector == nil {
		return errs
	}
	at := p.Child("scopeSelector", "matchExpressions")
	var named []corev1.ResourceQuotaScope
	for _, r := range o.Spec.ScopeSelector.MatchExpressions {
		named = append(named, r.ScopeName)
		if !quotaScopes.Has(string(r.ScopeName)) {
			errs = append(errs, field.Invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		errs = append(errs, scopeRequirement(&r, at)...)
	}
	return append(errs, scopes(named, o.Spec.Hard, at, o.Spec.ScopeSelector)...)
}

func scopeRequirement(r *corev1.ScopedResourceSelectorRequirement, p *field.Path) errors {
	var errs errors
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		if r.Operator != corev1.ScopeSelectorOpExists {
			errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
		}
	}
	switch r.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Invalid(p.Child("values"), r.Values, "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	return errs
}
