package clients

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2/textlogger"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

const (
	finalizer = "example.com/count"
	byColor   = "data.color"
	asked     = "example.com/deployment"
)

// reconciler makes a Deployment of every ConfigMap that asks for one, and counts on the ConfigMap how many share its color. It
// is what people write: an owner reference, a finalizer, a field index, a status, a server-side apply.
type reconciler struct {
	client.Client
	finalized atomic.Int32
}

func (r *reconciler) Reconcile(ctx context.Context, q ctrl.Request) (ctrl.Result, error) {
	var cm corev1.ConfigMap
	if err := r.Get(ctx, q.NamespacedName, &cm); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !cm.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(&cm, finalizer) {
			r.finalized.Add(1)
			return ctrl.Result{}, client.IgnoreNotFound(r.Update(ctx, &cm))
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&cm, finalizer) {
		return ctrl.Result{}, r.Update(ctx, &cm) // its event brings us back
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: cm.Name, Namespace: cm.Namespace}}
	if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, d, func() error {
		labels := map[string]string{"config": cm.Name}
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		d.Spec.Template.Labels = labels
		if len(d.Spec.Template.Spec.Containers) == 0 {
			d.Spec.Template.Spec.Containers = pod("").Spec.Containers
		}
		d.Spec.Template.Annotations = map[string]string{"color": cm.Data["color"]}
		return controllerutil.SetControllerReference(&cm, d, r.Scheme())
	}); err != nil {
		return ctrl.Result{}, err
	}
	var same corev1.ConfigMapList
	if err := r.List(ctx, &same, client.InNamespace(cm.Namespace), client.MatchingFields{byColor: cm.Data["color"]}); err != nil {
		return ctrl.Result{}, err
	}
	before := cm.DeepCopy()
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, "example.com/same", fmt.Sprint(len(same.Items)))
	return ctrl.Result{}, r.Patch(ctx, &cm, client.MergeFrom(before))
}

func (r *reconciler) setup(ctx context.Context, m ctrl.Manager, name string) error {
	if err := m.GetFieldIndexer().IndexField(ctx, &corev1.ConfigMap{}, byColor, func(o client.Object) []string {
		if color := o.(*corev1.ConfigMap).Data["color"]; color != "" {
			return []string{color}
		}
		return nil
	}); err != nil {
		return err
	}
	wanted := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetLabels()[asked] != "" })
	return ctrl.NewControllerManagedBy(m).Named(name).For(&corev1.ConfigMap{}, builder.WithPredicates(wanted)).Owns(&appsv1.Deployment{}).Complete(r)
}

// TestManager runs controller-runtime's manager with a reconciler against an envtest environment that is karve.
func TestManager(t *testing.T) {
	s := start(t)
	yes := true
	env := &envtest.Environment{Config: s.config(), UseExistingCluster: &yes}
	config, err := env.Start()
	must(t, err)
	defer func() { must(t, env.Stop()) }()
	s.namespace("team")
	reconcileIn(t, config, "team")
}

// reconcileIn runs the reconciler on a server, and sees to it in a namespace that it does its work.
func reconcileIn(t *testing.T, config *rest.Config, ns string) {
	t.Helper()
	log.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard))))
	m, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme.Scheme, Metrics: metrics.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "demo", LeaderElectionNamespace: ns, LeaderElectionReleaseOnCancel: true})
	must(t, err)
	r := &reconciler{Client: m.GetClient()}
	ctx, cancel := context.WithCancel(t.Context())
	must(t, r.setup(ctx, m, strings.ToLower(t.Name())))
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("manager: %v", err)
		}
	}()

	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	must(t, err)
	for name, color := range map[string]string{"a": "red", "b": "red", "c": "blue"} {
		must(t, c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{asked: "yes"}}, Data: map[string]string{"color": color}}))
	}
	key := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: ns, Name: name} }
	for name, color := range map[string]string{"a": "red", "b": "red", "c": "blue"} {
		var d appsv1.Deployment
		eventually(t, "a Deployment of "+name, func() error { return c.Get(ctx, key(name), &d) })
		if d.Spec.Template.Annotations["color"] != color || !metav1.IsControlledBy(&d, must1(t, c, key(name))) {
			t.Errorf("deployment %s: color %v, owners %v", name, d.Spec.Template.Annotations, d.OwnerReferences)
		}
	}
	// The owned object brings its owner back: what somebody deletes is made again.
	var d appsv1.Deployment
	must(t, c.Get(ctx, key("a"), &d))
	gone := d.UID
	must(t, c.Delete(ctx, &d))
	eventually(t, "the Deployment comes again", func() error {
		var again appsv1.Deployment
		if err := c.Get(ctx, key("a"), &again); err != nil {
			return err
		}
		return when(again.UID != gone, "still the old one")
	})
	// Through the index the reconciler counts who shares a color. The last of two to be reconciled saw both.
	eventually(t, "two of one color are counted", func() error {
		var l corev1.ConfigMapList
		if err := c.List(ctx, &l, client.InNamespace(ns), client.MatchingLabels{asked: "yes"}); err != nil {
			return err
		}
		for _, o := range l.Items {
			if o.Data["color"] == "red" && o.Annotations["example.com/same"] == "2" {
				return nil
			}
		}
		return fmt.Errorf("annotations of %d objects", len(l.Items))
	})
	// The cached client of the manager lists by the index; the plain client is refused, as the server has no such field.
	var l corev1.ConfigMapList
	must(t, m.GetClient().List(ctx, &l, client.InNamespace(ns), client.MatchingFields{byColor: "red"}))
	if len(l.Items) != 2 {
		t.Errorf("%d red ones by the index", len(l.Items))
	}
	if err := c.List(ctx, &l, client.InNamespace(ns), client.MatchingFields{byColor: "red"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a field selector the server does not know: %v", err)
	}
	// The status is a resource of its own: it does not change the spec, and the other way round.
	must(t, c.Get(ctx, key("b"), &d))
	d.Status.Replicas, d.Spec.Paused = 4, true
	must(t, c.Status().Update(ctx, &d))
	must(t, c.Get(ctx, key("b"), &d))
	if d.Status.Replicas != 4 || d.Spec.Paused {
		t.Errorf("after a status update: %d replicas, paused %v", d.Status.Replicas, d.Spec.Paused)
	}
	// The finalizer keeps the object until the reconciler has seen that it goes.
	must(t, c.Delete(ctx, must1(t, c, key("c"))))
	eventually(t, "the finalizer is done with", func() error {
		err := c.Get(ctx, key("c"), &corev1.ConfigMap{})
		return when(apierrors.IsNotFound(err), "get: %v", err)
	})
	if r.finalized.Load() != 1 {
		t.Errorf("finalized %d times", r.finalized.Load())
	}
	mapping, err := m.GetRESTMapper().RESTMapping(appsv1.SchemeGroupVersion.WithKind("Deployment").GroupKind())
	must(t, err)
	if mapping.Resource.Resource != "deployments" || mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		t.Errorf("mapping %+v", mapping)
	}
}

func must1(t *testing.T, c client.Client, key client.ObjectKey) *corev1.ConfigMap {
	t.Helper()
	var cm corev1.ConfigMap
	must(t, c.Get(t.Context(), key, &cm))
	return &cm
}
