package admission

import (
	"context"
	"maps"
	"slices"
	"strings"

	authnv1 "k8s.io/api/authentication/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/authz"
)

// restriction holds nodes to writing what is theirs: themselves, their leases, and the status of their own pods. What a
// node may read and reach at all, the Node authorizer has decided before.
type restriction struct {
	pods    source[*corev1.Pod]
	nodes   source[*corev1.Node]
	claims  source[*corev1.PersistentVolumeClaim]
	volumes source[*corev1.PersistentVolume]
	drivers source[*storagev1.CSIDriver]
	authz   authz.Authorizer
}

func nodeRestriction(d Deps) Plugin {
	return Plugin{Name: "NodeRestriction", Mutate: &restriction{pods: from[*corev1.Pod](d.Caches), nodes: from[*corev1.Node](d.Caches),
		claims: from[*corev1.PersistentVolumeClaim](d.Caches), volumes: from[*corev1.PersistentVolume](d.Caches),
		drivers: from[*storagev1.CSIDriver](d.Caches), authz: d.Authorizer}}
}

// Admit implements Mutator, though it changes nothing.
func (r *restriction) Admit(ctx context.Context, a *Attributes) error {
	node, ok := authz.NodeName(a.User)
	if !ok || a.Row == nil {
		return nil
	}
	if node == "" {
		return a.forbidden("could not determine node from user %q", a.User.Name)
	}
	switch a.Row.GR() {
	case pods:
		return r.pod(ctx, node, a)
	case nodes:
		return r.node(node, a)
	case claims:
		return r.claim(node, a)
	case core("serviceaccounts"):
		if a.Subresource == "token" {
			return r.token(ctx, node, a)
		}
	case schema.GroupResource{Group: coordv1.GroupName, Resource: "leases"}:
		if a.Namespace != corev1.NamespaceNodeLease {
			return a.forbidden("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if nameOf(a) != node {
			return a.forbidden("can only access node lease with the same name as the requesting node")
		}
	case schema.GroupResource{Group: storagev1.GroupName, Resource: "csinodes"}:
		if nameOf(a) != node {
			return a.forbidden("can only access CSINode with the same name as the requesting node")
		}
	case schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceslices"}:
		return resourceSlice(node, a)
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}:
		return nodeCSR(node, a)
	}
	return nil
}

func nameOf(a *Attributes) string {
	if m, ok := a.Object.(interface{ GetName() string }); ok && a.Operation == Create {
		return m.GetName()
	}
	return a.Name
}

func (r *restriction) pod(ctx context.Context, node string, a *Attributes) error {
	switch {
	case a.Subresource == "" && a.Operation == Create:
		return r.podCreate(ctx, node, a)
	case a.Subresource == "" && a.Operation == Delete:
		return r.ownPod(ctx, node, a, "node %q can only delete pods with spec.nodeName set to itself")
	case a.Subresource == "":
		return a.forbidden("unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
	case a.Subresource == "status" && a.Operation == Update:
		return r.podStatus(node, a)
	case a.Subresource == "eviction" && a.Operation == Create:
		if ev, ok := a.Object.(*policyv1.Eviction); ok && a.Name == "" && ev.Name == "" {
			return a.forbidden("could not determine pod from request data")
		}
		return r.ownPod(ctx, node, a, "node %s can only evict pods with spec.nodeName set to itself")
	case a.Subresource == "status" || a.Subresource == "eviction":
		return a.forbidden("unexpected operation %q", a.Operation)
	}
	return a.forbidden("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.Subresource)
}

// ownPod refuses, with format, what concerns a pod that is bound elsewhere. A pod that is gone is the handler's to report.
func (r *restriction) ownPod(ctx context.Context, node string, a *Attributes, format string) error {
	p, err := r.pods.get(ctx, a.Namespace, a.Name)
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return a.forbidden("%w", err)
	}
	if p.Spec.NodeName != node {
		return a.forbidden(format, node)
	}
	return nil
}

func (r *restriction) podCreate(ctx context.Context, node string, a *Attributes) error {
	p, err := object[*corev1.Pod](a.Object, "pod")
	if err != nil {
		return err
	}
	if !isMirror(p) {
		return a.forbidden("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if p.Spec.NodeName != node {
		return a.forbidden("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(p.OwnerReferences) > 1 {
		return a.forbidden("node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(p.OwnerReferences) == 0 {
		return a.forbidden("node %q can only create pods with an owner reference set to itself", node)
	}
	o := &p.OwnerReferences[0]
	switch {
	case o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node:
		return a.forbidden("node %q can only create pods with an owner reference set to itself", node)
	case o.Controller == nil || !*o.Controller:
		return a.forbidden("node %q can only create pods with a controller owner reference set to itself", node)
	case o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion:
		return a.forbidden("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	n, err := r.nodes.get(ctx, "", node)
	if err != nil {
		return a.forbidden("failed to get node %s: %w", node, err)
	}
	if n.UID != o.UID {
		return a.forbidden("node %s UID mismatch: expected %s got %s", node, o.UID, n.UID)
	}
	if p.Spec.ServiceAccountName != "" {
		return a.forbidden("node %q can not create pods that reference a service account", node)
	}
	if usesAnySecret(p) {
		return a.forbidden("node %q can not create pods that reference secrets", node)
	}
	if usesAnyConfigMap(p) {
		return a.forbidden("node %q can not create pods that reference configmaps", node)
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return a.forbidden("node %q can not create pods that reference persistentvolumeclaims", node)
		}
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil || s.ClusterTrustBundle != nil || s.PodCertificate != nil
		}) {
			return a.forbidden("node %q can not create pods that reference tokens, trust bundles or pod certificates", node)
		}
	}
	if len(p.Spec.ResourceClaims) > 0 {
		return a.forbidden("node %q can not create pods that reference resourceclaims", node)
	}
	return nil
}

func usesAnyConfigMap(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.ConfigMap != nil || v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ConfigMap != nil }) {
			return true
		}
	}
	env := func(env []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		return slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil }) ||
			slices.ContainsFunc(from, func(f corev1.EnvFromSource) bool { return f.ConfigMapRef != nil })
	}
	container := func(c corev1.Container) bool { return env(c.Env, c.EnvFrom) }
	return slices.ContainsFunc(p.Spec.InitContainers, container) || slices.ContainsFunc(p.Spec.Containers, container) ||
		slices.ContainsFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return env(c.Env, c.EnvFrom) })
}

func (r *restriction) podStatus(node string, a *Attributes) error {
	old, err := object[*corev1.Pod](a.Old, "pod")
	if err != nil {
		return err
	}
	now, err := object[*corev1.Pod](a.Object, "pod")
	if err != nil {
		return err
	}
	switch {
	case old.Spec.NodeName != node:
		return a.forbidden("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !maps.Equal(old.Labels, now.Labels):
		return a.forbidden("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, now.Status.ResourceClaimStatuses):
		return a.forbidden("node %q cannot update resource claim statuses", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, now.Status.ExtendedResourceClaimStatus):
		return a.forbidden("node %q cannot update extended resource claim status", node)
	}
	return nil
}

func (r *restriction) claim(node string, a *Attributes) error {
	if a.Subresource != "status" {
		return a.forbidden("may only update PVC status")
	}
	if a.Operation != Update {
		return a.forbidden("unexpected operation %q", a.Operation)
	}
	old, err := object[*corev1.PersistentVolumeClaim](a.Old, "claim")
	if err != nil {
		return err
	}
	now, err := object[*corev1.PersistentVolumeClaim](a.Object, "claim")
	if err != nil {
		return err
	}
	o, n := old.DeepCopy(), now.DeepCopy()
	for _, c := range []*corev1.PersistentVolumeClaim{o, n} {
		c.ManagedFields, c.ResourceVersion = nil, ""
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil, nil, nil
		c.Status.CurrentVolumeAttributesClassName, c.Status.ModifyVolumeStatus = nil, nil
	}
	if !equality.Semantic.DeepEqual(o, n) {
		return a.forbidden("node %q may not update fields other than status.capacity and status.conditions", node)
	}
	return nil
}

func (r *restriction) node(node string, a *Attributes) error {
	if name := nameOf(a); name != node {
		return a.forbidden("node %q is not allowed to modify node %q", node, name)
	}
	switch a.Operation {
	case Create:
		n, err := object[*corev1.Node](a.Object, "node")
		if err != nil {
			return err
		}
		if bad := kubeletMayNotSet(n.Labels, nil); len(bad) > 0 {
			return a.forbidden("node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", "))
		}
		// A node that belongs to its own lease could have itself removed, and come back without its taints.
		if len(n.OwnerReferences) > 0 {
			return a.forbidden("node %q is not allowed to modify ownerReferences", node)
		}
	case Update:
		n, err := object[*corev1.Node](a.Object, "node")
		if err != nil {
			return err
		}
		old, err := object[*corev1.Node](a.Old, "node")
		if err != nil {
			return err
		}
		if !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints) {
			return a.forbidden("node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences) {
			return a.forbidden("node %q is not allowed to modify ownerReferences", node)
		}
		if bad := kubeletMayNotSet(n.Labels, old.Labels); len(bad) > 0 {
			return a.forbidden("is not allowed to modify labels: %s", strings.Join(bad, ", "))
		}
	}
	return nil
}

// kubeletLabels are the labels of Kubernetes' own domains that a kubelet describes its node with.
var kubeletLabels = map[string]bool{
	corev1.LabelHostname: true, corev1.LabelTopologyZone: true, corev1.LabelTopologyRegion: true,
	corev1.LabelFailureDomainBetaZone: true, corev1.LabelFailureDomainBetaRegion: true,
	corev1.LabelInstanceType: true, corev1.LabelInstanceTypeStable: true, corev1.LabelOSStable: true, corev1.LabelArchStable: true,
	"beta.kubernetes.io/os": true, "beta.kubernetes.io/arch": true,
}

// kubeletMayNotSet returns the labels that differ between now and old and that are not a kubelet's to set, in order.
func kubeletMayNotSet(now, old map[string]string) []string {
	changed := map[string]bool{}
	for k, v := range now {
		if o, ok := old[k]; !ok || o != v {
			changed[k] = true
		}
	}
	for k := range old {
		if _, ok := now[k]; !ok {
			changed[k] = true
		}
	}
	within := func(domain, of string) bool { return domain == of || strings.HasSuffix(domain, "."+of) }
	var bad []string
	for k := range changed {
		domain, _, qualified := strings.Cut(k, "/")
		if !qualified {
			continue
		}
		if within(domain, corev1.LabelNamespaceNodeRestriction) ||
			(within(domain, "kubernetes.io") || within(domain, "k8s.io")) && !kubeletLabels[k] &&
				!within(domain, corev1.LabelNamespaceSuffixKubelet) && !within(domain, corev1.LabelNamespaceSuffixNode) {
			bad = append(bad, k)
		}
	}
	slices.Sort(bad)
	return bad
}

func (r *restriction) token(ctx context.Context, node string, a *Attributes) error {
	tr, ok := a.Object.(*authnv1.TokenRequest)
	if !ok {
		return a.forbidden("unexpected type %T", a.Object)
	}
	ref := tr.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return a.forbidden("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return a.forbidden("node requested token with a pod binding without a uid")
	}
	p, err := r.pods.get(ctx, a.Namespace, ref.Name)
	if err == nil && (p.UID != ref.UID || p.Spec.NodeName != node) { // perhaps the cache has not seen the pod, or its binding
		p, err = r.pods.live.Get(ctx, a.Namespace, ref.Name)
	}
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return a.forbidden("%w", err)
	}
	if p.UID != ref.UID {
		return a.forbidden("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if p.Spec.NodeName != node {
		return a.forbidden("node requested token bound to a pod scheduled on a different node")
	}
	return r.audience(ctx, a, p, tr)
}

// audience lets a node have tokens only for the audiences that its pod's volumes ask for, or that a role lets it ask for.
func (r *restriction) audience(ctx context.Context, a *Attributes, p *corev1.Pod, tr *authnv1.TokenRequest) error {
	if len(tr.Spec.Audiences) == 0 {
		return nil
	}
	if len(tr.Spec.Audiences) > 1 {
		return a.forbidden("node may only request 0 or 1 audiences")
	}
	want := tr.Spec.Audiences[0]
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		driver := ""
		switch {
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				if t := v.Projected.Sources[j].ServiceAccountToken; t != nil && t.Audience == want {
					return nil
				}
			}
		case v.CSI != nil:
			driver = v.CSI.Driver
		case v.PersistentVolumeClaim != nil:
			driver = r.driverOf(ctx, p.Namespace, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			driver = r.driverOf(ctx, p.Namespace, p.Name+"-"+v.Name)
		}
		if driver == "" {
			continue
		}
		if d, err := r.drivers.get(ctx, "", driver); err == nil {
			for _, t := range d.Spec.TokenRequests {
				if t.Audience == want {
					return nil
				}
			}
		}
	}
	if r.authz != nil {
		d, _, _ := r.authz.Authorize(ctx, &authz.Attributes{User: a.User, Verb: "request-serviceaccounts-token-audience", Namespace: a.Namespace,
			Version: "v1", Resource: want, Name: a.Name, ResourceRequest: true})
		if d == authz.Allow {
			return nil
		}
	}
	return a.forbidden("audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", want, a.User.Name)
}

func (r *restriction) driverOf(ctx context.Context, ns, claim string) string {
	c, err := r.claims.get(ctx, ns, claim)
	if err != nil || c.Spec.VolumeName == "" {
		return ""
	}
	v, err := r.volumes.get(ctx, "", c.Spec.VolumeName)
	if err != nil || v.Spec.CSI == nil {
		return ""
	}
	return v.Spec.CSI.Driver
}

func resourceSlice(node string, a *Attributes) error {
	o, doing := a.Object, "create or update"
	if a.Operation == Delete {
		o, doing = a.Old, "delete"
	}
	s, ok := o.(*resourcev1.ResourceSlice)
	if !ok {
		if a.Operation == Delete && o == nil {
			return nil // a collection: the authorizer has seen its selector
		}
		return a.forbidden("unexpected type %T", o)
	}
	if s.Spec.NodeName == nil || *s.Spec.NodeName != node {
		return a.forbidden("can only %s ResourceSlice with the same NodeName as the requesting node", doing)
	}
	return nil
}
