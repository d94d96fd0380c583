package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"karve/client"
)

const (
	mirrorAnnotation = "kubernetes.io/config.mirror"
	hashAnnotation   = "kubernetes.io/config.hash"
	sourceAnnotation = "kubernetes.io/config.source"
)

// static runs the pods of a directory of manifests and shows each in the API by a mirror pod.
type static struct {
	k    *Kubelet
	read chan struct{}
	once sync.Once

	mu   sync.Mutex
	pods map[types.UID]*corev1.Pod
}

func newStatic(k *Kubelet) *static {
	return &static{k: k, read: make(chan struct{}), pods: map[types.UID]*corev1.Pod{}}
}

func (s *static) run(ctx context.Context) {
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		s.scan(ctx)
		s.once.Do(func() { close(s.read) })
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scan reads the directory, starts and ends pods accordingly, and makes missing mirrors.
func (s *static) scan(ctx context.Context) {
	found := map[types.UID]*corev1.Pod{}
	paths, err := filepath.Glob(filepath.Join(s.k.opts.StaticPodDir, "*"))
	if err != nil {
		s.k.opts.Log.Warn("static pods not read", "err", err)
		return
	}
	slices.Sort(paths)
	for _, p := range paths {
		if strings.HasPrefix(filepath.Base(p), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p)) {
			continue
		}
		pod, err := s.parse(p)
		if err != nil {
			s.k.opts.Log.Warn("static pod not read", "path", p, "err", err)
			continue
		}
		found[pod.UID] = pod
	}
	s.mu.Lock()
	old := s.pods
	s.pods = found
	s.mu.Unlock()
	for uid, pod := range old {
		if found[uid] == nil {
			s.k.set.Remove(pod)
			s.drop(ctx, pod)
		}
	}
	for uid, pod := range found {
		if old[uid] == nil {
			s.k.set.Static(pod)
		}
		s.mirror(ctx, pod)
	}
}

// parse reads one manifest. The pod's uid is a hash of what it says and where it runs.
func (s *static) parse(path string) (*corev1.Pod, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(b, pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.Name == "" || len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("not the manifest of a pod")
	}
	sum := sha256.Sum256(append([]byte(s.k.opts.NodeName+"\x00"+path+"\x00"), b...))
	hash := hex.EncodeToString(sum[:16])
	pod.UID = types.UID(hash)
	pod.Name += "-" + strings.ToLower(s.k.opts.NodeName)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[hashAnnotation], pod.Annotations[sourceAnnotation] = hash, "file"
	pod.Spec.NodeName = s.k.opts.NodeName
	defaults(&pod.Spec)
	return pod, nil
}

// defaults fills what the API would have filled.
func defaults(spec *corev1.PodSpec) {
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	if spec.DNSPolicy == "" {
		spec.DNSPolicy = corev1.DNSClusterFirst
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].ImagePullPolicy == "" {
				list[i].ImagePullPolicy = corev1.PullIfNotPresent
			}
			if list[i].TerminationMessagePath == "" {
				list[i].TerminationMessagePath = corev1.TerminationMessagePathDefault
			}
		}
	}
}

// mirror makes the API show the pod.
func (s *static) mirror(ctx context.Context, pod *corev1.Pod) {
	if have, ok := s.k.pods.Get(pod.Namespace, pod.Name); ok {
		if have.Annotations[hashAnnotation] == pod.Annotations[hashAnnotation] {
			return
		}
		s.drop(ctx, pod)
	}
	m := pod.DeepCopy()
	m.UID = ""
	m.Annotations[mirrorAnnotation] = pod.Annotations[hashAnnotation]
	if n := s.k.agent.Node(); n != nil {
		yes := true
		m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: &yes}}
	}
	if _, err := client.Of[*corev1.Pod](s.k.opts.Transport).Create(ctx, m); err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
		s.k.opts.Log.Warn("mirror pod not made", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

func (s *static) drop(ctx context.Context, pod *corev1.Pod) {
	zero := int64(0)
	err := client.Of[*corev1.Pod](s.k.opts.Transport).Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.k.opts.Log.Warn("mirror pod not deleted", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

// mirrored takes a change of a mirror pod. Its status is written under the mirror's uid.
func (s *static) mirrored(_, pod *corev1.Pod) {
	if pod == nil {
		return // made again at the next scan
	}
	s.k.set.Mirror(types.UID(pod.Annotations[mirrorAnnotation]), pod)
}
