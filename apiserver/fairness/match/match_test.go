package match

import (
	"testing"

	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func schema(name string, precedence int32, rules ...flowv1.PolicyRulesWithSubjects) *flowv1.FlowSchema {
	return &flowv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: flowv1.FlowSchemaSpec{MatchingPrecedence: precedence, Rules: rules}}
}

func subjects(list ...flowv1.Subject) []flowv1.Subject { return list }

func user(name string) flowv1.Subject {
	return flowv1.Subject{Kind: flowv1.SubjectKindUser, User: &flowv1.UserSubject{Name: name}}
}

func group(name string) flowv1.Subject {
	return flowv1.Subject{Kind: flowv1.SubjectKindGroup, Group: &flowv1.GroupSubject{Name: name}}
}

func account(ns, name string) flowv1.Subject {
	return flowv1.Subject{Kind: flowv1.SubjectKindServiceAccount, ServiceAccount: &flowv1.ServiceAccountSubject{Namespace: ns, Name: name}}
}

func TestOrder(t *testing.T) {
	all := flowv1.PolicyRulesWithSubjects{Subjects: subjects(user("*")), NonResourceRules: []flowv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}}
	m := Compile([]*flowv1.FlowSchema{schema("c", 5, all), schema("b", 7, all), schema("a", 7, all), schema("z", 1)})
	var got []string
	for _, s := range m.Schemas {
		got = append(got, s.Name)
	}
	if len(got) != 4 || got[0] != "z" || got[1] != "c" || got[2] != "a" || got[3] != "b" {
		t.Errorf("order %v", got)
	}
	if i := m.Match(&Attributes{User: "u", Verb: "get", Path: "/x"}); i != 1 {
		t.Errorf("matched %d, want the first that has rules", i)
	}
	if i := m.Match(&Attributes{User: "u", Verb: "get", IsResource: true, Resource: "pods"}); i != -1 {
		t.Errorf("matched %d, want none", i)
	}
}

func TestSubjects(t *testing.T) {
	tests := []struct {
		name string
		by   flowv1.Subject
		user string
		in   []string
		want bool
	}{
		{"user", user("jane"), "jane", nil, true},
		{"another user", user("jane"), "joe", nil, false},
		{"any user", user("*"), "joe", nil, true},
		{"group", group("ops"), "joe", []string{"dev", "ops"}, true},
		{"another group", group("ops"), "ops", []string{"dev"}, false},
		{"any group", group("*"), "joe", nil, true},
		{"account", account("ns", "bot"), "system:serviceaccount:ns:bot", nil, true},
		{"an account of that name elsewhere", account("ns", "bot"), "system:serviceaccount:other:bot", nil, false},
		{"any account of a namespace", account("ns", "*"), "system:serviceaccount:ns:x", nil, true},
		{"of a namespace that begins alike", account("ns", "*"), "system:serviceaccount:ns2:x", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Compile([]*flowv1.FlowSchema{schema("s", 1, flowv1.PolicyRulesWithSubjects{Subjects: subjects(tt.by),
				NonResourceRules: []flowv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}})})
			if got := m.Match(&Attributes{User: tt.user, Groups: tt.in, Verb: "get", Path: "/"}) == 0; got != tt.want {
				t.Errorf("matched %v", got)
			}
		})
	}
}

func TestResourceRules(t *testing.T) {
	all := []string{"*"}
	rule := func(verbs, groups, resources, namespaces []string, cluster bool) flowv1.ResourcePolicyRule {
		return flowv1.ResourcePolicyRule{Verbs: verbs, APIGroups: groups, Resources: resources, Namespaces: namespaces, ClusterScope: cluster}
	}
	get := Attributes{Verb: "get", IsResource: true, Group: "apps", Resource: "deployments", Namespace: "a"}
	with := func(change func(a *Attributes)) Attributes { a := get; change(&a); return a }
	tests := []struct {
		name string
		rule flowv1.ResourcePolicyRule
		a    Attributes
		want bool
	}{
		{"everything", rule(all, all, all, all, true), get, true},
		{"verb", rule([]string{"list"}, all, all, all, true), get, false},
		{"group", rule(all, []string{"", "apps"}, all, all, false), get, true},
		{"another group", rule(all, []string{""}, all, all, false), get, false},
		{"resource", rule(all, all, []string{"pods", "deployments"}, all, false), get, true},
		{"a subresource is another resource", rule(all, all, []string{"deployments"}, all, false), with(func(a *Attributes) { a.Subresource = "scale" }), false},
		{"subresource", rule(all, all, []string{"deployments/scale"}, all, false), with(func(a *Attributes) { a.Subresource = "scale" }), true},
		{"every resource has every subresource", rule(all, all, all, all, false), with(func(a *Attributes) { a.Subresource = "scale" }), true},
		{"namespace", rule(all, all, all, []string{"b", "a"}, false), get, true},
		{"another namespace", rule(all, all, all, []string{"b"}, true), get, false},
		{"cluster scope is not any namespace", rule(all, all, all, nil, true), get, false},
		{"any namespace is not cluster scope", rule(all, all, all, all, false), with(func(a *Attributes) { a.Namespace = "" }), false},
		{"cluster scope", rule(all, all, all, nil, true), with(func(a *Attributes) { a.Namespace = "" }), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Compile([]*flowv1.FlowSchema{schema("s", 1, flowv1.PolicyRulesWithSubjects{Subjects: subjects(user("*")), ResourceRules: []flowv1.ResourcePolicyRule{tt.rule}})})
			if got := m.Match(&tt.a) == 0; got != tt.want {
				t.Errorf("matched %v", got)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	tests := []struct {
		url, path string
		want      bool
	}{
		{"*", "/any", true}, {"/healthz", "/healthz", true}, {"/healthz", "/healthz/ping", false}, {"/healthz/*", "/healthz/ping", true},
		{"/healthz/*", "/healthz", false}, {"/", "/", true}, {"/", "/x", false},
	}
	for _, tt := range tests {
		m := Compile([]*flowv1.FlowSchema{schema("s", 1, flowv1.PolicyRulesWithSubjects{Subjects: subjects(user("*")),
			NonResourceRules: []flowv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{tt.url}}}})})
		if got := m.Match(&Attributes{Verb: "get", Path: tt.path}) == 0; got != tt.want {
			t.Errorf("%s on %s: matched %v", tt.url, tt.path, got)
		}
		if m.Match(&Attributes{Verb: "post", Path: tt.path}) == 0 {
			t.Errorf("%s matched another verb", tt.url)
		}
	}
}

func TestDistinguisher(t *testing.T) {
	a := &Attributes{User: "u", Namespace: "n"}
	s := schema("s", 1)
	if d := Distinguisher(s, a); d != "" {
		t.Errorf("none: %q", d)
	}
	for method, want := range map[flowv1.FlowDistinguisherMethodType]string{flowv1.FlowDistinguisherMethodByUserType: "u", flowv1.FlowDistinguisherMethodByNamespaceType: "n"} {
		s.Spec.DistinguisherMethod = &flowv1.FlowDistinguisherMethod{Type: method}
		if d := Distinguisher(s, a); d != want {
			t.Errorf("%s: %q", method, d)
		}
	}
}
