package printcolumns

import (
	"reflect"
	"testing"
	"time"

	asv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	flowv1 "k8s.io/api/flowcontrol/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }

func TestPodStatus(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	yes := true
	deleted := at(0)
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for name, c := range map[string]struct {
		pod                     corev1.Pod
		ready, status, restarts string
	}{
		"pending": {corev1.Pod{Spec: corev1.PodSpec{Containers: make([]corev1.Container, 2)}, Status: corev1.PodStatus{Phase: "Pending"}}, "0/2", "Pending", "0"},
		"init": {corev1.Pod{Spec: corev1.PodSpec{InitContainers: make([]corev1.Container, 2), Containers: make([]corev1.Container, 1)},
			Status: corev1.PodStatus{Phase: "Pending", InitContainerStatuses: []corev1.ContainerStatus{{State: done}, {State: running}}}}, "0/1", "Init:1/2", "0"},
		"init failed": {corev1.Pod{Spec: corev1.PodSpec{InitContainers: make([]corev1.Container, 1), Containers: make([]corev1.Container, 1)},
			Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}}}}}, "0/1", "Init:ExitCode:3", "0"},
		"crash loop": {corev1.Pod{Spec: corev1.PodSpec{Containers: make([]corev1.Container, 1)}, Status: corev1.PodStatus{Phase: "Running", ContainerStatuses: []corev1.ContainerStatus{
			{State: waiting("CrashLoopBackOff"), RestartCount: 2, LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: at(3 * time.Minute)}}}}}}, "0/1", "CrashLoopBackOff", "2 (3m ago)"},
		"sidecar": {corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "s", RestartPolicy: &always}}, Containers: make([]corev1.Container, 1)},
			Status: corev1.PodStatus{Phase: "Running", InitContainerStatuses: []corev1.ContainerStatus{{Name: "s", Started: &yes, Ready: true, State: running}},
				ContainerStatuses: []corev1.ContainerStatus{{Ready: true, State: running}}}}, "2/2", "Running", "0"},
		"completed":   {corev1.Pod{Spec: corev1.PodSpec{Containers: make([]corev1.Container, 1)}, Status: corev1.PodStatus{Phase: "Succeeded", ContainerStatuses: []corev1.ContainerStatus{{State: done}}}}, "0/1", "Completed", "0"},
		"terminating": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}, Spec: corev1.PodSpec{Containers: make([]corev1.Container, 1)}, Status: corev1.PodStatus{Phase: "Running"}}, "0/1", "Terminating", "0"},
	} {
		row := podRow(&c.pod, now)
		if row[1] != c.ready || row[2] != c.status || row[3] != c.restarts {
			t.Errorf("%s: %v %v %v, want %s %s %s", name, row[1], row[2], row[3], c.ready, c.status, c.restarts)
		}
	}
}

// Every table must fill the columns it names; IPAddress fills one more, as upstream does.
func TestDefaultsAndWidth(t *testing.T) {
	c := For(schema.GroupVersionKind{Kind: "Nothing"})
	row := c.Row(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: at(time.Hour)}}, now)
	if len(row) != 2 || row[0] != "a" || row[1] != "2026-01-01T11:00:00Z" {
		t.Errorf("row = %v", row)
	}
	svc := For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
	row = svc.Row(&corev1.Service{Spec: corev1.ServiceSpec{Type: "LoadBalancer", Ports: []corev1.ServicePort{{Port: 80, NodePort: 30000, Protocol: "TCP"}}}}, now)
	if len(row) != len(svc.Defs) || row[3] != "<pending>" || row[4] != "80:30000/TCP" {
		t.Errorf("service row = %v", row)
	}
	for _, d := range svc.Defs {
		if d.Description == "" {
			t.Errorf("column %s has no description", d.Name)
		}
	}
}

func TestScale(t *testing.T) {
	c := For(schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"})
	now := time.Unix(1000, 0)
	s := &asv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "s", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))}, Spec: asv1.ScaleSpec{Replicas: 3}, Status: asv1.ScaleStatus{Replicas: 2}}
	if got := c.Row(s, now); !reflect.DeepEqual(got, []any{"s", int64(3), int64(2), "60s"}) || len(c.Defs) != len(got) {
		t.Errorf("row = %v", got)
	}
}

func TestFlowSchemasInTheirOrder(t *testing.T) {
	c := For(schema.GroupVersionKind{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Kind: "FlowSchema"})
	flow := func(name string, precedence int32) *flowv1.FlowSchema {
		return &flowv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: flowv1.FlowSchemaSpec{MatchingPrecedence: precedence}}
	}
	if c.Compare(flow("b", 1), flow("a", 2)) >= 0 || c.Compare(flow("b", 1), flow("a", 1)) <= 0 || len(c.Row(flow("a", 1), now)) != len(c.Defs) {
		t.Error("not by precedence, then name")
	}
	if For(schema.GroupVersionKind{Version: "v1", Kind: "Service"}).Compare != nil {
		t.Error("a kind that is shown as it is listed has an order")
	}
}

func TestQuotasAndClaims(t *testing.T) {
	q := &corev1.ResourceQuota{Status: corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{"limits.cpu": resource.MustParse("2"), "limitless.io/x": resource.MustParse("3"), "pods": resource.MustParse("4")}}}
	if row := quotaRow(q, now); row[1] != "limitless.io/x: 0/3, pods: 0/4" || row[2] != "limits.cpu: 0/2" {
		t.Errorf("quota row = %v", row)
	}
	c := For(schema.GroupVersionKind{Group: "resource.k8s.io", Version: "v1", Kind: "ResourceClaim"})
	deleted := at(0)
	for _, x := range []struct {
		allocated, reserved, deleted bool
		want                         string
	}{{false, false, false, "pending"}, {true, false, false, "allocated"}, {true, true, false, "allocated,reserved"}, {true, true, true, "deleted,allocated,reserved"}, {false, false, true, "deleted"}} {
		o := &resourcev1.ResourceClaim{}
		if x.allocated {
			o.Status.Allocation = &resourcev1.AllocationResult{}
		}
		if x.reserved {
			o.Status.ReservedFor = make([]resourcev1.ResourceClaimConsumerReference, 1)
		}
		if x.deleted {
			o.DeletionTimestamp = &deleted
		}
		if row := c.Row(o, now); row[1] != x.want {
			t.Errorf("claim %+v: %v, want %s", x, row[1], x.want)
		}
	}
}
