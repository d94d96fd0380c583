package api

import (
	admregv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowv1 "k8s.io/api/flowcontrol/v1"
	netv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiregv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

const allVerbs = "create delete deletecollection get list patch update watch"

var statusOnly = []Sub{{Name: "status", Verbs: verbs("get patch update")}}

// builtin is the table of built-in resources in discovery order: group priority first, then version, then name.
var builtin = []Row{
	{Group: "", Version: "v1", Resource: "bindings", Singular: "binding", Kind: "Binding", Namespaced: true, Verbs: verbs("create"),
		New: func() runtime.Object { return &corev1.Binding{} }},
	{Group: "", Version: "v1", Resource: "componentstatuses", Singular: "componentstatus", Kind: "ComponentStatus", Verbs: verbs("get list"), Short: []string{"cs"},
		New: func() runtime.Object { return &corev1.ComponentStatus{} }, NewList: func() runtime.Object { return &corev1.ComponentStatusList{} }},
	{Group: "", Version: "v1", Resource: "configmaps", Singular: "configmap", Kind: "ConfigMap", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"cm"}, Prefix: "configmaps",
		New: func() runtime.Object { return &corev1.ConfigMap{} }, NewList: func() runtime.Object { return &corev1.ConfigMapList{} }},
	{Group: "", Version: "v1", Resource: "endpoints", Singular: "endpoints", Kind: "Endpoints", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"ep"}, Prefix: "services/endpoints",
		New: func() runtime.Object { return &corev1.Endpoints{} }, NewList: func() runtime.Object { return &corev1.EndpointsList{} }},
	{Group: "", Version: "v1", Resource: "events", Singular: "event", Kind: "Event", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"ev"}, Prefix: "events",
		New: func() runtime.Object { return &corev1.Event{} }, NewList: func() runtime.Object { return &corev1.EventList{} }},
	{Group: "", Version: "v1", Resource: "limitranges", Singular: "limitrange", Kind: "LimitRange", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"limits"}, Prefix: "limitranges",
		New: func() runtime.Object { return &corev1.LimitRange{} }, NewList: func() runtime.Object { return &corev1.LimitRangeList{} }},
	{Group: "", Version: "v1", Resource: "namespaces", Singular: "namespace", Kind: "Namespace", Verbs: verbs("create delete get list patch update watch"), Short: []string{"ns"}, Prefix: "namespaces",
		Sub: []Sub{
			{Name: "finalize", Verbs: verbs("update")},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &corev1.Namespace{} }, NewList: func() runtime.Object { return &corev1.NamespaceList{} }},
	{Group: "", Version: "v1", Resource: "nodes", Singular: "node", Kind: "Node", Verbs: verbs(allVerbs), Short: []string{"no"}, Prefix: "minions",
		Sub: []Sub{
			{Name: "proxy", Verbs: verbs("create delete get patch update"), Group: "", Version: "", Kind: "NodeProxyOptions"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &corev1.Node{} }, NewList: func() runtime.Object { return &corev1.NodeList{} }},
	{Group: "", Version: "v1", Resource: "persistentvolumeclaims", Singular: "persistentvolumeclaim", Kind: "PersistentVolumeClaim", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"pvc"}, Prefix: "persistentvolumeclaims", Sub: statusOnly,
		New: func() runtime.Object { return &corev1.PersistentVolumeClaim{} }, NewList: func() runtime.Object { return &corev1.PersistentVolumeClaimList{} }},
	{Group: "", Version: "v1", Resource: "persistentvolumes", Singular: "persistentvolume", Kind: "PersistentVolume", Verbs: verbs(allVerbs), Short: []string{"pv"}, Prefix: "persistentvolumes", Sub: statusOnly,
		New: func() runtime.Object { return &corev1.PersistentVolume{} }, NewList: func() runtime.Object { return &corev1.PersistentVolumeList{} }},
	{Group: "", Version: "v1", Resource: "pods", Singular: "pod", Kind: "Pod", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"po"}, Categories: []string{"all"}, Prefix: "pods",
		Sub: []Sub{
			{Name: "attach", Verbs: verbs("create get"), Group: "", Version: "", Kind: "PodAttachOptions"},
			{Name: "binding", Verbs: verbs("create"), Group: "", Version: "", Kind: "Binding"},
			{Name: "ephemeralcontainers", Verbs: verbs("get patch update")},
			{Name: "eviction", Verbs: verbs("create"), Group: "policy", Version: "v1", Kind: "Eviction"},
			{Name: "exec", Verbs: verbs("create get"), Group: "", Version: "", Kind: "PodExecOptions"},
			{Name: "log", Verbs: verbs("get")},
			{Name: "portforward", Verbs: verbs("create get"), Group: "", Version: "", Kind: "PodPortForwardOptions"},
			{Name: "proxy", Verbs: verbs("create delete get patch update"), Group: "", Version: "", Kind: "PodProxyOptions"},
			{Name: "resize", Verbs: verbs("get patch update")},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &corev1.Pod{} }, NewList: func() runtime.Object { return &corev1.PodList{} }},
	{Group: "", Version: "v1", Resource: "podtemplates", Singular: "podtemplate", Kind: "PodTemplate", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "podtemplates",
		New: func() runtime.Object { return &corev1.PodTemplate{} }, NewList: func() runtime.Object { return &corev1.PodTemplateList{} }},
	{Group: "", Version: "v1", Resource: "replicationcontrollers", Singular: "replicationcontroller", Kind: "ReplicationController", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"rc"}, Categories: []string{"all"}, Prefix: "controllers",
		Sub: []Sub{
			{Name: "scale", Verbs: verbs("get patch update"), Group: "autoscaling", Version: "v1", Kind: "Scale"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &corev1.ReplicationController{} }, NewList: func() runtime.Object { return &corev1.ReplicationControllerList{} }},
	{Group: "", Version: "v1", Resource: "resourcequotas", Singular: "resourcequota", Kind: "ResourceQuota", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"quota"}, Prefix: "resourcequotas", Sub: statusOnly,
		New: func() runtime.Object { return &corev1.ResourceQuota{} }, NewList: func() runtime.Object { return &corev1.ResourceQuotaList{} }},
	{Group: "", Version: "v1", Resource: "secrets", Singular: "secret", Kind: "Secret", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "secrets",
		New: func() runtime.Object { return &corev1.Secret{} }, NewList: func() runtime.Object { return &corev1.SecretList{} }},
	{Group: "", Version: "v1", Resource: "serviceaccounts", Singular: "serviceaccount", Kind: "ServiceAccount", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"sa"}, Prefix: "serviceaccounts",
		Sub: []Sub{
			{Name: "token", Verbs: verbs("create"), Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}},
		New: func() runtime.Object { return &corev1.ServiceAccount{} }, NewList: func() runtime.Object { return &corev1.ServiceAccountList{} }},
	{Group: "", Version: "v1", Resource: "services", Singular: "service", Kind: "Service", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"svc"}, Categories: []string{"all"}, Prefix: "services/specs",
		Sub: []Sub{
			{Name: "proxy", Verbs: verbs("create delete get patch update"), Group: "", Version: "", Kind: "ServiceProxyOptions"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &corev1.Service{} }, NewList: func() runtime.Object { return &corev1.ServiceList{} }},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices", Singular: "apiservice", Kind: "APIService", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "apiregistration.k8s.io/apiservices", Sub: statusOnly,
		New: func() runtime.Object { return &apiregv1.APIService{} }, NewList: func() runtime.Object { return &apiregv1.APIServiceList{} }},
	{Group: "apps", Version: "v1", Resource: "controllerrevisions", Singular: "controllerrevision", Kind: "ControllerRevision", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "controllerrevisions",
		New: func() runtime.Object { return &appsv1.ControllerRevision{} }, NewList: func() runtime.Object { return &appsv1.ControllerRevisionList{} }},
	{Group: "apps", Version: "v1", Resource: "daemonsets", Singular: "daemonset", Kind: "DaemonSet", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"ds"}, Categories: []string{"all"}, Prefix: "daemonsets", Sub: statusOnly,
		New: func() runtime.Object { return &appsv1.DaemonSet{} }, NewList: func() runtime.Object { return &appsv1.DaemonSetList{} }},
	{Group: "apps", Version: "v1", Resource: "deployments", Singular: "deployment", Kind: "Deployment", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"deploy"}, Categories: []string{"all"}, Prefix: "deployments",
		Sub: []Sub{
			{Name: "scale", Verbs: verbs("get patch update"), Group: "autoscaling", Version: "v1", Kind: "Scale"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &appsv1.Deployment{} }, NewList: func() runtime.Object { return &appsv1.DeploymentList{} }},
	{Group: "apps", Version: "v1", Resource: "replicasets", Singular: "replicaset", Kind: "ReplicaSet", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"rs"}, Categories: []string{"all"}, Prefix: "replicasets",
		Sub: []Sub{
			{Name: "scale", Verbs: verbs("get patch update"), Group: "autoscaling", Version: "v1", Kind: "Scale"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &appsv1.ReplicaSet{} }, NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} }},
	{Group: "apps", Version: "v1", Resource: "statefulsets", Singular: "statefulset", Kind: "StatefulSet", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"sts"}, Categories: []string{"all"}, Prefix: "statefulsets",
		Sub: []Sub{
			{Name: "scale", Verbs: verbs("get patch update"), Group: "autoscaling", Version: "v1", Kind: "Scale"},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &appsv1.StatefulSet{} }, NewList: func() runtime.Object { return &appsv1.StatefulSetList{} }},
	{Group: "events.k8s.io", Version: "v1", Resource: "events", Singular: "event", Kind: "Event", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"ev"}, Prefix: "events",
		New: func() runtime.Object { return &eventsv1.Event{} }, NewList: func() runtime.Object { return &eventsv1.EventList{} }},
	{Group: "authentication.k8s.io", Version: "v1", Resource: "selfsubjectreviews", Singular: "selfsubjectreview", Kind: "SelfSubjectReview", Verbs: verbs("create"),
		New: func() runtime.Object { return &authnv1.SelfSubjectReview{} }},
	{Group: "authentication.k8s.io", Version: "v1", Resource: "tokenreviews", Singular: "tokenreview", Kind: "TokenReview", Verbs: verbs("create"),
		New: func() runtime.Object { return &authnv1.TokenReview{} }},
	{Group: "authorization.k8s.io", Version: "v1", Resource: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Kind: "LocalSubjectAccessReview", Namespaced: true, Verbs: verbs("create"),
		New: func() runtime.Object { return &authzv1.LocalSubjectAccessReview{} }},
	{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Kind: "SelfSubjectAccessReview", Verbs: verbs("create"),
		New: func() runtime.Object { return &authzv1.SelfSubjectAccessReview{} }},
	{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", Kind: "SelfSubjectRulesReview", Verbs: verbs("create"),
		New: func() runtime.Object { return &authzv1.SelfSubjectRulesReview{} }},
	{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews", Singular: "subjectaccessreview", Kind: "SubjectAccessReview", Verbs: verbs("create"),
		New: func() runtime.Object { return &authzv1.SubjectAccessReview{} }},
	{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", Kind: "HorizontalPodAutoscaler", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"hpa"}, Categories: []string{"all"}, Prefix: "horizontalpodautoscalers", Sub: statusOnly,
		New: func() runtime.Object { return &asv2.HorizontalPodAutoscaler{} }, NewList: func() runtime.Object { return &asv2.HorizontalPodAutoscalerList{} }},
	{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", Kind: "HorizontalPodAutoscaler", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"hpa"}, Categories: []string{"all"}, Prefix: "horizontalpodautoscalers", Sub: statusOnly,
		New: func() runtime.Object { return &asv1.HorizontalPodAutoscaler{} }, NewList: func() runtime.Object { return &asv1.HorizontalPodAutoscalerList{} }},
	{Group: "batch", Version: "v1", Resource: "cronjobs", Singular: "cronjob", Kind: "CronJob", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"cj"}, Categories: []string{"all"}, Prefix: "cronjobs", Sub: statusOnly,
		New: func() runtime.Object { return &batchv1.CronJob{} }, NewList: func() runtime.Object { return &batchv1.CronJobList{} }},
	{Group: "batch", Version: "v1", Resource: "jobs", Singular: "job", Kind: "Job", Namespaced: true, Verbs: verbs(allVerbs), Categories: []string{"all"}, Prefix: "jobs", Sub: statusOnly,
		New: func() runtime.Object { return &batchv1.Job{} }, NewList: func() runtime.Object { return &batchv1.JobList{} }},
	{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests", Singular: "certificatesigningrequest", Kind: "CertificateSigningRequest", Verbs: verbs(allVerbs), Short: []string{"csr"}, Prefix: "certificatesigningrequests",
		Sub: []Sub{
			{Name: "approval", Verbs: verbs("get patch update")},
			{Name: "status", Verbs: verbs("get patch update")}},
		New: func() runtime.Object { return &certv1.CertificateSigningRequest{} }, NewList: func() runtime.Object { return &certv1.CertificateSigningRequestList{} }},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses", Singular: "ingressclass", Kind: "IngressClass", Verbs: verbs(allVerbs), Prefix: "ingressclasses",
		New: func() runtime.Object { return &netv1.IngressClass{} }, NewList: func() runtime.Object { return &netv1.IngressClassList{} }},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses", Singular: "ingress", Kind: "Ingress", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"ing"}, Prefix: "ingress", Sub: statusOnly,
		New: func() runtime.Object { return &netv1.Ingress{} }, NewList: func() runtime.Object { return &netv1.IngressList{} }},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ipaddresses", Singular: "ipaddress", Kind: "IPAddress", Verbs: verbs(allVerbs), Short: []string{"ip"}, Prefix: "ipaddresses",
		New: func() runtime.Object { return &netv1.IPAddress{} }, NewList: func() runtime.Object { return &netv1.IPAddressList{} }},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies", Singular: "networkpolicy", Kind: "NetworkPolicy", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"netpol"}, Prefix: "networkpolicies",
		New: func() runtime.Object { return &netv1.NetworkPolicy{} }, NewList: func() runtime.Object { return &netv1.NetworkPolicyList{} }},
	{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs", Singular: "servicecidr", Kind: "ServiceCIDR", Verbs: verbs(allVerbs), Prefix: "servicecidrs", Sub: statusOnly,
		New: func() runtime.Object { return &netv1.ServiceCIDR{} }, NewList: func() runtime.Object { return &netv1.ServiceCIDRList{} }},
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets", Singular: "poddisruptionbudget", Kind: "PodDisruptionBudget", Namespaced: true, Verbs: verbs(allVerbs), Short: []string{"pdb"}, Prefix: "poddisruptionbudgets", Sub: statusOnly,
		New: func() runtime.Object { return &policyv1.PodDisruptionBudget{} }, NewList: func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} }},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings", Singular: "clusterrolebinding", Kind: "ClusterRoleBinding", Verbs: verbs(allVerbs), Prefix: "clusterrolebindings",
		New: func() runtime.Object { return &rbacv1.ClusterRoleBinding{} }, NewList: func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} }},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles", Singular: "clusterrole", Kind: "ClusterRole", Verbs: verbs(allVerbs), Prefix: "clusterroles",
		New: func() runtime.Object { return &rbacv1.ClusterRole{} }, NewList: func() runtime.Object { return &rbacv1.ClusterRoleList{} }},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings", Singular: "rolebinding", Kind: "RoleBinding", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "rolebindings",
		New: func() runtime.Object { return &rbacv1.RoleBinding{} }, NewList: func() runtime.Object { return &rbacv1.RoleBindingList{} }},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles", Singular: "role", Kind: "Role", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "roles",
		New: func() runtime.Object { return &rbacv1.Role{} }, NewList: func() runtime.Object { return &rbacv1.RoleList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers", Singular: "csidriver", Kind: "CSIDriver", Verbs: verbs(allVerbs), Prefix: "csidrivers",
		New: func() runtime.Object { return &storagev1.CSIDriver{} }, NewList: func() runtime.Object { return &storagev1.CSIDriverList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csinodes", Singular: "csinode", Kind: "CSINode", Verbs: verbs(allVerbs), Prefix: "csinodes",
		New: func() runtime.Object { return &storagev1.CSINode{} }, NewList: func() runtime.Object { return &storagev1.CSINodeList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csistoragecapacities", Singular: "csistoragecapacity", Kind: "CSIStorageCapacity", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "csistoragecapacities",
		New: func() runtime.Object { return &storagev1.CSIStorageCapacity{} }, NewList: func() runtime.Object { return &storagev1.CSIStorageCapacityList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses", Singular: "storageclass", Kind: "StorageClass", Verbs: verbs(allVerbs), Short: []string{"sc"}, Prefix: "storageclasses",
		New: func() runtime.Object { return &storagev1.StorageClass{} }, NewList: func() runtime.Object { return &storagev1.StorageClassList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "volumeattachments", Singular: "volumeattachment", Kind: "VolumeAttachment", Verbs: verbs(allVerbs), Prefix: "volumeattachments", Sub: statusOnly,
		New: func() runtime.Object { return &storagev1.VolumeAttachment{} }, NewList: func() runtime.Object { return &storagev1.VolumeAttachmentList{} }},
	{Group: "storage.k8s.io", Version: "v1", Resource: "volumeattributesclasses", Singular: "volumeattributesclass", Kind: "VolumeAttributesClass", Verbs: verbs(allVerbs), Short: []string{"vac"}, Prefix: "volumeattributesclasses",
		New: func() runtime.Object { return &storagev1.VolumeAttributesClass{} }, NewList: func() runtime.Object { return &storagev1.VolumeAttributesClassList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy", Kind: "MutatingAdmissionPolicy", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "mutatingadmissionpolicies",
		New: func() runtime.Object { return &admregv1.MutatingAdmissionPolicy{} }, NewList: func() runtime.Object { return &admregv1.MutatingAdmissionPolicyList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding", Kind: "MutatingAdmissionPolicyBinding", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "mutatingadmissionpolicybindings",
		New: func() runtime.Object { return &admregv1.MutatingAdmissionPolicyBinding{} }, NewList: func() runtime.Object { return &admregv1.MutatingAdmissionPolicyBindingList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration", Kind: "MutatingWebhookConfiguration", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "mutatingwebhookconfigurations",
		New: func() runtime.Object { return &admregv1.MutatingWebhookConfiguration{} }, NewList: func() runtime.Object { return &admregv1.MutatingWebhookConfigurationList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy", Kind: "ValidatingAdmissionPolicy", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "validatingadmissionpolicies", Sub: statusOnly,
		New: func() runtime.Object { return &admregv1.ValidatingAdmissionPolicy{} }, NewList: func() runtime.Object { return &admregv1.ValidatingAdmissionPolicyList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding", Kind: "ValidatingAdmissionPolicyBinding", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "validatingadmissionpolicybindings",
		New: func() runtime.Object { return &admregv1.ValidatingAdmissionPolicyBinding{} }, NewList: func() runtime.Object { return &admregv1.ValidatingAdmissionPolicyBindingList{} }},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration", Kind: "ValidatingWebhookConfiguration", Verbs: verbs(allVerbs), Categories: []string{"api-extensions"}, Prefix: "validatingwebhookconfigurations",
		New: func() runtime.Object { return &admregv1.ValidatingWebhookConfiguration{} }, NewList: func() runtime.Object { return &admregv1.ValidatingWebhookConfigurationList{} }},
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions", Singular: "customresourcedefinition", Kind: "CustomResourceDefinition", Verbs: verbs(allVerbs), Short: []string{"crd", "crds"}, Categories: []string{"api-extensions"}, Prefix: "apiextensions.k8s.io/customresourcedefinitions", Sub: statusOnly,
		New: func() runtime.Object { return &apiextv1.CustomResourceDefinition{} }, NewList: func() runtime.Object { return &apiextv1.CustomResourceDefinitionList{} }},
	{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses", Singular: "priorityclass", Kind: "PriorityClass", Verbs: verbs(allVerbs), Short: []string{"pc"}, Prefix: "priorityclasses",
		New: func() runtime.Object { return &schedv1.PriorityClass{} }, NewList: func() runtime.Object { return &schedv1.PriorityClassList{} }},
	{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Singular: "lease", Kind: "Lease", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "leases",
		New: func() runtime.Object { return &coordv1.Lease{} }, NewList: func() runtime.Object { return &coordv1.LeaseList{} }},
	{Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses", Singular: "runtimeclass", Kind: "RuntimeClass", Verbs: verbs(allVerbs), Prefix: "runtimeclasses",
		New: func() runtime.Object { return &nodev1.RuntimeClass{} }, NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} }},
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices", Singular: "endpointslice", Kind: "EndpointSlice", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "endpointslices",
		New: func() runtime.Object { return &discoveryv1.EndpointSlice{} }, NewList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} }},
	{Group: "resource.k8s.io", Version: "v1", Resource: "deviceclasses", Singular: "deviceclass", Kind: "DeviceClass", Verbs: verbs(allVerbs), Prefix: "deviceclasses",
		New: func() runtime.Object { return &resourcev1.DeviceClass{} }, NewList: func() runtime.Object { return &resourcev1.DeviceClassList{} }},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims", Singular: "resourceclaim", Kind: "ResourceClaim", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "resourceclaims", Sub: statusOnly,
		New: func() runtime.Object { return &resourcev1.ResourceClaim{} }, NewList: func() runtime.Object { return &resourcev1.ResourceClaimList{} }},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate", Kind: "ResourceClaimTemplate", Namespaced: true, Verbs: verbs(allVerbs), Prefix: "resourceclaimtemplates",
		New: func() runtime.Object { return &resourcev1.ResourceClaimTemplate{} }, NewList: func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} }},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceslices", Singular: "resourceslice", Kind: "ResourceSlice", Verbs: verbs(allVerbs), Prefix: "resourceslices",
		New: func() runtime.Object { return &resourcev1.ResourceSlice{} }, NewList: func() runtime.Object { return &resourcev1.ResourceSliceList{} }},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "flowschemas", Singular: "flowschema", Kind: "FlowSchema", Verbs: verbs(allVerbs), Prefix: "flowschemas", Sub: statusOnly,
		New: func() runtime.Object { return &flowv1.FlowSchema{} }, NewList: func() runtime.Object { return &flowv1.FlowSchemaList{} }},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration", Kind: "PriorityLevelConfiguration", Verbs: verbs(allVerbs), Prefix: "prioritylevelconfigurations", Sub: statusOnly,
		New: func() runtime.Object { return &flowv1.PriorityLevelConfiguration{} }, NewList: func() runtime.Object { return &flowv1.PriorityLevelConfigurationList{} }},
}
