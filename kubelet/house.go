package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/podlog"
	"karve/kubelet/podworker"
)

// house keeps the node tidy: it rotates logs, and frees images when the disk runs full.
func (k *Kubelet) house(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		k.rotate(ctx)
		if m := k.agent.Machine(); m.DiskPressure() {
			k.collect(ctx, uint64(max(m.Disk/5-m.DiskLeft, 0)))
		}
	}
}

func (k *Kubelet) rotate(ctx context.Context) {
	for _, v := range k.set.Views() {
		for i := range v.Observed.Containers {
			c := &v.Observed.Containers[i]
			if c.State != podworker.Running {
				continue
			}
			if err := podlog.Rotate(ctx, k.opts.Runtime, c.ID, k.logPath(v.Pod, c.Name, c.RestartCount), k.opts.LogSize, k.opts.LogFiles, time.Now()); err != nil {
				k.opts.Log.Warn("log not rotated", "pod", v.Pod.Namespace+"/"+v.Pod.Name, "container", c.Name, "err", err)
			}
		}
	}
}

// collect frees images that no container here refers to.
func (k *Kubelet) collect(ctx context.Context, want uint64) {
	used := map[string]bool{}
	list, err := k.opts.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return
	}
	for _, c := range list.Containers {
		used[c.GetImage().GetImage()], used[c.ImageRef], used[c.ImageId] = true, true, true
	}
	for _, p := range k.pods.List() {
		for _, cs := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for i := range cs {
				used[cs[i].Image] = true
			}
		}
	}
	freed, err := k.puller.Collect(ctx, func(i *runtimeapi.Image) bool {
		in := used[i.Id]
		for _, names := range [][]string{i.RepoTags, i.RepoDigests} {
			for _, n := range names {
				in = in || used[n]
			}
		}
		return in
	}, want)
	if err != nil {
		k.opts.Log.Warn("images not collected", "err", err)
	} else if freed > 0 {
		k.opts.Log.Info("images collected", "bytes", freed)
	}
}
