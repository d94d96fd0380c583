package strategy

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	admissionGroup = "admissionregistration.k8s.io"
	resourceGroup  = "resource.k8s.io"
	rbacGroup      = "rbac.authorization.k8s.io"
	storageGroup   = "storage.k8s.io"
	networkGroup   = "networking.k8s.io"
	flowGroup      = "flowcontrol.apiserver.k8s.io"
)

// kinds is the table. A kind that is not in it keeps everything it is given.
var kinds = []kind{
	{group: "", version: "v1", name: "Pod", flags: hasStatus | generation | keepCreated | graceful, create: only(createPod), update: both(updatePod),
		status: both(podStatus), canon: only(canonPod), sub: map[string]func(obj, old runtime.Object){
			"ephemeralcontainers": both(podEphemeral), "resize": both(podResize)},
		reset: map[string][]string{"": {"status"}, "status": {"spec", "metadata.deletionTimestamp", "metadata.ownerReferences"}}},
	{group: "", version: "v1", name: "PodTemplate", flags: generation, counted: []string{"Template"}},
	{group: "", version: "v1", name: "ReplicationController", flags: hasStatus | generation},
	{group: "", version: "v1", name: "Service", flags: hasStatus, create: only(createService), update: both(updateService)},
	{group: "", version: "v1", name: "Namespace", flags: hasStatus, create: only(createNamespace), update: both(updateNamespace),
		sub:   map[string]func(obj, old runtime.Object){"finalize": both(finalizeNamespace)},
		reset: map[string][]string{"finalize": {"status"}}},
	{group: "", version: "v1", name: "Node", flags: hasStatus | keepCreated, create: only(createNode), update: both(updateNode), status: both(nodeStatus), canon: only(canonNode)},
	{group: "", version: "v1", name: "PersistentVolume", flags: hasStatus, create: only(createVolume), update: both(updateVolume), status: both(volumeStatus)},
	{group: "", version: "v1", name: "PersistentVolumeClaim", flags: hasStatus, create: only(createClaim), update: both(updateClaim)},
	{group: "", version: "v1", name: "ResourceQuota", flags: hasStatus},
	{group: "", version: "v1", name: "LimitRange", flags: upsert, create: only(createLimitRange)},
	{group: "", version: "v1", name: "Endpoints", flags: upsert},
	{group: "", version: "v1", name: "Event", flags: upsert},
	{group: "events.k8s.io", version: "v1", name: "Event", flags: upsert},
	{group: "", version: "v1", name: "Secret", update: both(updateSecret)},
	{group: "", version: "v1", name: "ServiceAccount", create: only(createAccount), update: both(func(o, _ *corev1.ServiceAccount) { createAccount(o) })},
	{group: "apps", version: "v1", name: "Deployment", flags: hasStatus | generation, counted: []string{"Spec", "Annotations"},
		status: both(func(obj, old *appsv1.Deployment) { obj.Labels = old.Labels }),
		reset:  map[string][]string{"status": {"spec", "metadata.labels"}}},
	{group: "apps", version: "v1", name: "ReplicaSet", flags: hasStatus | generation},
	{group: "apps", version: "v1", name: "StatefulSet", flags: hasStatus | generation},
	{group: "apps", version: "v1", name: "DaemonSet", flags: hasStatus | generation, create: only(createDaemonSet), update: both(updateDaemonSet)},
	{group: "batch", version: "v1", name: "Job", flags: hasStatus | generation, create: only(createJob), canon: only(canonJob)},
	{group: "batch", version: "v1", name: "CronJob", flags: hasStatus | generation},
	{group: "autoscaling", version: "v1", name: "HorizontalPodAutoscaler", flags: hasStatus},
	{group: "autoscaling", version: "v2", name: "HorizontalPodAutoscaler", flags: hasStatus},
	{group: "policy", version: "v1", name: "PodDisruptionBudget", flags: hasStatus | generation | conditional},
	{group: rbacGroup, version: "v1", name: "Role", flags: upsert},
	{group: rbacGroup, version: "v1", name: "RoleBinding", flags: upsert},
	{group: rbacGroup, version: "v1", name: "ClusterRole", flags: upsert},
	{group: rbacGroup, version: "v1", name: "ClusterRoleBinding", flags: upsert},
	{group: networkGroup, version: "v1", name: "Ingress", flags: hasStatus | generation},
	{group: networkGroup, version: "v1", name: "IngressClass", flags: generation},
	{group: networkGroup, version: "v1", name: "NetworkPolicy", flags: generation},
	{group: networkGroup, version: "v1", name: "ServiceCIDR", flags: hasStatus},
	{group: networkGroup, version: "v1", name: "IPAddress"},
	{group: "discovery.k8s.io", version: "v1", name: "EndpointSlice", flags: generation | countSent, create: only(createSlice), update: both(func(o, _ *discoveryv1.EndpointSlice) { createSlice(o) }),
		counted: []string{"Endpoints", "Ports", "AddressType", "Labels"}},
	{group: "coordination.k8s.io", version: "v1", name: "Lease", flags: upsert | conditional, create: only(createLease), update: both(updateLease)},
	{group: "node.k8s.io", version: "v1", name: "RuntimeClass", flags: conditional},
	{group: "scheduling.k8s.io", version: "v1", name: "PriorityClass", flags: generation, counted: []string{"Value"}},
	{group: storageGroup, version: "v1", name: "StorageClass"},
	{group: storageGroup, version: "v1", name: "CSIDriver", flags: conditional | recount},
	{group: storageGroup, version: "v1", name: "CSINode", flags: conditional},
	{group: storageGroup, version: "v1", name: "CSIStorageCapacity", flags: conditional},
	{group: storageGroup, version: "v1", name: "VolumeAttachment", flags: hasStatus | statusMeta | conditional},
	{group: storageGroup, version: "v1", name: "VolumeAttributesClass"},
	{group: "certificates.k8s.io", version: "v1", name: "CertificateSigningRequest", flags: hasStatus | statusMeta, update: both(updateCSR),
		status: both(csrStatus), sub: map[string]func(obj, old runtime.Object){"approval": both(csrApproval)},
		reset: map[string][]string{"": {"spec", "status"}, "approval": {"spec", "status.certificate"}, "status": {"spec", "status.conditions"}}},
	{group: flowGroup, version: "v1", name: "FlowSchema", flags: hasStatus | generation | statusMeta},
	{group: flowGroup, version: "v1", name: "PriorityLevelConfiguration", flags: hasStatus | generation | statusMeta},
	{group: admissionGroup, version: "v1", name: "ValidatingAdmissionPolicy", flags: hasStatus | generation | statusMeta | conditional},
	{group: admissionGroup, version: "v1", name: "ValidatingAdmissionPolicyBinding", flags: generation | conditional},
	{group: admissionGroup, version: "v1", name: "MutatingAdmissionPolicy", flags: generation | conditional},
	{group: admissionGroup, version: "v1", name: "MutatingAdmissionPolicyBinding", flags: generation | conditional},
	{group: admissionGroup, version: "v1", name: "ValidatingWebhookConfiguration", flags: generation | conditional, counted: []string{"Webhooks"}},
	{group: admissionGroup, version: "v1", name: "MutatingWebhookConfiguration", flags: generation | conditional, counted: []string{"Webhooks"}},
	{group: "apiextensions.k8s.io", version: "v1", name: "CustomResourceDefinition", flags: hasStatus | generation | statusMeta | conditional,
		create: only(createCRD), update: both(updateCRD)},
	{group: "apiregistration.k8s.io", version: "v1", name: "APIService", flags: hasStatus | statusMeta | conditional},
	{group: resourceGroup, version: "v1", name: "DeviceClass", flags: generation},
	{group: resourceGroup, version: "v1", name: "ResourceClaim", flags: hasStatus | statusMeta},
	{group: resourceGroup, version: "v1", name: "ResourceClaimTemplate"},
	{group: resourceGroup, version: "v1", name: "ResourceSlice", flags: generation},
}
