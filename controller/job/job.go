// Package job runs Jobs: it makes pods until enough of them succeeded or too many failed, counts every ending exactly once
// (by a finalizer on the pods), and deletes Jobs whose time to live is over. plan decides; the shell sends what was decided.
// It is run by package controller.
package job

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/loop"
	"karve/controller/owner"
	"karve/controller/pods"
)

// Names of the two controllers.
const (
	Name    = "job-controller"
	NameTTL = "ttl-after-finished-controller"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

const byJob = "tracked-by-job"

type shell struct {
	env    *loop.Env
	queue  *loop.Queue
	events loop.Events
	jobs   *client.Cache[*batchv1.Job]
	pods   *client.Cache[*corev1.Pod]
}

// New returns the controller of Jobs.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), events: env.Events(Name), jobs: client.CacheOf[*batchv1.Job](env.Caches), pods: client.CacheOf[*corev1.Pod](env.Caches)}
	owner.Index(s.pods)
	s.pods.Index(byJob, func(p *corev1.Pod) []string {
		if key := jobKey(p); key != "" && tracked(p) {
			return []string{key}
		}
		return nil
	})
	s.jobs.Index("namespace", func(j *batchv1.Job) []string { return []string{j.Namespace} })
	s.jobs.Handle(func(old, now *batchv1.Job) {
		if now == nil {
			now = old
		}
		s.queue.Add(client.Key(now))
	})
	s.pods.Handle(func(old, now *corev1.Pod) {
		for _, p := range [...]*corev1.Pod{old, now} {
			if p == nil {
				continue
			}
			if key := jobKey(p); key != "" {
				s.queue.Add(key)
			} else if p == now && p.DeletionTimestamp == nil && metav1.GetControllerOfNoCopy(p) == nil {
				s.wakeSelecting(p)
			}
		}
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 5, Sync: s.sync}
}

// jobKey returns the key of the Job that controls p, or did before it was orphaned.
func jobKey(p *corev1.Pod) string {
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		if ref.Kind == kind.Kind && ref.APIVersion == batchv1.SchemeGroupVersion.String() {
			return p.Namespace + "/" + ref.Name
		}
		return ""
	}
	if name := p.Labels[batchv1.JobNameLabel]; name != "" {
		return p.Namespace + "/" + name
	}
	return ""
}

func (s *shell) wakeSelecting(p *corev1.Pod) {
	for _, j := range s.jobs.ByIndex("namespace", p.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(p.Labels)) {
			s.queue.Add(client.Key(j))
		}
	}
}

func (s *shell) sync(ctx context.Context, key string) error {
	j, ok := s.jobs.GetKey(key)
	if !ok {
		return s.letGo(ctx, s.pods.ByIndex(byJob, key)) // nobody will count them any more
	}
	if m := j.Spec.ManagedBy; m != nil && *m != batchv1.JobControllerName {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil || selector.Empty() {
		return err
	}
	mine, err := owner.Claim(ctx, s.pods, client.Of[*corev1.Pod](s.env.T()), j, kind, selector, func() (metav1.Object, error) {
		return client.Of[*batchv1.Job](s.env.T()).Get(ctx, j.Namespace, j.Name)
	})
	if err != nil {
		return err
	}
	p := plan(j, mine, s.env.Now())
	if !apiequality.Semantic.DeepEqual(p.Status, j.Status) {
		c := *j
		c.Status = p.Status
		got, err := client.Of[*batchv1.Job](s.env.T()).UpdateStatus(ctx, &c)
		if err != nil {
			return fmt.Errorf("update status of job %s: %w", key, err)
		}
		s.announce(j, &p.Status)
		if err := loop.See(ctx, s.jobs, got); err != nil {
			return err
		}
	}
	if err := s.letGo(ctx, p.Release); err != nil {
		return err
	}
	if err := s.remove(ctx, j, p.Delete); err != nil {
		return err
	}
	if p.Recheck > 0 {
		s.queue.AddAfter(key, p.Recheck+10*time.Millisecond)
	}
	return s.create(ctx, j, p.Create)
}

// announce records events for conditions that are new.
func (s *shell) announce(j *batchv1.Job, now *batchv1.JobStatus) {
	if c := condition(now, batchv1.JobComplete); c != nil && condition(&j.Status, batchv1.JobComplete) == nil {
		s.events.Event(j, corev1.EventTypeNormal, "Completed", "Job completed")
	}
	if c := condition(now, batchv1.JobFailed); c != nil && condition(&j.Status, batchv1.JobFailed) == nil {
		s.events.Event(j, corev1.EventTypeWarning, c.Reason, "%s", c.Message)
	}
	was, is := condition(&j.Status, batchv1.JobSuspended) != nil, condition(now, batchv1.JobSuspended) != nil
	if is && !was {
		s.events.Event(j, corev1.EventTypeNormal, "Suspended", "Job suspended")
	} else if was && !is {
		s.events.Event(j, corev1.EventTypeNormal, "Resumed", "Job resumed")
	}
}

// letGo removes the tracking finalizer.
func (s *shell) letGo(ctx context.Context, list []*corev1.Pod) error {
	res := client.Of[*corev1.Pod](s.env.T())
	errs := loop.Parallel(len(list), pods.Width, func(i int) error {
		p := list[i]
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"$deleteFromPrimitiveList/finalizers":[%q]}}`, p.UID, batchv1.JobTrackingFinalizer)
		got, err := res.Patch(ctx, p.Namespace, p.Name, types.StrategicMergePatchType, patch)
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("let go of pod %s: %w", client.Key(p), err)
		}
		return loop.See(ctx, s.pods, got)
	})
	return firstOf(errs)
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *shell) remove(ctx context.Context, j *batchv1.Job, list []*corev1.Pod) error {
	res := client.Of[*corev1.Pod](s.env.T())
	return firstOf(loop.Parallel(len(list), pods.Width, func(i int) error {
		p := list[i]
		err := res.Delete(ctx, p.Namespace, p.Name, loop.OfUID(p))
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			s.events.Event(j, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return fmt.Errorf("delete pod %s: %w", client.Key(p), err)
		}
		s.events.Event(j, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", p.Name)
		return loop.Gone(ctx, s.pods, p)
	}))
}

func (s *shell) create(ctx context.Context, j *batchv1.Job, list []Make) error {
	res := client.Of[*corev1.Pod](s.env.T())
	next := make(chan Make, len(list))
	for _, m := range list {
		next <- m
	}
	_, err := pods.SlowStart(len(list), func() error {
		got, err := res.Create(ctx, newPod(j, <-next))
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			s.events.Event(j, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
			return err
		}
		s.events.Event(j, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", got.Name)
		return loop.See(ctx, s.pods, got)
	})
	if err != nil {
		return fmt.Errorf("create pod of job %s: %w", client.Key(j), err)
	}
	return nil
}

// newPod returns the pod for m; an index reaches its containers as label, annotation, variable and host name.
func newPod(j *batchv1.Job, m Make) *corev1.Pod {
	p := pods.FromTemplate(&j.Spec.Template, j, kind)
	p.Finalizers = append(slices.Clone(p.Finalizers), batchv1.JobTrackingFinalizer)
	if m.Index < 0 {
		return p
	}
	index := strconv.Itoa(m.Index)
	p.GenerateName = j.Name + "-" + index + "-"
	p.Labels, p.Annotations = withKey(p.Labels, index), withKey(p.Annotations, index)
	if j.Spec.BackoffLimitPerIndex != nil {
		p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(m.Failures)
	}
	spec := p.Spec.DeepCopy()
	if spec.Hostname == "" {
		spec.Hostname = j.Name + "-" + index
	}
	env := corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']"}}}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if !slices.ContainsFunc(list[i].Env, func(e corev1.EnvVar) bool { return e.Name == env.Name }) {
				list[i].Env = append(list[i].Env, env)
			}
		}
	}
	p.Spec = *spec
	return p
}

func withKey(m map[string]string, index string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[batchv1.JobCompletionIndexAnnotation] = index
	return out
}

// NewTTL returns the controller that deletes finished Jobs when their time to live is over.
func NewTTL(env *loop.Env) *loop.Controller {
	q := loop.NewQueue()
	jobs := client.CacheOf[*batchv1.Job](env.Caches)
	jobs.Handle(func(_, now *batchv1.Job) {
		if now != nil && now.Spec.TTLSecondsAfterFinished != nil && now.DeletionTimestamp == nil && finished(&now.Status) != nil {
			q.Add(client.Key(now))
		}
	})
	return &loop.Controller{Name: NameTTL, Queue: q, Workers: 1, Sync: func(ctx context.Context, key string) error {
		j, ok := jobs.GetKey(key)
		if !ok || j.DeletionTimestamp != nil || j.Spec.TTLSecondsAfterFinished == nil {
			return nil
		}
		c := finished(&j.Status)
		if c == nil {
			return nil
		}
		left := c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second).Sub(env.Now())
		if left > 0 {
			q.AddAfter(key, left)
			return nil
		}
		opts, foreground, rv := loop.OfUID(j), metav1.DeletePropagationForeground, j.ResourceVersion
		opts.PropagationPolicy, opts.Preconditions.ResourceVersion = &foreground, &rv
		if err := client.Of[*batchv1.Job](env.T()).Delete(ctx, j.Namespace, j.Name, opts); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete finished job %s: %w", key, err)
		}
		return nil
	}}
}
