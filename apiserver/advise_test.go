package apiserver

import (
	"net/http"
	"strings"
	"testing"
)

// TestForbiddenNamesTheRule asks as several users for what they may not have: everybody is told the rule that would allow the
// request, which is the request itself; which cluster roles have it is for those who may list them.
func TestForbiddenNamesTheRule(t *testing.T) {
	r := start(t)
	rbac := func(kind, name, rest string) {
		t.Helper()
		r.must(http.StatusCreated, nil, "POST", "/apis/rbac.authorization.k8s.io/v1/"+strings.ToLower(kind)+"s",
			`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"`+kind+`","metadata":{"name":"`+name+`"},`+rest+`}`)
	}
	rbac("ClusterRole", "role-reader", `"rules":[{"apiGroups":["rbac.authorization.k8s.io"],"resources":["clusterroles"],"verbs":["list"]}]`)
	rbac("ClusterRole", "cm-reader", `"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]`)
	rbac("ClusterRoleBinding", "role-reader", `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"role-reader"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"bob"}]`)
	const rule = `; a Role with the rule {apiGroups: [""], resources: ["configmaps"], verbs: ["list"]} bound to the user in the namespace "default" would allow it`
	for _, c := range []struct{ user, path, said, added string }{
		{"alice", cms, `User "alice" cannot list resource "configmaps" in API group "" in the namespace "default"`, rule + "; to ask: "},
		{"bob", cms, `in the namespace "default"`, rule + `, and these cluster roles hold one: "cm-reader"; to ask: `},
		{"system:node:n1", "/api/v1/namespaces/default/pods", `in the namespace "default"`, ""},
		{"alice", "/metrics", `cannot get path "/metrics"`, `; a ClusterRole with the rule {nonResourceURLs: ["/metrics"], verbs: ["get"]} would allow it; to ask: `},
	} {
		got := ""
		// roles reach the authorizer a moment after they are written
		for range 200 {
			headers := []string{"Impersonate-User: " + c.user}
			if strings.HasPrefix(c.user, "system:node:") {
				headers = append(headers, "Impersonate-Group: system:nodes")
			}
			st := r.must(http.StatusForbidden, nil, "GET", c.path, "", headers...).status()
			if got = st.Message; strings.Contains(got, c.said+c.added) || c.added == "" {
				break
			}
		}
		if !strings.Contains(got, c.said+c.added) || c.added == "" && strings.Contains(got, "would allow it") {
			t.Errorf("%s, %s:\n got %s\nwant %s%s", c.user, c.path, got, c.said, c.added)
		}
	}
}

// TestUnknownGroupIsAnsweredAsEver looks at the one error that is no Status: its text is fixed, and help is a warning.
func TestUnknownGroupIsAnsweredAsEver(t *testing.T) {
	r := start(t)
	a := r.do("GET", "/apis/app/v1/deployments", "")
	if a.StatusCode != http.StatusNotFound || string(a.body) != "404 page not found\n" ||
		a.Header.Get("Warning") != `299 - "did you mean /apis/apps/v1/namespaces/NAMESPACE/deployments?"` {
		t.Errorf("%d %q, warning %q", a.StatusCode, a.body, a.Header.Get("Warning"))
	}
}
