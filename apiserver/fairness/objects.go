package fairness

import (
	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names of the objects that there must be.
const (
	exempt   = "exempt"
	catchAll = "catch-all"
)

// autoUpdate is the annotation that says whether the server keeps an object's spec as it is below.
const autoUpdate = "apf.kubernetes.io/autoupdate-spec"

// mandatory says which objects no annotation lets go.
func mandatory(name string) bool { return name == exempt || name == catchAll }

// levels are the priority levels every cluster has, the mandatory ones first.
func levels() []*flowv1.PriorityLevelConfiguration {
	zero := int32(0)
	return []*flowv1.PriorityLevelConfiguration{
		plc(exempt, flowv1.PriorityLevelConfigurationSpec{Type: flowv1.PriorityLevelEnablementExempt,
			Exempt: &flowv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: &zero, LendablePercent: &zero}}),
		limited(catchAll, 5, 0, 0, 0),
		limited("system", 30, 33, 64, 6),
		limited("node-high", 40, 25, 64, 6),
		limited("leader-election", 10, 0, 16, 4),
		limited("workload-high", 40, 50, 128, 6),
		limited("workload-low", 100, 90, 128, 6),
		limited("global-default", 20, 50, 128, 6),
	}
}

// limited is a level that queues, or rejects when it has no queues.
func limited(name string, shares, lendable, queues, hand int32) *flowv1.PriorityLevelConfiguration {
	l := &flowv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: &shares, LendablePercent: &lendable,
		LimitResponse: flowv1.LimitResponse{Type: flowv1.LimitResponseTypeReject}}
	if queues > 0 {
		l.LimitResponse = flowv1.LimitResponse{Type: flowv1.LimitResponseTypeQueue, Queuing: &flowv1.QueuingConfiguration{Queues: queues, HandSize: hand, QueueLengthLimit: 50}}
	}
	return plc(name, flowv1.PriorityLevelConfigurationSpec{Type: flowv1.PriorityLevelEnablementLimited, Limited: l})
}

func plc(name string, spec flowv1.PriorityLevelConfigurationSpec) *flowv1.PriorityLevelConfiguration {
	return &flowv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{autoUpdate: "true"}}, Spec: spec}
}

var (
	star         = []string{"*"}
	core         = []string{""}
	coordination = []string{"coordination.k8s.io"}
	elect        = []string{"get", "create", "update"}
)

// schemas are the flow schemas every cluster has, the mandatory ones first.
func schemas() []*flowv1.FlowSchema {
	const byUser, byNamespace = flowv1.FlowDistinguisherMethodByUserType, flowv1.FlowDistinguisherMethodByNamespaceType
	everyone := groups("system:unauthenticated", "system:authenticated")
	manager, scheduler := user("system:kube-controller-manager"), user("system:kube-scheduler")
	leases := on(elect, coordination, []string{"leases"}, false)
	return []*flowv1.FlowSchema{
		schema(exempt, exempt, 1, "", everything(groups("system:masters"))),
		schema(catchAll, catchAll, 10000, byUser, everything(everyone)),
		schema("system-nodes", "system", 500, byUser, everything(groups("system:nodes"))),
		schema("system-node-high", "node-high", 400, byUser, flowv1.PolicyRulesWithSubjects{Subjects: groups("system:nodes"), ResourceRules: []flowv1.ResourcePolicyRule{
			on(star, core, []string{"nodes", "nodes/status"}, true), on(star, coordination, []string{"leases"}, false)}}),
		schema("probes", exempt, 2, "", flowv1.PolicyRulesWithSubjects{Subjects: everyone, NonResourceRules: []flowv1.NonResourcePolicyRule{
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}}}}),
		schema("system-leader-election", "leader-election", 100, byUser, flowv1.PolicyRulesWithSubjects{
			Subjects: []flowv1.Subject{manager, scheduler, account("*")}, ResourceRules: []flowv1.ResourcePolicyRule{leases}}),
		schema("endpoint-controller", "workload-high", 150, byUser, flowv1.PolicyRulesWithSubjects{
			Subjects:      []flowv1.Subject{manager, account("endpoint-controller"), account("endpointslicemirroring-controller")},
			ResourceRules: []flowv1.ResourcePolicyRule{on(elect, core, []string{"endpoints"}, false)}}),
		schema("workload-leader-election", "leader-election", 200, byUser, flowv1.PolicyRulesWithSubjects{
			Subjects: []flowv1.Subject{account("*")}, ResourceRules: []flowv1.ResourcePolicyRule{on(elect, core, []string{"endpoints", "configmaps"}, false), leases}}),
		schema("kube-controller-manager", "workload-high", 800, byNamespace, everything([]flowv1.Subject{manager})),
		schema("kube-scheduler", "workload-high", 800, byNamespace, everything([]flowv1.Subject{scheduler})),
		schema("kube-system-service-accounts", "workload-high", 900, byNamespace, everything([]flowv1.Subject{account("*")})),
		schema("service-accounts", "workload-low", 9000, byUser, everything(groups("system:serviceaccounts"))),
		schema("global-default", "global-default", 9900, byUser, everything(everyone)),
	}
}

func schema(name, level string, precedence int32, by flowv1.FlowDistinguisherMethodType, rule flowv1.PolicyRulesWithSubjects) *flowv1.FlowSchema {
	s := &flowv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{autoUpdate: "true"}}, Spec: flowv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowv1.PriorityLevelConfigurationReference{Name: level}, MatchingPrecedence: precedence, Rules: []flowv1.PolicyRulesWithSubjects{rule}}}
	if by != "" {
		s.Spec.DistinguisherMethod = &flowv1.FlowDistinguisherMethod{Type: by}
	}
	return s
}

// everything is a rule for all that the subjects send.
func everything(by []flowv1.Subject) flowv1.PolicyRulesWithSubjects {
	return flowv1.PolicyRulesWithSubjects{Subjects: by, ResourceRules: []flowv1.ResourcePolicyRule{on(star, star, star, true)},
		NonResourceRules: []flowv1.NonResourcePolicyRule{{Verbs: star, NonResourceURLs: star}}}
}

// on is a rule for resources in every namespace and, with cluster, outside of them.
func on(verbs, apiGroups, resources []string, cluster bool) flowv1.ResourcePolicyRule {
	return flowv1.ResourcePolicyRule{Verbs: verbs, APIGroups: apiGroups, Resources: resources, Namespaces: star, ClusterScope: cluster}
}

func user(name string) flowv1.Subject {
	return flowv1.Subject{Kind: flowv1.SubjectKindUser, User: &flowv1.UserSubject{Name: name}}
}

// account is a service account of the system's namespace, or all of them.
func account(name string) flowv1.Subject {
	return flowv1.Subject{Kind: flowv1.SubjectKindServiceAccount, ServiceAccount: &flowv1.ServiceAccountSubject{Namespace: metav1.NamespaceSystem, Name: name}}
}

func groups(names ...string) []flowv1.Subject {
	var out []flowv1.Subject
	for _, n := range names {
		out = append(out, flowv1.Subject{Kind: flowv1.SubjectKindGroup, Group: &flowv1.GroupSubject{Name: n}})
	}
	return out
}
