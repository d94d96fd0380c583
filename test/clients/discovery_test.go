package clients

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/disk"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
)

// TestDiscovery asks what there is in the aggregated form and in the older one: both must say the same.
func TestDiscovery(t *testing.T) {
	s := start(t)
	d, err := discovery.NewDiscoveryClientForConfig(s.config())
	must(t, err)
	v, err := d.ServerVersion()
	must(t, err)
	if v.Major != "1" || v.Minor != "36" {
		t.Errorf("version %+v", v)
	}
	groups, resources, err := d.ServerGroupsAndResources()
	must(t, err)
	old, err := discovery.NewDiscoveryClientForConfig(s.config())
	must(t, err)
	old.UseLegacyDiscovery = true
	oldGroups, oldResources, err := old.ServerGroupsAndResources()
	must(t, err)
	if a, b := groupNames(groups), groupNames(oldGroups); !slices.Equal(a, b) {
		t.Errorf("groups\n%v\nolder form\n%v", a, b)
	}
	if a, b := resourceNames(resources), resourceNames(oldResources); !slices.Equal(a, b) {
		t.Errorf("resources\n%v\nolder form\n%v", a, b)
	}
	if n := len(resourceNames(resources)); n < 100 {
		t.Errorf("only %d resources with their subresources", n)
	}
	preferred, err := d.ServerPreferredResources()
	must(t, err)
	if !slices.Contains(resourceNames(preferred), "autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler") {
		t.Errorf("preferred: %v", resourceNames(preferred))
	}
	doc, err := d.OpenAPISchema()
	must(t, err)
	if len(doc.GetDefinitions().GetAdditionalProperties()) < 300 {
		t.Errorf("OpenAPI v2 has %d definitions", len(doc.GetDefinitions().GetAdditionalProperties()))
	}
	paths, err := d.OpenAPIV3().Paths()
	must(t, err)
	apps, err := paths["apis/apps/v1"].Schema("application/json")
	must(t, err)
	if len(apps) == 0 {
		t.Error("OpenAPI v3 of apps/v1 is empty")
	}
}

func groupNames(groups []*metav1.APIGroup) []string {
	var out []string
	for _, g := range groups {
		for _, v := range g.Versions {
			out = append(out, v.GroupVersion)
		}
	}
	slices.Sort(out)
	return out
}

func resourceNames(lists []*metav1.APIResourceList) []string {
	var out []string
	for _, l := range lists {
		for _, r := range l.APIResources {
			out = append(out, l.GroupVersion+" "+r.Name+" "+r.Kind)
		}
	}
	slices.Sort(out)
	return out
}

// TestRESTMapper resolves what people type, short names too.
func TestRESTMapper(t *testing.T) {
	s := start(t)
	d, err := discovery.NewDiscoveryClientForConfig(s.config())
	must(t, err)
	cached := memory.NewMemCacheClient(d)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	for _, c := range []struct {
		typed string
		kind  schema.GroupVersionKind
		scope meta.RESTScopeName
	}{
		{"pods", corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNameNamespace},
		{"po", corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNameNamespace},
		{"deploy", appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNameNamespace},
		{"node", corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeNameRoot},
		{"clusterroles", rbacv1.SchemeGroupVersion.WithKind("ClusterRole"), meta.RESTScopeNameRoot},
		{"hpa", schema.GroupVersionKind{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"}, meta.RESTScopeNameNamespace},
	} {
		kind, err := mapper.KindFor(schema.GroupVersionResource{Resource: c.typed})
		if err != nil || kind != c.kind {
			t.Errorf("%s: %v %v, want %v", c.typed, kind, err, c.kind)
			continue
		}
		m, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil || m.Scope.Name() != c.scope {
			t.Errorf("%s: scope %v %v", c.typed, m, err)
		}
	}
	if _, err := mapper.KindFor(schema.GroupVersionResource{Resource: "gadgets"}); !meta.IsNoMatchError(err) {
		t.Errorf("gadgets: %v", err)
	}
}

// TestCachedDiscovery reads discovery through kubectl's cache on disk: what is read again after it went stale costs no body,
// since the server's ETags say that nothing has changed.
func TestCachedDiscovery(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	read := func() map[int]int {
		t.Helper()
		config := s.config()
		codes := &statuses{count: map[int]int{}}
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { codes.next = next; return codes })
		d, err := disk.NewCachedDiscoveryClientForConfig(config, filepath.Join(dir, "discovery"), filepath.Join(dir, "http"), time.Millisecond)
		must(t, err)
		_, resources, err := d.ServerGroupsAndResources()
		must(t, err)
		if len(resourceNames(resources)) < 100 {
			t.Errorf("%d resources", len(resourceNames(resources)))
		}
		return codes.count
	}
	if first := read(); first[http.StatusOK] == 0 || first[http.StatusNotModified] != 0 {
		t.Errorf("answers at first: %v", first)
	}
	if again := read(); again[http.StatusOK] != 0 || again[http.StatusNotModified] == 0 {
		t.Errorf("answers when asked again: %v, all should be 304", again)
	}
}

// statuses counts answers by their code, below the HTTP cache.
type statuses struct {
	count map[int]int
	next  http.RoundTripper
}

func (s *statuses) RoundTrip(q *http.Request) (*http.Response, error) {
	res, err := s.next.RoundTrip(q)
	if err == nil {
		s.count[res.StatusCode]++
	}
	return res, err
}

// TestScaleClient scales what has a scale, through the client that autoscalers use.
func TestScaleClient(t *testing.T) {
	s := start(t)
	s.namespace("scale")
	two := int32(2)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "demo"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: pod("").ObjectMeta, Spec: pod("").Spec}}}
	_, err := s.clientset().AppsV1().Deployments("scale").Create(t.Context(), d, metav1.CreateOptions{})
	must(t, err)
	dc, err := discovery.NewDiscoveryClientForConfig(s.config())
	must(t, err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(dc))
	sc, err := scale.NewForConfig(s.config(), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(dc))
	must(t, err)
	gr := schema.GroupResource{Group: "apps", Resource: "deployments"}
	got, err := sc.Scales("scale").Get(t.Context(), gr, "web", metav1.GetOptions{})
	must(t, err)
	if got.Spec.Replicas != 2 || got.Status.Selector != "app=demo" {
		t.Errorf("scale %+v", got)
	}
	got.Spec.Replicas = 7
	_, err = sc.Scales("scale").Update(t.Context(), gr, got, metav1.UpdateOptions{})
	must(t, err)
	_, err = sc.Scales("scale").Update(t.Context(), gr, got, metav1.UpdateOptions{})
	if !apierrors.IsConflict(err) {
		t.Errorf("a stale scale: %v", err)
	}
	_, err = sc.Scales("scale").Patch(t.Context(), gr.WithVersion("v1"), "web", types.MergePatchType, []byte(`{"spec":{"replicas":9}}`), metav1.PatchOptions{})
	must(t, err)
	var typed *autoscalingv1.Scale
	typed, err = s.clientset().AppsV1().Deployments("scale").GetScale(t.Context(), "web", metav1.GetOptions{})
	must(t, err)
	if typed.Spec.Replicas != 9 {
		t.Errorf("%d replicas in the end", typed.Spec.Replicas)
	}
}

// TestTokensAndReviews asks for a token of a service account and is that account with it, which may do what a role says.
func TestTokensAndReviews(t *testing.T) {
	s := start(t)
	s.namespace("auth")
	cs := s.clientset()
	_, err := cs.CoreV1().ServiceAccounts("auth").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	must(t, err)
	hour := int64(3600)
	tr, err := cs.CoreV1().ServiceAccounts("auth").CreateToken(t.Context(), "robot", &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	must(t, err)
	if tr.Status.Token == "" || time.Until(tr.Status.ExpirationTimestamp.Time) < 50*time.Minute {
		t.Fatalf("token until %v", tr.Status.ExpirationTimestamp)
	}
	config := s.config()
	config = &rest.Config{Host: config.Host, TLSClientConfig: rest.TLSClientConfig{CAData: config.CAData, CAFile: config.CAFile}, BearerToken: tr.Status.Token}
	robot := clientset(t, config)
	who, err := robot.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authnv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	if who.Status.UserInfo.Username != "system:serviceaccount:auth:robot" || !slices.Contains(who.Status.UserInfo.Groups, "system:serviceaccounts:auth") {
		t.Errorf("I am %+v", who.Status.UserInfo)
	}
	may := func(verb, resource string) bool {
		t.Helper()
		r, err := robot.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authzv1.SelfSubjectAccessReview{Spec: authzv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authzv1.ResourceAttributes{Namespace: "auth", Verb: verb, Resource: resource}}}, metav1.CreateOptions{})
		must(t, err)
		return r.Status.Allowed
	}
	if may("get", "configmaps") {
		t.Error("it may read before it was allowed to")
	}
	if _, err := robot.CoreV1().ConfigMaps("auth").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list before it was allowed: %v", err)
	}
	_, err = cs.RbacV1().Roles("auth").Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}}, metav1.CreateOptions{})
	must(t, err)
	_, err = cs.RbacV1().RoleBindings("auth").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "robot", Namespace: "auth"}}}, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the role counts", func() error {
		_, err := robot.CoreV1().ConfigMaps("auth").List(t.Context(), metav1.ListOptions{})
		return err
	})
	if !may("get", "configmaps") || may("delete", "configmaps") || may("get", "secrets") {
		t.Error("it may read configmaps, and nothing else")
	}
	rules, err := robot.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authzv1.SelfSubjectRulesReview{Spec: authzv1.SelfSubjectRulesReviewSpec{Namespace: "auth"}}, metav1.CreateOptions{})
	must(t, err)
	if !slices.ContainsFunc(rules.Status.ResourceRules, func(r authzv1.ResourceRule) bool { return slices.Contains(r.Resources, "configmaps") }) {
		t.Errorf("rules %+v", rules.Status)
	}
	seen, err := cs.AuthenticationV1().TokenReviews().Create(t.Context(), &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: tr.Status.Token}}, metav1.CreateOptions{})
	must(t, err)
	if !seen.Status.Authenticated || seen.Status.User.Username != who.Status.UserInfo.Username {
		t.Errorf("review %+v", seen.Status)
	}
	must(t, cs.CoreV1().ServiceAccounts("auth").Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	eventually(t, "the token ends with its account", func() error {
		_, err := robot.CoreV1().ConfigMaps("auth").List(t.Context(), metav1.ListOptions{})
		return when(apierrors.IsUnauthorized(err), "list: %v", err)
	})
}
