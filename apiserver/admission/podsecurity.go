package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"karve/client"
)

// Limits on looking at the pods that are there when a namespace becomes stricter.
const maxPodsChecked = 3000

// security holds pods to the pod security level that their namespace's labels demand, and warns as they say. The levels
// themselves are Kubernetes' own library. The library's audit annotations have no counterpart here.
type security struct {
	namespaces source[*corev1.Namespace]
	pods       *client.Cache[*corev1.Pod]
	evaluator  func() (policy.Evaluator, error)
}

func podSecurity(d Deps) Plugin {
	s := &security{namespaces: from[*corev1.Namespace](d.Caches), pods: client.CacheOf[*corev1.Pod](d.Caches),
		evaluator: sync.OnceValues(func() (policy.Evaluator, error) { return policy.NewEvaluator(policy.DefaultChecks(), nil) })}
	apps := func(r string) schema.GroupResource { return schema.GroupResource{Group: appsv1.GroupName, Resource: r} }
	batch := func(r string) schema.GroupResource {
		return schema.GroupResource{Group: batchv1.GroupName, Resource: r}
	}
	return Plugin{Name: "PodSecurity", Validate: when(writes, s.validate, "*", pods, core("namespaces"), core("replicationcontrollers"), core("podtemplates"),
		apps("deployments"), apps("replicasets"), apps("statefulsets"), apps("daemonsets"), batch("jobs"), batch("cronjobs"))}
}

func (s *security) validate(ctx context.Context, a *Attributes) error {
	if ns, ok := a.Object.(*corev1.Namespace); ok {
		if a.Subresource != "" {
			return nil
		}
		return s.namespace(a, ns)
	}
	meta, spec := podOf(a.Object)
	if spec == nil || a.Subresource != "" && a.Subresource != "ephemeralcontainers" && a.Subresource != "resize" {
		return nil
	}
	ns, err := s.namespaces.get(ctx, "", a.Namespace)
	if err != nil {
		return a.forbidden("failed to lookup namespace %q: %w", a.Namespace, err)
	}
	levels, errs := psapi.PolicyToEvaluate(ns.Labels, defaultLevels())
	pod, isPod := a.Object.(*corev1.Pod)
	if old, ok := a.Old.(*corev1.Pod); ok && isPod && a.Operation == Update && !significant(pod, old) {
		return nil
	}
	if len(errs) == 0 && levels.FullyPrivileged() {
		return nil
	}
	ev, err := s.evaluator()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("build pod security checks: %w", err))
	}
	check := func(lv psapi.LevelVersion) policy.AggregateCheckResult {
		return policy.AggregateCheckResults(ev.EvaluatePod(lv, meta, spec))
	}
	if isPod {
		if r := check(levels.Enforce); !r.Allowed {
			if len(errs) > 0 {
				return a.forbidden("violates PodSecurity %q: %s: %s", levels.Enforce.String(), r.ForbiddenDetail(), errs.ToAggregate())
			}
			return a.forbidden("violates PodSecurity %q: %s", levels.Enforce.String(), r.ForbiddenDetail())
		}
	}
	if a.Warn != nil {
		if r := check(levels.Warn); !r.Allowed {
			a.Warn(fmt.Sprintf("would violate PodSecurity %q: %s", levels.Warn.String(), r.ForbiddenDetail()))
		}
	}
	return nil
}

func defaultLevels() psapi.Policy {
	lv := psapi.LevelVersion{Level: psapi.LevelPrivileged, Version: psapi.LatestVersion()}
	return psapi.Policy{Enforce: lv, Audit: lv, Warn: lv}
}

// podOf returns the pod an object is, or is a template of.
func podOf(o runtime.Object) (*metav1.ObjectMeta, *corev1.PodSpec) {
	template := func(t *corev1.PodTemplateSpec) (*metav1.ObjectMeta, *corev1.PodSpec) {
		if t == nil {
			return nil, nil
		}
		return &t.ObjectMeta, &t.Spec
	}
	switch o := o.(type) {
	case *corev1.Pod:
		return &o.ObjectMeta, &o.Spec
	case *corev1.PodTemplate:
		return template(&o.Template)
	case *corev1.ReplicationController:
		return template(o.Spec.Template)
	case *appsv1.Deployment:
		return template(&o.Spec.Template)
	case *appsv1.ReplicaSet:
		return template(&o.Spec.Template)
	case *appsv1.StatefulSet:
		return template(&o.Spec.Template)
	case *appsv1.DaemonSet:
		return template(&o.Spec.Template)
	case *batchv1.Job:
		return template(&o.Spec.Template)
	case *batchv1.CronJob:
		return template(&o.Spec.JobTemplate.Spec.Template)
	}
	return nil, nil
}

// significant reports whether an update changes what the levels look at; of a pod's spec little else can change.
func significant(now, old *corev1.Pod) bool {
	for k := range merged(now.Annotations, old.Annotations) {
		if now.Annotations[k] != old.Annotations[k] && (strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) ||
			k == corev1.SeccompPodAnnotationKey || strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix)) {
			return true
		}
	}
	image := func(a, b []corev1.Container) bool {
		return !slices.EqualFunc(a, b, func(x, y corev1.Container) bool { return x.Image == y.Image })
	}
	return image(now.Spec.Containers, old.Spec.Containers) || image(now.Spec.InitContainers, old.Spec.InitContainers) ||
		!slices.EqualFunc(now.Spec.EphemeralContainers, old.Spec.EphemeralContainers, func(x, y corev1.EphemeralContainer) bool { return x.Image == y.Image })
}

func merged(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for k := range a {
		out[k] = ""
	}
	for k := range b {
		out[k] = ""
	}
	return out
}

// namespace refuses labels that are no levels, and warns of the pods that a stricter level would not let in again.
func (s *security) namespace(a *Attributes, ns *corev1.Namespace) error {
	levels, errs := psapi.PolicyToEvaluate(ns.Labels, defaultLevels())
	if a.Operation == Create {
		return invalidLabels(ns.Name, errs)
	}
	old, err := object[*corev1.Namespace](a.Old, "namespace")
	if err != nil {
		return err
	}
	was, oldErrs := psapi.PolicyToEvaluate(old.Labels, defaultLevels())
	if len(errs) > 0 && len(oldErrs) == 0 {
		return invalidLabels(ns.Name, errs)
	}
	if len(errs) > 0 || levels.Enforce.Level == psapi.LevelPrivileged || levels.Enforce == was.Enforce || a.Warn == nil ||
		levels.Enforce.Version == was.Enforce.Version && psapi.CompareLevels(levels.Enforce.Level, was.Enforce.Level) < 1 {
		return nil
	}
	for _, w := range s.violations(ns.Name, levels.Enforce) {
		a.Warn(w)
	}
	return nil
}

func invalidLabels(name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Namespace"}, name, errs)
}

// violations says which of a namespace's pods a level would refuse, grouped by why.
func (s *security) violations(ns string, lv psapi.LevelVersion) []string {
	ev, err := s.evaluator()
	if err != nil {
		return nil
	}
	byReason := map[string][]string{}
	checked := 0
	for _, p := range s.pods.List() {
		if p.Namespace != ns {
			continue
		}
		if checked++; checked > maxPodsChecked {
			break
		}
		if r := policy.AggregateCheckResults(ev.EvaluatePod(lv, &p.ObjectMeta, &p.Spec)); !r.Allowed {
			byReason[r.ForbiddenReason()] = append(byReason[r.ForbiddenReason()], p.Name)
		}
	}
	if len(byReason) == 0 {
		return nil
	}
	var lines []string
	for reason, names := range byReason {
		slices.Sort(names)
		more := ""
		switch n := len(names) - 1; {
		case n == 1:
			more = " (and 1 other pod)"
		case n > 1:
			more = fmt.Sprintf(" (and %d other pods)", n)
		}
		lines = append(lines, names[0]+more+": "+reason)
	}
	slices.Sort(lines)
	return append([]string{fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", ns, lv.String())}, lines...)
}
