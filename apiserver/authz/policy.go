package authz

// The default policy of Kubernetes 1.36, one line per rule: "verbs groups resources [names]" or "verbs url paths", each a
// list with commas. read is get, list and watch; write is create, delete, deletecollection, patch and update; core is the
// group without a name. bootstrap.go turns it into objects.

const events = "create,patch,update core,events.k8s.io events"

// roleRow is one default role. The aggregate fields name the built-in role (admin, edit, view) meant.
type roleRow struct {
	ns, name string
	from     string // aggregates the roles labelled for it
	into     string // is labelled for aggregation into it
	rules    []string
}

var clusterRoleRows = []roleRow{
	{name: "admin", from: "admin"},
	{name: "cluster-admin", rules: []string{
		"* * *",
		"* url *",
	}},
	{name: "edit", from: "edit", into: "admin"},
	{name: "system:aggregate-to-admin", into: "admin", rules: []string{
		"create authorization.k8s.io localsubjectaccessreviews",
		"read,write rbac.authorization.k8s.io rolebindings,roles",
	}},
	{name: "system:aggregate-to-edit", into: "edit", rules: []string{
		"read core pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy",
		"impersonate core serviceaccounts",
		"write core pods,pods/attach,pods/exec,pods/portforward,pods/proxy",
		"create core pods/eviction",
		"write core configmaps,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy",
		"create core serviceaccounts/token",
		"write core,events.k8s.io events",
		"write apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale",
		"write autoscaling horizontalpodautoscalers",
		"write batch cronjobs,jobs",
		"write extensions daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale",
		"write policy poddisruptionbudgets",
		"write networking.k8s.io ingresses,networkpolicies",
		"read,write coordination.k8s.io leases",
		"write resource.k8s.io resourceclaims,resourceclaimtemplates",
	}},
	{name: "system:aggregate-to-view", into: "view", rules: []string{
		"read core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status",
		"read core bindings,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status",
		"read core namespaces",
		"read core,events.k8s.io events",
		"read discovery.k8s.io endpointslices",
		"read apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
		"read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
		"read batch cronjobs,cronjobs/status,jobs,jobs/status",
		"read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale",
		"read policy poddisruptionbudgets,poddisruptionbudgets/status",
		"read networking.k8s.io ingresses,ingresses/status,networkpolicies",
		"read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates",
	}},
	{name: "system:auth-delegator", rules: []string{
		"create authentication.k8s.io tokenreviews",
		"create authorization.k8s.io subjectaccessreviews",
	}},
	{name: "system:basic-user", rules: []string{
		"create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
		"create authentication.k8s.io selfsubjectreviews",
	}},
	{name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient", rules: []string{
		"create certificates.k8s.io certificatesigningrequests/nodeclient",
	}},
	{name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rules: []string{
		"create certificates.k8s.io certificatesigningrequests/selfnodeclient",
	}},
	{name: "system:certificates.k8s.io:kube-apiserver-client-approver", rules: []string{
		"approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client",
	}},
	{name: "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", rules: []string{
		"approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet",
	}},
	{name: "system:certificates.k8s.io:kubelet-serving-approver", rules: []string{
		"approve certificates.k8s.io signers kubernetes.io/kubelet-serving",
	}},
	{name: "system:certificates.k8s.io:legacy-unknown-approver", rules: []string{
		"approve certificates.k8s.io signers kubernetes.io/legacy-unknown",
	}},
	{name: "system:discovery", rules: []string{
		"get url /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/",
	}},
	{name: "system:heapster", rules: []string{
		"read core events,namespaces,nodes,pods",
		"read extensions deployments",
	}},
	{name: "system:kube-aggregator", rules: []string{
		"read core endpoints,services",
	}},
	{name: "system:kube-controller-manager", rules: []string{
		events,
		"create coordination.k8s.io leases",
		"get,update coordination.k8s.io leases kube-controller-manager",
		"create core secrets,serviceaccounts",
		"delete core secrets",
		"get core configmaps,namespaces,secrets,serviceaccounts",
		"update core secrets,serviceaccounts",
		"create authentication.k8s.io tokenreviews",
		"create authorization.k8s.io subjectaccessreviews",
		"list,watch * *",
		"create core serviceaccounts/token",
	}},
	{name: "system:kube-dns", rules: []string{
		"list,watch core endpoints,services",
	}},
	{name: "system:kube-scheduler", rules: []string{
		events,
		"create coordination.k8s.io leases",
		"read,update coordination.k8s.io leases kube-scheduler",
		"read,write coordination.k8s.io leasecandidates",
		"read core nodes",
		"read,delete core pods",
		"create core bindings,pods/binding",
		"patch,update core pods/status",
		"read core replicationcontrollers,services",
		"read apps,extensions replicasets",
		"read apps statefulsets",
		"read policy poddisruptionbudgets",
		"read core persistentvolumeclaims,persistentvolumes",
		"create authentication.k8s.io tokenreviews",
		"create authorization.k8s.io subjectaccessreviews",
		"read storage.k8s.io csinodes",
		"read storage.k8s.io volumeattachments",
		"read core namespaces",
		"read storage.k8s.io csidrivers",
		"read storage.k8s.io csistoragecapacities",
		"read resource.k8s.io deviceclasses",
		"read,patch,update resource.k8s.io resourceclaims",
		"read,patch,update resource.k8s.io resourceclaims/status",
		"update core pods/finalizers",
		"read resource.k8s.io resourceslices",
		"create,delete resource.k8s.io resourceclaims",
		"patch,update resource.k8s.io resourceclaims/binding",
	}},
	{name: "system:kubelet-api-admin", rules: []string{
		"read core nodes",
		"proxy core nodes",
		"* core nodes/log,nodes/metrics,nodes/proxy,nodes/stats",
		"* core nodes/configz,nodes/healthz,nodes/pods",
	}},
	{name: "system:monitoring", rules: []string{
		"get url /flagz,/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*,/statusz",
		"get core nodes/metrics",
	}},
	{name: "system:node", rules: []string{
		"create authentication.k8s.io tokenreviews",
		"create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews",
		"read core services",
		"read,create core nodes",
		"patch,update core nodes/status",
		"patch,update core nodes",
		events,
		"read core pods",
		"create,delete core pods",
		"patch,update core pods/status",
		"create core pods/eviction",
		"read core configmaps,secrets",
		"get core persistentvolumeclaims,persistentvolumes",
		"get core endpoints",
		"read,create certificates.k8s.io certificatesigningrequests",
		"create,delete,get,patch,update coordination.k8s.io leases",
		"get storage.k8s.io volumeattachments",
		"create core serviceaccounts/token",
		"get,patch,update core persistentvolumeclaims/status",
		"read storage.k8s.io csidrivers",
		"create,delete,get,patch,update storage.k8s.io csinodes",
		"read node.k8s.io runtimeclasses",
		"get resource.k8s.io resourceclaims",
		"deletecollection resource.k8s.io resourceslices",
		"get core serviceaccounts",
	}},
	{name: "system:node-bootstrapper", rules: []string{
		"read,create certificates.k8s.io certificatesigningrequests",
	}},
	{name: "system:node-problem-detector", rules: []string{
		"get core nodes",
		"patch core nodes/status",
		events,
	}},
	{name: "system:node-proxier", rules: []string{
		"list,watch core endpoints,services",
		"read core nodes",
		events,
		"list,watch networking.k8s.io servicecidrs",
		"list,watch discovery.k8s.io endpointslices",
	}},
	{name: "system:persistent-volume-provisioner", rules: []string{
		"read,create,delete core persistentvolumes",
		"read,update core persistentvolumeclaims",
		"read storage.k8s.io storageclasses",
		"watch core events",
		events,
	}},
	{name: "system:public-info-viewer", rules: []string{
		"get url /healthz,/livez,/readyz,/version,/version/",
	}},
	{name: "system:service-account-issuer-discovery", rules: []string{
		"get url /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
	}},
	{name: "system:volume-scheduler", rules: []string{
		"read,patch,update core persistentvolumes",
		"read storage.k8s.io storageclasses",
		"read,patch,update core persistentvolumeclaims",
	}},
	{name: "view", from: "view", into: "edit"},
}

// controllerRows are bound each to the service account of its name in kube-system; the roles' names begin with
// system:controller: besides.
var controllerRows = []roleRow{
	{name: "attachdetach-controller", rules: []string{
		"list,watch core persistentvolumeclaims,persistentvolumes",
		"read core nodes",
		"patch,update core nodes/status",
		"list,watch core pods",
		events,
		"read,create,delete storage.k8s.io volumeattachments",
		"read storage.k8s.io csidrivers",
		"read storage.k8s.io csinodes",
	}},
	{name: "certificate-controller", rules: []string{
		"read,delete certificates.k8s.io certificatesigningrequests",
		"update certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status",
		"approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet",
		"sign certificates.k8s.io signers kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown",
		"create authorization.k8s.io subjectaccessreviews",
		events,
	}},
	{name: "clusterrole-aggregation-controller", rules: []string{
		"read,escalate,patch,update rbac.authorization.k8s.io clusterroles",
	}},
	{name: "cronjob-controller", rules: []string{
		"read,update batch cronjobs",
		"read,create,delete,patch,update batch jobs",
		"update batch cronjobs/status",
		"update batch cronjobs/finalizers",
		"delete,list,watch core pods",
		events,
	}},
	{name: "daemon-set-controller", rules: []string{
		"read apps,extensions daemonsets",
		"update apps,extensions daemonsets/status",
		"update apps,extensions daemonsets/finalizers",
		"list,watch core nodes",
		"create,delete,list,patch,watch core pods",
		"create core pods/binding",
		"read,create,delete,patch,update apps controllerrevisions",
		events,
	}},
	{name: "deployment-controller", rules: []string{
		"read,update apps,extensions deployments",
		"update apps,extensions deployments/status",
		"update apps,extensions deployments/finalizers",
		"read,create,delete,patch,update apps,extensions replicasets",
		"read,update core pods",
		events,
	}},
	{name: "device-taint-eviction-controller", rules: []string{
		"read,delete core pods",
		"patch,update core pods/status",
		"read resource.k8s.io resourceclaims",
		"read resource.k8s.io resourceslices",
		"read resource.k8s.io deviceclasses",
		events,
	}},
	{name: "disruption-controller", rules: []string{
		"read apps,extensions deployments",
		"read apps,extensions replicasets",
		"read core replicationcontrollers",
		"read policy poddisruptionbudgets",
		"read apps statefulsets",
		"update policy poddisruptionbudgets/status",
		"patch,update core pods/status",
		"get * */scale",
		events,
	}},
	{name: "endpoint-controller", rules: []string{
		"read core pods,services",
		"read,create,delete,update core endpoints",
		"create core endpoints/restricted",
		events,
	}},
	{name: "endpointslice-controller", rules: []string{
		"read core nodes,pods,services",
		"update core services/finalizers",
		"read,create,delete,update discovery.k8s.io endpointslices",
		"create discovery.k8s.io endpointslices/restricted",
		events,
	}},
	{name: "endpointslicemirroring-controller", rules: []string{
		"read core endpoints,services",
		"update core services/finalizers",
		"update core endpoints/finalizers",
		"read,create,delete,update discovery.k8s.io endpointslices",
		"create discovery.k8s.io endpointslices/restricted",
		events,
	}},
	{name: "ephemeral-volume-controller", rules: []string{
		"read core pods",
		"update core pods/finalizers",
		"read,create core persistentvolumeclaims",
		events,
	}},
	{name: "expand-controller", rules: []string{
		"read,patch,update core persistentvolumes",
		"patch,update core persistentvolumeclaims/status",
		"read core persistentvolumeclaims",
		events,
	}},
	{name: "generic-garbage-collector", rules: []string{
		"read,delete,patch,update * *",
		events,
	}},
	{name: "horizontal-pod-autoscaler", rules: []string{
		"read autoscaling horizontalpodautoscalers",
		"update autoscaling horizontalpodautoscalers/status",
		"get,update * */scale",
		"list,watch core pods",
		"list,watch metrics.k8s.io pods",
		"read custom.metrics.k8s.io *",
		"read external.metrics.k8s.io *",
		events,
	}},
	{name: "job-controller", rules: []string{
		"read,patch,update batch jobs",
		"update batch jobs/status",
		"update batch jobs/finalizers",
		"create,delete,list,patch,watch core pods",
		events,
	}},
	{name: "legacy-service-account-token-cleaner", rules: []string{
		"get core configmaps kube-apiserver-legacy-service-account-token-tracking",
		"delete,patch core secrets",
	}},
	{name: "namespace-controller", rules: []string{
		"read,delete core namespaces",
		"update core namespaces/finalize,namespaces/status",
		"read,delete,deletecollection * *",
	}},
	{name: "node-controller", rules: []string{
		"read,delete,patch,update core nodes",
		"patch,update core nodes/status",
		"patch,update core pods/status",
		"read,delete core pods",
		events,
	}},
	{name: "persistent-volume-binder", rules: []string{
		"read,create,delete,update core persistentvolumes",
		"update core persistentvolumes/status",
		"read,update core persistentvolumeclaims",
		"update core persistentvolumeclaims/status",
		"read,create,delete core pods",
		"read storage.k8s.io storageclasses",
		"list,watch core nodes",
		events,
		"watch core events",
	}},
	{name: "pod-garbage-collector", rules: []string{
		"delete,list,watch core pods",
		"read core nodes",
		"patch core pods/status",
	}},
	{name: "pv-protection-controller", rules: []string{
		"read,update core persistentvolumes",
		events,
	}},
	{name: "pvc-protection-controller", rules: []string{
		"read,update core persistentvolumeclaims",
		"update core persistentvolumeclaims/status",
		"read core pods",
		events,
	}},
	{name: "replicaset-controller", rules: []string{
		"read,update apps,extensions replicasets",
		"update apps,extensions replicasets/status",
		"update apps,extensions replicasets/finalizers",
		"create,delete,list,patch,watch core pods",
		events,
	}},
	{name: "replication-controller", rules: []string{
		"read,update core replicationcontrollers",
		"update core replicationcontrollers/status",
		"update core replicationcontrollers/finalizers",
		"create,delete,list,patch,watch core pods",
		events,
	}},
	{name: "resource-claim-controller", rules: []string{
		"read core pods",
		"update core pods/finalizers",
		"read,create,delete resource.k8s.io resourceclaims",
		"patch,update resource.k8s.io resourceclaims,resourceclaims/status",
		"patch,update core pods/status",
		events,
		"patch,update resource.k8s.io resourceclaims/binding",
	}},
	{name: "resourcequota-controller", rules: []string{
		"list,watch * *",
		"update core resourcequotas/status",
		events,
	}},
	{name: "root-ca-cert-publisher", rules: []string{
		"create,update core configmaps",
		events,
	}},
	{name: "route-controller", rules: []string{
		"list,watch core nodes",
		"patch core nodes/status",
		events,
	}},
	{name: "selinux-warning-controller", rules: []string{
		events,
		"read core persistentvolumes",
		"read core persistentvolumeclaims",
		"read core pods",
		"read storage.k8s.io csidrivers",
	}},
	{name: "service-account-controller", rules: []string{
		"create core serviceaccounts",
		events,
	}},
	{name: "service-ca-cert-publisher", rules: []string{
		"create,update core configmaps",
		events,
	}},
	{name: "service-cidrs-controller", rules: []string{
		"read,patch,update networking.k8s.io servicecidrs",
		"patch,update networking.k8s.io servicecidrs/finalizers",
		"patch,update networking.k8s.io servicecidrs/status",
		"read networking.k8s.io ipaddresses",
		events,
	}},
	{name: "service-controller", rules: []string{
		"read core services",
		"patch,update core services/status",
		"list,watch core nodes",
		events,
	}},
	{name: "statefulset-controller", rules: []string{
		"list,watch core pods",
		"read apps statefulsets",
		"update apps statefulsets/status",
		"update apps statefulsets/finalizers",
		"create,delete,get,patch,update core pods",
		"read,create,delete,patch,update apps controllerrevisions",
		"read,create core persistentvolumeclaims",
		"delete,update core persistentvolumeclaims",
		"update core pods/finalizers",
		events,
	}},
	{name: "ttl-after-finished-controller", rules: []string{
		"read,delete batch jobs",
		events,
	}},
	{name: "ttl-controller", rules: []string{
		"list,patch,update,watch core nodes",
		events,
	}},
	{name: "validatingadmissionpolicy-status-controller", rules: []string{
		"read admissionregistration.k8s.io validatingadmissionpolicies",
		"get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status",
		events,
	}},
	{name: "volumeattributesclass-protection-controller", rules: []string{
		"read core persistentvolumeclaims",
		"read core persistentvolumes",
		"read,update storage.k8s.io volumeattributesclasses",
		events,
	}},
}

var roleRows = []roleRow{
	{ns: "kube-public", name: "system:controller:bootstrap-signer", rules: []string{
		"read core configmaps",
		"update core configmaps cluster-info",
		events,
	}},
	{ns: "kube-system", name: "extension-apiserver-authentication-reader", rules: []string{
		"read core configmaps extension-apiserver-authentication",
	}},
	{ns: "kube-system", name: "system::leader-locking-kube-controller-manager", rules: []string{
		"read,create,update coordination.k8s.io leases",
		"read,create,update coordination.k8s.io leasecandidates",
	}},
	{ns: "kube-system", name: "system::leader-locking-kube-scheduler", rules: []string{
		"read,create,update coordination.k8s.io leases",
		"read,create,update coordination.k8s.io leasecandidates",
	}},
	{ns: "kube-system", name: "system:controller:bootstrap-signer", rules: []string{
		"read core secrets",
	}},
	{ns: "kube-system", name: "system:controller:cloud-provider", rules: []string{
		"read,create core configmaps",
	}},
	{ns: "kube-system", name: "system:controller:token-cleaner", rules: []string{
		"read,delete core secrets",
		events,
	}},
}

// bindingRow is one default binding, to the role of its own name unless another is named.
type bindingRow struct {
	ns, name, role string
	subjects       []string
}

var clusterBindingRows = []bindingRow{
	{name: "cluster-admin", subjects: []string{"group system:masters"}},
	{name: "system:basic-user", subjects: []string{"group system:authenticated"}},
	{name: "system:discovery", subjects: []string{"group system:authenticated"}},
	{name: "system:kube-controller-manager", subjects: []string{"user system:kube-controller-manager"}},
	{name: "system:kube-dns", subjects: []string{"serviceaccount kube-system/kube-dns"}},
	{name: "system:kube-scheduler", subjects: []string{"user system:kube-scheduler"}},
	{name: "system:monitoring", subjects: []string{"group system:monitoring"}},
	{name: "system:node"},
	{name: "system:node-proxier", subjects: []string{"user system:kube-proxy"}},
	{name: "system:public-info-viewer", subjects: []string{"group system:authenticated", "group system:unauthenticated"}},
	{name: "system:service-account-issuer-discovery", subjects: []string{"group system:serviceaccounts"}},
	{name: "system:volume-scheduler", subjects: []string{"user system:kube-scheduler"}},
}

var bindingRows = []bindingRow{
	{ns: "kube-public", name: "system:controller:bootstrap-signer", subjects: []string{"serviceaccount kube-system/bootstrap-signer"}},
	{ns: "kube-system", name: "system::extension-apiserver-authentication-reader", role: "extension-apiserver-authentication-reader", subjects: []string{"user system:kube-controller-manager", "user system:kube-scheduler"}},
	{ns: "kube-system", name: "system::leader-locking-kube-controller-manager", subjects: []string{"user system:kube-controller-manager", "serviceaccount kube-system/kube-controller-manager", "serviceaccount kube-system/leader-election-controller"}},
	{ns: "kube-system", name: "system::leader-locking-kube-scheduler", subjects: []string{"user system:kube-scheduler", "serviceaccount kube-system/kube-scheduler"}},
	{ns: "kube-system", name: "system:controller:bootstrap-signer", subjects: []string{"serviceaccount kube-system/bootstrap-signer"}},
	{ns: "kube-system", name: "system:controller:cloud-provider", subjects: []string{"serviceaccount kube-system/cloud-provider"}},
	{ns: "kube-system", name: "system:controller:token-cleaner", subjects: []string{"serviceaccount kube-system/token-cleaner"}},
}
