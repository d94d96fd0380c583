package authz

import (
	"context"
	"strings"
	"sync"
	"testing"

	authzv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/apiserver/authn"
	"karve/client"
)

func meta(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: "u"}
}

func roleRef(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func subjects(list ...string) []rbacv1.Subject {
	return (&bindingRow{subjects: list}).subjectList()
}

// testPolicy is the default policy and some bindings of people.
func testPolicy() []client.Object {
	return append(BootstrapPolicy(),
		&rbacv1.Role{ObjectMeta: meta("ns", "reader"), Rules: parseRules([]string{"get,list core configmaps", "get core secrets one", "update apps deployments/scale", "get * */log"})},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "reader"), RoleRef: roleRef("Role", "reader"), Subjects: subjects("user jane", "serviceaccount ns/robot")},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "views"), RoleRef: roleRef("ClusterRole", "system:aggregate-to-view"), Subjects: subjects("group devs")},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "paths"), Rules: parseRules([]string{"get url /x/*,/y", "get core namespaces"})},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "paths"), RoleRef: roleRef("ClusterRole", "paths"), Subjects: subjects("user carol")},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "dangling"), RoleRef: roleRef("Role", "gone"), Subjects: subjects("user lost")},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "dangling"), RoleRef: roleRef("ClusterRole", "gone"), Subjects: subjects("user lost")},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "local"), RoleRef: roleRef("Role", "reader"), Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "near"}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("ns", "writers"), RoleRef: roleRef("Role", "writer"), Subjects: subjects("user eve")},
		&rbacv1.Role{ObjectMeta: meta("ns", "writer"), Rules: parseRules([]string{"get,create,update,bind rbac.authorization.k8s.io roles,rolebindings", "get,list core configmaps"})},
	)
}

func ask(verb, ns, group, resource, sub, name string) *Attributes {
	return &Attributes{Verb: verb, Namespace: ns, Group: group, Version: "v1", Resource: resource, Subresource: sub, Name: name, ResourceRequest: true}
}

func user(name string, groups ...string) *authn.User { return &authn.User{Name: name, Groups: groups} }

func TestRBAC(t *testing.T) {
	r, _, _ := serve(t, NewRBAC, testPolicy()...)
	z := Union{Masters{}, r}
	path := func(verb, p string) *Attributes { return &Attributes{Verb: verb, Path: p} }
	byReader := `RBAC: allowed by RoleBinding "reader/ns" of Role "reader" to `
	for _, c := range []struct {
		name   string
		u      *authn.User
		a      *Attributes
		want   Decision
		reason string
	}{
		{"nobody", nil, ask("get", "ns", "", "configmaps", "", "a"), NoOpinion, ""},
		{"named user", user("jane"), ask("get", "ns", "", "configmaps", "", "a"), Allow, byReader + `User "jane"`},
		{"service account", user("system:serviceaccount:ns:robot"), ask("list", "ns", "", "configmaps", "", ""), Allow, byReader + `ServiceAccount "robot/ns"`},
		{"service account elsewhere", user("system:serviceaccount:other:robot"), ask("list", "ns", "", "configmaps", "", ""), NoOpinion, ""},
		{"service account of the binding's namespace", user("system:serviceaccount:ns:near"), ask("list", "ns", "", "configmaps", "", ""), Allow, `RBAC: allowed by RoleBinding "local/ns" of Role "reader" to ServiceAccount "near/ns"`},
		{"other verb", user("jane"), ask("watch", "ns", "", "configmaps", "", ""), NoOpinion, ""},
		{"other namespace", user("jane"), ask("get", "default", "", "configmaps", "", "a"), NoOpinion, ""},
		{"cluster scope", user("jane"), ask("list", "", "", "configmaps", "", ""), NoOpinion, ""},
		{"other group", user("jane"), ask("get", "ns", "apps", "configmaps", "", "a"), NoOpinion, ""},
		{"resource name", user("jane"), ask("get", "ns", "", "secrets", "", "one"), Allow, byReader + `User "jane"`},
		{"other name", user("jane"), ask("get", "ns", "", "secrets", "", "two"), NoOpinion, ""},
		{"no name", user("jane"), ask("get", "ns", "", "secrets", "", ""), NoOpinion, ""},
		{"subresource", user("jane"), ask("update", "ns", "apps", "deployments", "scale", "d"), Allow, byReader + `User "jane"`},
		{"not the resource itself", user("jane"), ask("update", "ns", "apps", "deployments", "", "d"), NoOpinion, ""},
		{"any resource's log", user("jane"), ask("get", "ns", "", "pods", "log", "p"), Allow, byReader + `User "jane"`},
		{"a name is no group", user("devs"), ask("list", "ns", "", "pods", "", ""), NoOpinion, ""},
		{"group", user("joe", "devs"), ask("list", "ns", "", "pods", "", ""), Allow, `RBAC: allowed by RoleBinding "views/ns" of ClusterRole "system:aggregate-to-view" to Group "devs"`},
		{"group, secrets", user("joe", "devs"), ask("list", "ns", "", "secrets", "", ""), NoOpinion, ""},
		{"path", user("carol"), path("get", "/x/a"), Allow, `RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to User "carol"`},
		{"exact path", user("carol"), path("get", "/y"), Allow, `RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to User "carol"`},
		{"below an exact path", user("carol"), path("get", "/y/z"), NoOpinion, ""},
		{"other method", user("carol"), path("post", "/y"), NoOpinion, ""},
		{"discovery", user("x", "system:authenticated"), path("get", "/apis/apps"), Allow, `RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated"`},
		{"anonymous version", user(authn.Anonymous, "system:unauthenticated"), path("get", "/version"), Allow, `RBAC: allowed by ClusterRoleBinding "system:public-info-viewer" of ClusterRole "system:public-info-viewer" to Group "system:unauthenticated"`},
		{"anonymous root", user(authn.Anonymous, "system:unauthenticated"), path("get", "/"), NoOpinion, ""},
		{"dangling bindings", user("lost"), ask("get", "ns", "", "pods", "", ""), NoOpinion, `RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "gone" not found]`},
		{"masters", user("root", "system:masters"), ask("delete", "", "", "nodes", "", "n"), Allow, ""},
		{"controller", user("system:serviceaccount:kube-system:job-controller"), ask("update", "x", "batch", "jobs", "status", "j"), Allow, `RBAC: allowed by ClusterRoleBinding "system:controller:job-controller" of ClusterRole "system:controller:job-controller" to ServiceAccount "job-controller/kube-system"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := *c.a
			a.User = c.u
			d, reason, err := z.Authorize(context.Background(), &a)
			if d != c.want || reason != c.reason || err != nil {
				t.Errorf("got %v %q %v, want %v %q", d, reason, err, c.want, c.reason)
			}
		})
	}
}

func TestRBACFollowsChanges(t *testing.T) {
	r, f, c := serve(t, NewRBAC)
	a := ask("get", "ns", "", "pods", "", "")
	a.User = user("jane")
	check := func(want Decision) {
		t.Helper()
		if d, reason, _ := r.Authorize(context.Background(), a); d != want {
			t.Fatalf("got %v %q, want %v", d, reason, want)
		}
	}
	role := &rbacv1.Role{ObjectMeta: meta("ns", "r"), Rules: parseRules([]string{"get core pods"})}
	rb := &rbacv1.RoleBinding{ObjectMeta: meta("ns", "b"), RoleRef: roleRef("Role", "r"), Subjects: subjects("user jane")}
	role.ResourceVersion, rb.ResourceVersion = "2", "3"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // readers meanwhile, for the race detector
		for {
			select {
			case <-stop:
				return
			default:
				_, _, _ = r.Authorize(context.Background(), a)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	wait := func(rv string, bindings bool) {
		t.Helper()
		var err error
		if bindings {
			err = client.CacheOf[*rbacv1.RoleBinding](c).WaitAtLeast(context.Background(), rv)
		} else {
			err = client.CacheOf[*rbacv1.Role](c).WaitAtLeast(context.Background(), rv)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check(NoOpinion)
	seen := make(chan struct{}, 16)
	client.CacheOf[*rbacv1.Role](c).Handle(func(_, _ *rbacv1.Role) { seen <- struct{}{} })
	client.CacheOf[*rbacv1.RoleBinding](c).Handle(func(_, _ *rbacv1.RoleBinding) { seen <- struct{}{} })
	f.watcher("roles").Add(role)
	<-seen
	wait("2", false)
	f.watcher("rolebindings").Add(rb)
	<-seen
	wait("3", true)
	check(Allow)
	other := rb.DeepCopy()
	other.ResourceVersion, other.Subjects = "4", subjects("user joe")
	f.watcher("rolebindings").Modify(other)
	<-seen
	check(NoOpinion)
	back := rb.DeepCopy()
	back.ResourceVersion = "5"
	f.watcher("rolebindings").Modify(back)
	<-seen
	check(Allow)
	gone := rb.DeepCopy()
	gone.ResourceVersion = "6"
	f.watcher("rolebindings").Delete(gone)
	<-seen
	check(NoOpinion)
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		a      Attributes
		reason string
		want   string
	}{
		{Attributes{User: user("jane"), Verb: "list", Resource: "pods", Namespace: "y", ResourceRequest: true}, "", `pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "y"`},
		{Attributes{User: user("jane"), Verb: "get", Resource: "pods", Subresource: "log", Name: "a", Namespace: "y", ResourceRequest: true}, "why", `pods "a" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "y": why`},
		{Attributes{User: user("jane"), Verb: "list", Group: "apps", Resource: "deployments", ResourceRequest: true}, "", `deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" at the cluster scope`},
		{Attributes{User: user("jane"), Verb: "get", Path: "/metrics"}, "", `forbidden: User "jane" cannot get path "/metrics"`},
	} {
		err := Forbidden(&c.a, c.reason)
		if err.Error() != c.want || !apierrors.IsForbidden(err) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestReviews(t *testing.T) {
	r, _, _ := serve(t, NewRBAC, testPolicy()...)
	z := Union{Masters{}, r}
	ctx := context.Background()
	pods := &authzv1.ResourceAttributes{Namespace: "ns", Verb: "get", Resource: "configmaps"}
	sar := &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{User: "jane", ResourceAttributes: pods}}
	if err := Review(ctx, z, sar); err != nil || !sar.Status.Allowed || !strings.HasPrefix(sar.Status.Reason, "RBAC: allowed by") {
		t.Errorf("%v %+v", err, sar.Status)
	}
	self := &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authzv1.NonResourceAttributes{Path: "/metrics", Verb: "get"}}}
	if err := SelfReview(ctx, z, user("jane"), self); err != nil || self.Status.Allowed || self.Status.Denied || self.Status.Reason != "" {
		t.Errorf("%v %+v", err, self.Status)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"neither": {SelfReview(ctx, z, user("x"), &authzv1.SelfSubjectAccessReview{}),
			`.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`},
		"both": {SelfReview(ctx, z, user("x"), &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods, NonResourceAttributes: &authzv1.NonResourceAttributes{Path: "/x", Verb: "get"}}}),
			`.authorization.k8s.io "" is invalid: spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":"get"}: cannot be specified in combination with resourceAttributes`},
		"nobody": {Review(ctx, z, &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{ResourceAttributes: pods}}),
			`.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified`},
		"elsewhere": {LocalReview(ctx, z, "other", &authzv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "other"}, Spec: authzv1.SubjectAccessReviewSpec{User: "x", ResourceAttributes: pods}}),
			`.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "ns": must match metadata.namespace`},
		"empty selector": {SelfReview(ctx, z, user("x"), &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authzv1.ResourceAttributes{FieldSelector: &authzv1.FieldSelectorAttributes{}}}}),
			`.authorization.k8s.io "" is invalid: spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required`},
		"no values": {SelfReview(ctx, z, user("x"), &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authzv1.ResourceAttributes{LabelSelector: &authzv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In"}}}}}}),
			".authorization.k8s.io \"\" is invalid: spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"},
		"no namespace": {r.SelfRules(user("x"), &authzv1.SelfSubjectRulesReview{}), "no namespace on request"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, c.err, c.want)
		}
	}
	local := &authzv1.LocalSubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{User: "jane", ResourceAttributes: pods}}
	if err := LocalReview(ctx, z, "ns", local); err != nil || !local.Status.Allowed || local.Namespace != "ns" {
		t.Errorf("%v %+v", err, local)
	}
	odd := pods.DeepCopy()
	odd.FieldSelector = &authzv1.FieldSelectorAttributes{RawSelector: "Not_Valid/!"}
	odd.LabelSelector = &authzv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Exists"}, {Key: "b", Operator: "Near"}}}
	self = &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{ResourceAttributes: odd}}
	if err := SelfReview(ctx, z, user("jane"), self); err != nil || !self.Status.Allowed ||
		self.Status.EvaluationError != "[spec.resourceAttributes.fieldSelector ignored due to parse error, spec.resourceAttributes.labelSelector partially ignored due to parse error]" {
		t.Errorf("%v %+v", err, self.Status)
	}
	rules := &authzv1.SelfSubjectRulesReview{Spec: authzv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}}
	if err := r.SelfRules(user("carol", "devs"), rules); err != nil || rules.Status.Incomplete || len(rules.Status.NonResourceRules) != 1 || len(rules.Status.ResourceRules) < 10 {
		t.Errorf("%v %+v", err, rules.Status)
	}
	if rules.Spec.Namespace != "" {
		t.Error("the question is part of the answer")
	}
	rules.Spec.Namespace = "ns"
	if err := r.SelfRules(user("system:node:n", "system:nodes"), rules); err != nil || !rules.Status.Incomplete {
		t.Errorf("a node's rules are said to be complete (%v)", err)
	}
}

func TestEscalation(t *testing.T) {
	r, _, _ := serve(t, NewRBAC, testPolicy()...)
	z := Union{Masters{}, r}
	eve := user("eve", "system:authenticated")
	role := func(name string, rules ...string) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: meta("ns", name), Rules: parseRules(rules)}
	}
	prefix := `roles.rbac.authorization.k8s.io "x" is forbidden: user "eve" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n"
	within := role("x", "get core configmaps")
	for _, c := range []struct {
		name     string
		u        *authn.User
		obj, old client.Object
		want     string
	}{
		{"within", eve, within, nil, ""},
		{"beyond", eve, role("x", "get core secrets", "get,delete core configmaps"), nil, prefix + "{APIGroups:[\"\"], Resources:[\"configmaps\"], Verbs:[\"delete\"]}\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"},
		{"everything", eve, role("x", "* * *"), nil, prefix + `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		{"unchanged rules", eve, role("x", "* * *"), role("x", "* * *"), ""},
		{"master", user("root", "system:masters"), role("x", "* * *"), nil, ""},
		{"bind a role one may bind", eve, &rbacv1.RoleBinding{ObjectMeta: meta("ns", "b"), RoleRef: roleRef("Role", "reader")}, nil, ""},
		{"bind a cluster role beyond", eve, &rbacv1.RoleBinding{ObjectMeta: meta("ns", "b"), RoleRef: roleRef("ClusterRole", "paths")}, nil,
			`rolebindings.rbac.authorization.k8s.io "b" is forbidden: user "eve" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n{APIGroups:[\"\"], Resources:[\"namespaces\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/x/*\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/y\"], Verbs:[\"get\"]}"},
		{"bind a role that is not there", eve, &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "b"), RoleRef: roleRef("ClusterRole", "gone")}, nil, `clusterrole.rbac.authorization.k8s.io "gone" not found`},
		{"aggregation", eve, &rbacv1.ClusterRole{ObjectMeta: meta("", "x"), AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}, nil, "attempting to grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if c.old == nil {
				err = CheckEscalation(context.Background(), z, r, c.u, c.obj, nil)
			} else {
				err = CheckEscalation(context.Background(), z, r, c.u, c.obj, c.old)
			}
			got := ""
			if err != nil {
				got = err.Error()
			}
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func BenchmarkRBAC(b *testing.B) {
	r := &RBAC{bindings: map[string]map[string][]*grant{}}
	for _, o := range testPolicy() {
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			r.setRole("/"+o.Name, o.Rules, false)
		case *rbacv1.ClusterRoleBinding:
			r.setBinding("", o.Name, o.Name, o.RoleRef, o.Subjects, false)
		}
	}
	a := ask("update", "x", "batch", "jobs", "status", "j")
	a.User = user("system:serviceaccount:kube-system:job-controller", "system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
	b.ReportAllocs()
	for b.Loop() {
		if d, _, _ := r.Authorize(context.Background(), a); d != Allow {
			b.Fatal(d)
		}
	}
}
