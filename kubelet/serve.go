package kubelet

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"karve/kubelet/criconfig"
	"karve/kubelet/server"
)

func (k *Kubelet) serve(ctx context.Context) {
	authorize := k.opts.Authorize
	if authorize == nil {
		authorize = server.NewAccess(k.opts.Transport, k.opts.NodeName, time.Now).Authorize
	}
	s := server.New(server.Config{Pods: k.set, Runtime: k.opts.Runtime, LogPath: k.logPath, Machine: k.agent.Machine, Node: k.opts.NodeName,
		Authorize: authorize, LogDir: "/var/log", Log: k.opts.Log})
	if err := s.Serve(ctx, k.listener, k.opts.TLS, k.opts.ClientCA); err != nil {
		k.opts.Log.Error("kubelet server ended", "err", err)
	}
}

// logPath is where the runtime writes the log of one attempt of a container.
func (k *Kubelet) logPath(pod *corev1.Pod, container string, attempt int32) string {
	return filepath.Join(criconfig.LogDir(k.opts.LogRoot, pod), container, strconv.Itoa(int(attempt))+".log")
}
