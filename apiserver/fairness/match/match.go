// Package match finds the flow schema that a request belongs to, and its flow within that. apiserver/fairness compiles the
// FlowSchemas of the cluster whenever they change and asks for every request. It is pure.
package match

import (
	"cmp"
	"slices"
	"strings"

	flowv1 "k8s.io/api/flowcontrol/v1"
)

// Attributes are what a request is classified by.
type Attributes struct {
	User   string
	Groups []string
	Verb   string
	// IsResource says whether the request is for a resource, described by the fields below, or for Path.
	IsResource                              bool
	Path                                    string
	Namespace, Group, Resource, Subresource string
}

// Matcher is an ordered set of schemas. It is never changed, only replaced.
type Matcher struct {
	Schemas []*flowv1.FlowSchema // in the order they are tried
	rules   [][]rule
}

// Compile puts schemas in order of precedence, those of equal precedence by name. The objects are not changed.
func Compile(schemas []*flowv1.FlowSchema) *Matcher {
	m := &Matcher{Schemas: slices.Clone(schemas)}
	slices.SortFunc(m.Schemas, func(a, b *flowv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range m.Schemas {
		var rules []rule
		for i := range s.Spec.Rules {
			rules = append(rules, compile(&s.Spec.Rules[i]))
		}
		m.rules = append(m.rules, rules)
	}
	return m
}

// Match returns the index of the first schema the request matches, -1 if there is none.
func (m *Matcher) Match(a *Attributes) int {
	for i, rules := range m.rules {
		for j := range rules {
			if rules[j].matches(a) {
				return i
			}
		}
	}
	return -1
}

// Distinguisher returns what tells the flows of a schema apart, for this request.
func Distinguisher(s *flowv1.FlowSchema, a *Attributes) string {
	if m := s.Spec.DistinguisherMethod; m != nil {
		switch m.Type {
		case flowv1.FlowDistinguisherMethodByUserType:
			return a.User
		case flowv1.FlowDistinguisherMethodByNamespaceType:
			return a.Namespace
		}
	}
	return ""
}

// set is a list of words, or any.
type set struct {
	any   bool
	words []string
}

func words(list []string) set {
	if slices.Contains(list, "*") {
		return set{any: true}
	}
	return set{words: list}
}

func (s *set) has(word string) bool { return s.any || slices.Contains(s.words, word) }

func (s *set) hasOneOf(list []string) bool {
	if s.any {
		return true
	}
	for _, w := range s.words {
		if slices.Contains(list, w) {
			return true
		}
	}
	return false
}

// rule is one rule of a schema: a request matches by who sends it and by what it is for.
type rule struct {
	users, groups set
	accounts      []string // prefixes of the names of service accounts, one per namespace
	resources     []resourceRule
	paths         []pathRule
}

type resourceRule struct {
	verbs, groups, namespaces set
	anyResource               bool
	resources                 [][2]string // resource, subresource
	cluster                   bool
}

type pathRule struct {
	verbs    set
	any      bool
	exact    []string
	prefixes []string
}

func compile(p *flowv1.PolicyRulesWithSubjects) rule {
	var r rule
	var users, groups []string
	for _, s := range p.Subjects {
		switch {
		case s.Kind == flowv1.SubjectKindUser && s.User != nil:
			users = append(users, s.User.Name)
		case s.Kind == flowv1.SubjectKindGroup && s.Group != nil:
			groups = append(groups, s.Group.Name)
		case s.Kind == flowv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
			prefix := "system:serviceaccount:" + s.ServiceAccount.Namespace + ":"
			if s.ServiceAccount.Name == flowv1.NameAll {
				r.accounts = append(r.accounts, prefix)
			} else {
				users = append(users, prefix+s.ServiceAccount.Name)
			}
		}
	}
	r.users, r.groups = words(users), words(groups)
	for _, c := range p.ResourceRules {
		x := resourceRule{verbs: words(c.Verbs), groups: words(c.APIGroups), namespaces: words(c.Namespaces), cluster: c.ClusterScope}
		for _, name := range c.Resources {
			resource, sub, _ := strings.Cut(name, "/")
			x.resources = append(x.resources, [2]string{resource, sub})
			x.anyResource = x.anyResource || name == flowv1.ResourceAll
		}
		r.resources = append(r.resources, x)
	}
	for _, c := range p.NonResourceRules {
		x := pathRule{verbs: words(c.Verbs)}
		for _, u := range c.NonResourceURLs {
			switch {
			case u == flowv1.NonResourceAll:
				x.any = true
			case strings.HasSuffix(u, "*"):
				x.prefixes = append(x.prefixes, strings.TrimRight(u, "*"))
			default:
				x.exact = append(x.exact, u)
			}
		}
		r.paths = append(r.paths, x)
	}
	return r
}

func (r *rule) matches(a *Attributes) bool {
	if a.IsResource && len(r.resources) == 0 || !a.IsResource && len(r.paths) == 0 || !r.sentBy(a) {
		return false
	}
	if a.IsResource {
		for i := range r.resources {
			if r.resources[i].matches(a) {
				return true
			}
		}
		return false
	}
	for i := range r.paths {
		if r.paths[i].matches(a) {
			return true
		}
	}
	return false
}

func (r *rule) sentBy(a *Attributes) bool {
	if r.users.has(a.User) || r.groups.hasOneOf(a.Groups) {
		return true
	}
	for _, p := range r.accounts {
		if strings.HasPrefix(a.User, p) {
			return true
		}
	}
	return false
}

func (r *resourceRule) matches(a *Attributes) bool {
	if !r.verbs.has(a.Verb) || !r.groups.has(a.Group) {
		return false
	}
	if a.Namespace == "" && !r.cluster || a.Namespace != "" && !r.namespaces.has(a.Namespace) {
		return false
	}
	return r.anyResource || slices.Contains(r.resources, [2]string{a.Resource, a.Subresource})
}

func (r *pathRule) matches(a *Attributes) bool {
	if !r.verbs.has(a.Verb) {
		return false
	}
	if r.any || slices.Contains(r.exact, a.Path) {
		return true
	}
	for _, p := range r.prefixes {
		if strings.HasPrefix(a.Path, p) {
			return true
		}
	}
	return false
}
