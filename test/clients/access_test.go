package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func TestDynamicClient(t *testing.T) {
	s := start(t)
	s.namespace("dyn")
	dyn, err := dynamic.NewForConfig(s.config())
	must(t, err)
	api := dyn.Resource(configMaps).Namespace("dyn")
	made, err := api.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "a"}, "data": map[string]any{"k": "1"}}}, metav1.CreateOptions{})
	must(t, err)
	if made.GetUID() == "" || made.GetKind() != "ConfigMap" {
		t.Errorf("made %v", made.Object)
	}
	must(t, unstructured.SetNestedField(made.Object, "2", "data", "k"))
	_, err = api.Update(t.Context(), made, metav1.UpdateOptions{})
	must(t, err)
	got, err := api.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"data":{"l":"3"}}`), metav1.PatchOptions{})
	must(t, err)
	if data, _, _ := unstructured.NestedStringMap(got.Object, "data"); data["k"] != "2" || data["l"] != "3" {
		t.Errorf("data %v", data)
	}
	list, err := api.List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != 1 || list.GetKind() != "ConfigMapList" || list.Items[0].GetKind() != "ConfigMap" {
		t.Errorf("list of %s: %v", list.GetKind(), list.Items)
	}
	if _, err := api.Get(t.Context(), "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get of what is not there: %v", err)
	}
	follow(t, dynamicinformer.NewFilteredDynamicSharedInformerFactory(dyn, 0, "dyn", nil).ForResource(configMaps).Informer(), func() error {
		return api.Delete(t.Context(), "a", metav1.DeleteOptions{})
	})
}

func TestMetadataClient(t *testing.T) {
	s := start(t)
	s.namespace("meta")
	_, err := s.clientset().CoreV1().ConfigMaps("meta").Create(t.Context(), configMap("a", strings.Repeat("x", 1000)), metav1.CreateOptions{})
	must(t, err)
	md, err := metadata.NewForConfig(s.config())
	must(t, err)
	api := md.Resource(configMaps).Namespace("meta")
	got, err := api.Get(t.Context(), "a", metav1.GetOptions{})
	must(t, err)
	if got.Name != "a" || got.UID == "" {
		t.Errorf("got %+v", got)
	}
	list, err := api.List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != 1 || list.ResourceVersion == "" {
		t.Errorf("list %+v", list)
	}
	got, err = api.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"l":"1"}}}`), metav1.PatchOptions{})
	must(t, err)
	if got.Labels["l"] != "1" || got.Name != "a" {
		t.Errorf("patched %+v", got)
	}
	follow(t, metadatainformer.NewFilteredSharedInformerFactory(md, 0, "meta", nil).ForResource(configMaps).Informer(), func() error {
		return api.Delete(t.Context(), "a", metav1.DeleteOptions{})
	})
}

// follow fills an informer that knows one object, and sees it go.
func follow(t *testing.T, inf cache.SharedIndexInformer, remove func() error) {
	t.Helper()
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() { inf.Run(stop) })
	defer func() { close(stop); done.Wait() }()
	eventually(t, "the informer fills", func() error {
		return when(inf.HasSynced() && len(inf.GetStore().List()) == 1, "%d objects", len(inf.GetStore().List()))
	})
	must(t, remove())
	eventually(t, "the informer sees it go", func() error {
		return when(len(inf.GetStore().List()) == 0, "%d objects", len(inf.GetStore().List()))
	})
}

// TestApply has two managers share a Deployment through typed apply configurations: what each said is found again, what the
// other owns is a conflict, and what is no longer said goes.
func TestApply(t *testing.T) {
	s := start(t)
	s.namespace("apply")
	api := s.clientset().AppsV1().Deployments("apply")
	labels := map[string]string{"app": "web"}
	web := func(image string) *appsac.DeploymentApplyConfiguration {
		return appsac.Deployment("web", "apply").WithLabels(map[string]string{"tier": "front"}).WithSpec(appsac.DeploymentSpec().WithReplicas(2).
			WithSelector(metaac.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(coreac.PodTemplateSpec().WithLabels(labels).WithSpec(coreac.PodSpec().WithContainers(coreac.Container().WithName("c").WithImage(image)))))
	}
	d, err := api.Apply(t.Context(), web("registry.example/c:1"), metav1.ApplyOptions{FieldManager: "owner"})
	must(t, err)
	if *d.Spec.Replicas != 2 || len(d.ManagedFields) != 1 || d.ManagedFields[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("applied %+v", d)
	}
	said, err := appsac.ExtractDeployment(d, "owner")
	must(t, err)
	if a, b := asJSON(t, said), asJSON(t, web("registry.example/c:1")); a != b {
		t.Errorf("extracted\n%s\nsaid\n%s", a, b)
	}
	again, err := api.Apply(t.Context(), said, metav1.ApplyOptions{FieldManager: "owner"})
	must(t, err)
	if again.ResourceVersion != d.ResourceVersion {
		t.Errorf("saying the same again changed %s to %s", d.ResourceVersion, again.ResourceVersion)
	}
	scale := appsac.Deployment("web", "apply").WithSpec(appsac.DeploymentSpec().WithReplicas(5))
	_, err = api.Apply(t.Context(), scale, metav1.ApplyOptions{FieldManager: "scaler"})
	if !apierrors.IsConflict(err) || !strings.Contains(fmt.Sprint(err), ".spec.replicas") || !strings.Contains(fmt.Sprint(err), `"owner"`) {
		t.Errorf("a conflict over .spec.replicas with \"owner\" was due: %v", err)
	}
	var st *apierrors.StatusError
	if !errors.As(err, &st) || len(st.ErrStatus.Details.Causes) != 1 || st.ErrStatus.Details.Causes[0].Type != metav1.CauseTypeFieldManagerConflict {
		t.Errorf("causes of the conflict: %+v", st)
	}
	d, err = api.Apply(t.Context(), scale, metav1.ApplyOptions{FieldManager: "scaler", Force: true})
	must(t, err)
	if *d.Spec.Replicas != 5 {
		t.Errorf("%d replicas after force", *d.Spec.Replicas)
	}
	quiet := web("registry.example/c:2") // says nothing of replicas any more, nor of its label
	quiet.Labels, quiet.Spec.Replicas = nil, nil
	d, err = api.Apply(t.Context(), quiet, metav1.ApplyOptions{FieldManager: "owner"})
	must(t, err)
	if *d.Spec.Replicas != 5 || len(d.Labels) != 0 || d.Spec.Template.Spec.Containers[0].Image != "registry.example/c:2" {
		t.Errorf("%d replicas, labels %v, containers %+v", *d.Spec.Replicas, d.Labels, d.Spec.Template.Spec.Containers)
	}
	status := appsac.Deployment("web", "apply").WithStatus(appsac.DeploymentStatus().WithReplicas(5).WithConditions(appsac.DeploymentCondition().WithType(appsv1.DeploymentAvailable).WithStatus(corev1.ConditionTrue).WithReason("r").WithMessage("m")))
	d, err = api.ApplyStatus(t.Context(), status, metav1.ApplyOptions{FieldManager: "controller"})
	must(t, err)
	if d.Status.Replicas != 5 || *d.Spec.Replicas != 5 {
		t.Errorf("status %+v", d.Status)
	}
	own, err := appsac.ExtractDeploymentStatus(d, "controller")
	must(t, err)
	if own.Status == nil || *own.Status.Replicas != 5 || len(own.Status.Conditions) != 1 || own.Spec != nil {
		t.Errorf("extracted status %s", asJSON(t, own))
	}
	byUpdate(t, s)
}

// byUpdate checks that apply configurations reach through what an update left: the update's manager is a conflict too.
func byUpdate(t *testing.T, s *server) {
	t.Helper()
	api := s.clientset().CoreV1().ConfigMaps("apply")
	_, err := api.Create(t.Context(), configMap("mixed", "1"), metav1.CreateOptions{FieldManager: "first"})
	must(t, err)
	said := coreac.ConfigMap("mixed", "apply").WithData(map[string]string{"value": "2"})
	if _, err = api.Apply(t.Context(), said, metav1.ApplyOptions{FieldManager: "second"}); !apierrors.IsConflict(err) || !strings.Contains(fmt.Sprint(err), `"first" using v1`) {
		t.Errorf("conflict with what an update set: %v", err)
	}
	cm, err := api.Apply(t.Context(), said, metav1.ApplyOptions{FieldManager: "second", Force: true})
	must(t, err)
	if cm.Data["value"] != "2" {
		t.Errorf("data %v", cm.Data)
	}
}

func asJSON(t testing.TB, o any) string {
	t.Helper()
	b, err := json.Marshal(o)
	must(t, err)
	return string(b)
}

// TestPages reads a collection page by page while it changes: the answer is the collection as it was at the first page.
func TestPages(t *testing.T) {
	s := start(t)
	s.namespace("pages")
	api := s.clientset().CoreV1().ConfigMaps("pages")
	var want []string
	for i := range 57 {
		want = append(want, fmt.Sprintf("c%02d", i))
		_, err := api.Create(t.Context(), configMap(want[i], "0"), metav1.CreateOptions{})
		must(t, err)
	}
	var names []string
	pages, version, next := 0, "", ""
	for {
		l, err := api.List(t.Context(), metav1.ListOptions{Limit: 10, Continue: next})
		must(t, err)
		if pages++; pages == 1 {
			version = l.ResourceVersion
			must(t, api.Delete(t.Context(), "c40", metav1.DeleteOptions{}))
			_, err := api.Create(t.Context(), configMap("c41b", "0"), metav1.CreateOptions{})
			must(t, err)
			if l.RemainingItemCount == nil || *l.RemainingItemCount != 47 {
				t.Errorf("remaining %v", l.RemainingItemCount)
			}
		}
		if l.ResourceVersion != version {
			t.Errorf("page %d is of %s, the first of %s", pages, l.ResourceVersion, version)
		}
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
		if next = l.Continue; next == "" {
			break
		}
	}
	if pages != 6 || !slices.Equal(names, want) {
		t.Errorf("%d pages, %d names: %v", pages, len(names), names)
	}
	// client-go's pager, as kubectl and controllers use it.
	p := pager.New(pager.SimplePageFunc(func(o metav1.ListOptions) (runtime.Object, error) { return api.List(t.Context(), o) }))
	p.PageSize = 7
	seen := 0
	must(t, p.EachListItem(t.Context(), metav1.ListOptions{}, func(runtime.Object) error { seen++; return nil }))
	if seen != 57 {
		t.Errorf("the pager saw %d of 57", seen)
	}
	if _, err := api.List(t.Context(), metav1.ListOptions{Limit: 10, Continue: "nonsense"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a made-up token: %v", err)
	}
}

// TestRetryOnConflict counts in one object from many clients at once: nothing is lost, since a stale write is refused.
func TestRetryOnConflict(t *testing.T) {
	s := start(t)
	s.namespace("retry")
	api := s.clientset().CoreV1().ConfigMaps("retry")
	_, err := api.Create(t.Context(), configMap("counter", "0"), metav1.CreateOptions{})
	must(t, err)
	const clients, each = 6, 15
	var all sync.WaitGroup
	for range clients {
		mine := s.clientset().CoreV1().ConfigMaps("retry")
		all.Go(func() {
			for range each {
				err := add(t, mine)
				for apierrors.IsConflict(err) { // more rivals than DefaultRetry has steps
					err = add(t, mine)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	cm, err := api.Get(t.Context(), "counter", metav1.GetOptions{})
	must(t, err)
	if want := fmt.Sprint(clients * each); cm.Data["value"] != want {
		t.Errorf("counted %s, want %s", cm.Data["value"], want)
	}
}

func add(t *testing.T, api corev1client.ConfigMapInterface) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		cm, err := api.Get(t.Context(), "counter", metav1.GetOptions{})
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(cm.Data["value"])
		if err != nil {
			return err
		}
		cm.Data["value"] = strconv.Itoa(n + 1)
		_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
		return err
	})
}
