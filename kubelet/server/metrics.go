package server

import (
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/cri"
	"karve/kubelet/podworker"
)

const textFormat = "text/plain; version=0.0.4; charset=utf-8"

// text writes figures in the exposition format.
type text struct{ strings.Builder }

func (t *text) head(name, kind, help string) {
	fmt.Fprintf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (t *text) value(name, labels string, v float64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	fmt.Fprintf(t, "%s%s %s\n", name, labels, strconv.FormatFloat(v, 'g', -1, 64))
}

func label(pairs ...string) string {
	var b []string
	for i := 0; i+1 < len(pairs); i += 2 {
		b = append(b, pairs[i]+"="+strconv.Quote(pairs[i+1]))
	}
	return strings.Join(b, ",")
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	t := &text{}
	running, states := 0, map[string]int{"created": 0, "running": 0, "exited": 0, "unknown": 0}
	names := map[podworker.ContainerState]string{podworker.Created: "created", podworker.Running: "running", podworker.Exited: "exited", podworker.Unknown: "unknown"}
	for _, v := range s.Pods.Views() {
		if v.Observed.Sandbox() != nil {
			running++
		}
		for i := range v.Observed.Containers {
			states[names[v.Observed.Containers[i].State]]++
		}
	}
	t.head("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.")
	t.value("kubelet_node_name", label("node", s.Node), 1)
	t.head("kubelet_running_pods", "gauge", "[STABLE] Number of pods that have a running pod sandbox")
	t.value("kubelet_running_pods", "", float64(running))
	t.head("kubelet_running_containers", "gauge", "[STABLE] Number of containers currently running")
	for _, n := range []string{"created", "exited", "running", "unknown"} {
		t.value("kubelet_running_containers", label("container_state", n), float64(states[n]))
	}
	t.head("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
	t.value("process_start_time_seconds", "", float64(s.started.Unix()))
	w.Header().Set("Content-Type", textFormat)
	w.Write([]byte(t.String()))
}

// usage is what one container used.
type usage struct {
	namespace, pod, uid, container string
	at                             time.Time
	cpu                            float64 // core seconds
	nanoCores                      uint64
	working, rss, used             uint64
}

func (s *Server) usage(r *http.Request) []usage {
	got, err := s.Runtime.ListContainerStats(r.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		s.Log.Warn("container figures not read", "err", err)
		return nil
	}
	var out []usage
	for _, c := range got.Stats {
		l := c.GetAttributes().GetLabels()
		at := time.Now()
		if ts := c.GetCpu().GetTimestamp(); ts > 0 {
			at = time.Unix(0, ts)
		}
		out = append(out, usage{namespace: l[cri.PodNamespace], pod: l[cri.PodName], uid: l[cri.PodUID], container: l[cri.ContainerName], at: at,
			cpu: float64(c.GetCpu().GetUsageCoreNanoSeconds().GetValue()) / 1e9, nanoCores: c.GetCpu().GetUsageNanoCores().GetValue(),
			working: c.GetMemory().GetWorkingSetBytes().GetValue(), rss: c.GetMemory().GetRssBytes().GetValue(), used: c.GetMemory().GetUsageBytes().GetValue()})
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].uid+"/"+out[i].container < out[j].uid+"/"+out[j].container
	})
	return out
}

// nodeCPU returns the core seconds that the machine has spent on work.
func nodeCPU() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(first)
	total := 0.0
	for i, v := range f[min(1, len(f)):] {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || i == 3 || i == 4 || i > 7 { // idle, waiting for disks, guests (counted as user already)
			continue
		}
		total += n
	}
	return total / 100
}

// resource serves what the metrics server reads.
func (s *Server) resource(w http.ResponseWriter, r *http.Request) {
	t, list, m := &text{}, s.usage(r), s.Machine()
	stamp := func(name, labels string, v float64, at time.Time) {
		if labels != "" {
			labels = "{" + labels + "}"
		}
		fmt.Fprintf(t, "%s%s %s %d\n", name, labels, strconv.FormatFloat(v, 'g', -1, 64), at.UnixMilli())
	}
	t.head("container_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the container in core-seconds")
	for _, u := range list {
		stamp("container_cpu_usage_seconds_total", label("container", u.container, "namespace", u.namespace, "pod", u.pod), u.cpu, u.at)
	}
	t.head("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes")
	for _, u := range list {
		stamp("container_memory_working_set_bytes", label("container", u.container, "namespace", u.namespace, "pod", u.pod), float64(u.working), u.at)
	}
	now := time.Now()
	t.head("node_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the node in core-seconds")
	stamp("node_cpu_usage_seconds_total", "", nodeCPU(), now)
	t.head("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes")
	stamp("node_memory_working_set_bytes", "", float64(m.Memory-m.MemoryLeft), now)
	t.head("pod_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds")
	sums := podSums(list)
	for _, u := range sums {
		stamp("pod_cpu_usage_seconds_total", label("namespace", u.namespace, "pod", u.pod), u.cpu, u.at)
	}
	t.head("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes")
	for _, u := range sums {
		stamp("pod_memory_working_set_bytes", label("namespace", u.namespace, "pod", u.pod), float64(u.working), u.at)
	}
	t.head("resource_scrape_error", "gauge", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise")
	t.value("resource_scrape_error", "", 0)
	w.Header().Set("Content-Type", textFormat)
	w.Write([]byte(t.String()))
}

func podSums(list []usage) []usage {
	var out []usage
	for _, u := range list {
		if n := len(out); n > 0 && out[n-1].uid == u.uid {
			p := &out[n-1]
			p.cpu, p.working, p.rss, p.used, p.nanoCores = p.cpu+u.cpu, p.working+u.working, p.rss+u.rss, p.used+u.used, p.nanoCores+u.nanoCores
			continue
		}
		u.container = ""
		out = append(out, u)
	}
	return out
}

// cadvisor serves the figures of containers under the names that dashboards use.
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	t, list := &text{}, s.usage(r)
	for _, m := range []struct {
		name, kind, help string
		get              func(*usage) float64
	}{
		{"container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", func(u *usage) float64 { return u.cpu }},
		{"container_memory_rss", "gauge", "Size of RSS in bytes.", func(u *usage) float64 { return float64(u.rss) }},
		{"container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed", func(u *usage) float64 { return float64(u.used) }},
		{"container_memory_working_set_bytes", "gauge", "Current working set in bytes.", func(u *usage) float64 { return float64(u.working) }},
	} {
		t.head(m.name, m.kind, m.help)
		for i := range list {
			t.value(m.name, label("container", list[i].container, "namespace", list[i].namespace, "pod", list[i].pod), m.get(&list[i]))
		}
	}
	w.Header().Set("Content-Type", textFormat)
	w.Write([]byte(t.String()))
}

type cpuStats struct {
	Time                 metav1.Time `json:"time"`
	UsageNanoCores       uint64      `json:"usageNanoCores"`
	UsageCoreNanoSeconds uint64      `json:"usageCoreNanoSeconds"`
}

type memoryStats struct {
	Time            metav1.Time `json:"time"`
	AvailableBytes  *uint64     `json:"availableBytes,omitempty"`
	UsageBytes      uint64      `json:"usageBytes"`
	WorkingSetBytes uint64      `json:"workingSetBytes"`
	RSSBytes        uint64      `json:"rssBytes"`
}

type fsStats struct {
	Time           metav1.Time `json:"time"`
	AvailableBytes uint64      `json:"availableBytes"`
	CapacityBytes  uint64      `json:"capacityBytes"`
	UsedBytes      uint64      `json:"usedBytes"`
	InodesFree     uint64      `json:"inodesFree"`
	Inodes         uint64      `json:"inodes"`
	InodesUsed     uint64      `json:"inodesUsed"`
}

type containerStats struct {
	Name      string       `json:"name"`
	StartTime metav1.Time  `json:"startTime"`
	CPU       *cpuStats    `json:"cpu,omitempty"`
	Memory    *memoryStats `json:"memory,omitempty"`
}

type podReference struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
}

type podStats struct {
	PodRef     podReference     `json:"podRef"`
	StartTime  metav1.Time      `json:"startTime"`
	Containers []containerStats `json:"containers"`
	CPU        *cpuStats        `json:"cpu,omitempty"`
	Memory     *memoryStats     `json:"memory,omitempty"`
}

type nodeStats struct {
	NodeName  string       `json:"nodeName"`
	StartTime metav1.Time  `json:"startTime"`
	CPU       *cpuStats    `json:"cpu,omitempty"`
	Memory    *memoryStats `json:"memory,omitempty"`
	FS        *fsStats     `json:"fs,omitempty"`
}

func (u *usage) cpuStats() *cpuStats {
	return &cpuStats{Time: metav1.NewTime(u.at), UsageNanoCores: u.nanoCores, UsageCoreNanoSeconds: uint64(u.cpu * 1e9)}
}

func (u *usage) memoryStats() *memoryStats {
	return &memoryStats{Time: metav1.NewTime(u.at), UsageBytes: u.used, WorkingSetBytes: u.working, RSSBytes: u.rss}
}

// summary serves /stats/summary.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	list, m, now := s.usage(r), s.Machine(), metav1.Now()
	left := uint64(m.MemoryLeft)
	n := nodeStats{NodeName: s.Node, StartTime: metav1.NewTime(s.started), CPU: &cpuStats{Time: now, UsageCoreNanoSeconds: uint64(nodeCPU() * 1e9)},
		Memory: &memoryStats{Time: now, AvailableBytes: &left, UsageBytes: uint64(m.Memory - m.MemoryLeft), WorkingSetBytes: uint64(m.Memory - m.MemoryLeft)},
		FS: &fsStats{Time: now, AvailableBytes: uint64(m.DiskLeft), CapacityBytes: uint64(m.Disk), UsedBytes: uint64(m.Disk - m.DiskLeft),
			InodesFree: uint64(m.InodesLeft), Inodes: uint64(m.Inodes), InodesUsed: uint64(m.Inodes - m.InodesLeft)}}
	pods := []podStats{}
	sums := map[string]usage{}
	for _, u := range podSums(list) {
		sums[u.uid] = u
	}
	for _, v := range s.Pods.Views() {
		u, ok := sums[string(v.Pod.UID)]
		if !ok {
			continue
		}
		p := podStats{PodRef: podReference{v.Pod.Name, v.Pod.Namespace, string(v.Pod.UID)}, StartTime: started(v.Pod), Containers: []containerStats{}, CPU: u.cpuStats(), Memory: u.memoryStats()}
		for i := range list {
			c := v.Observed.Latest(list[i].container)
			if list[i].uid != string(v.Pod.UID) || c == nil {
				continue
			}
			p.Containers = append(p.Containers, containerStats{Name: c.Name, StartTime: metav1.NewTime(c.StartedAt), CPU: list[i].cpuStats(), Memory: list[i].memoryStats()})
		}
		pods = append(pods, p)
	}
	reply(w, map[string]any{"node": n, "pods": pods})
}

func started(pod *corev1.Pod) metav1.Time {
	if pod.Status.StartTime != nil {
		return *pod.Status.StartTime
	}
	return metav1.Time{}
}
