package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api/codec"
	"karve/store"
	"karve/store/engine/pebble"
	"karve/store/storetest"
)

// pods yields n running pods of 100 namespaces, as they are stored, with revisions from 1.
func pods(n int) func() (store.Mutation, error) {
	i := 0
	return func() (store.Mutation, error) {
		if i == n {
			return store.Mutation{}, io.EOF
		}
		ns, name := fmt.Sprintf("ns-%02d", i*100/n), fmt.Sprintf("web-%06d-7d9f8c6b5d", i)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, UID: types.UID(fmt.Sprintf("11111111-2222-3333-4444-%012d", i)),
				CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0)), Labels: map[string]string{"app": "web", "pod-template-hash": "7d9f8c6b5d"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7d9f8c6b5d", UID: "11111111-2222-3333-4444-555555555555"}}},
			Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%50), RestartPolicy: "Always", DNSPolicy: "ClusterFirst", SchedulerName: "default-scheduler",
				ServiceAccountName: "default", SecurityContext: &corev1.PodSecurityContext{},
				Containers: []corev1.Container{{Name: "web", Image: "registry.example/web:v1", ImagePullPolicy: "IfNotPresent", TerminationMessagePath: "/dev/termination-log",
					TerminationMessagePolicy: "File", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "two"}},
					VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}}}},
				Volumes: []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
			Status: corev1.PodStatus{Phase: "Running", PodIP: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), QOSClass: "BestEffort",
				Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "ContainersReady", Status: "True"}, {Type: "PodScheduled", Status: "True"}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "web", Ready: true, Image: "registry.example/web:v1",
					ImageID: "sha256:0123456789abcdef", ContainerID: fmt.Sprintf("karve://%064d", i)}}},
		}
		body, err := codec.Body(pod)
		i++
		return store.Mutation{Key: "/registry/pods/" + ns + "/" + name, Revision: uint64(i),
			Value: codec.Envelope(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, body)}, err
	}
}

// TestStart measures how long `karve apiserver` takes to be ready on a store with many pods, from the start of the process.
func TestStart(t *testing.T) {
	program(t)
	n, rounds := 20_000, 1
	if storetest.Long() {
		n, rounds = 200_000, 5
	}
	data := filepath.Join(t.TempDir(), "data")
	e, err := pebble.Open(filepath.Join(data, "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Fill(uint64(n), pods(n)); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pods take %d MiB", n, size(t, data)>>20)
	s := newServer(t, data)
	for range rounds + 1 { // the first start makes certificates and objects of its own
		began := time.Now()
		s.begin()
		s.ready()
		took := time.Since(began)
		l, code, err := s.send(t.Context(), s.http, "GET", "/api/v1/pods?limit=1", nil)
		if err != nil || code != 200 || len(l.Items) != 1 || l.Metadata.Remaining != int64(n-1) {
			t.Fatalf("list: %d %v, %d remain", code, err, l.Metadata.Remaining)
		}
		t.Logf("ready after %v, with %d MiB resident", took.Round(time.Millisecond), rss(t, s.process.Process.Pid)>>10)
		s.end(syscall.SIGTERM)
	}
}

// rss is the resident memory of a process in KiB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
