package podrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
	"karve/kubelet/criconfig"
	"karve/kubelet/image"
	"karve/kubelet/podworker"
)

// handler returns the runtime handler of the pod's runtime class.
func (w *worker) handler(ctx context.Context, pod *corev1.Pod) (string, error) {
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return "", nil
	}
	rc, err := client.Of[*nodev1.RuntimeClass](w.set.Transport).Get(ctx, "", *pod.Spec.RuntimeClassName)
	if err != nil {
		return "", fmt.Errorf("read runtime class: %w", err)
	}
	return rc.Handler, nil
}

// trouble is a container that could not be started: it becomes what the container waits for.
type trouble struct {
	reason, message string
	pull            bool
	silent          bool
}

// start pulls, creates and starts one container. What goes wrong with it is remembered as its trouble, not returned.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, a *podworker.Action) error {
	c, _, ephemeral := podworker.Find(&pod.Spec, a.Name)
	w.mu.Lock()
	sandbox := w.obs.Sandbox()
	w.mu.Unlock()
	if c == nil || sandbox == nil {
		return nil
	}
	id, t := w.create(ctx, pod, c, ephemeral, sandbox, a.Attempt)
	if ctx.Err() != nil {
		return nil
	}
	if t == nil {
		w.set.event(pod, c.Name, corev1.EventTypeNormal, "Created", "Container created")
		if _, err := w.set.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
			t = &trouble{reason: "RunContainerError", message: err.Error()}
		}
	}
	now := time.Now()
	w.mu.Lock()
	if t != nil {
		w.troubled(c, t, now)
		w.mu.Unlock()
		return nil
	}
	delete(w.mem.Troubles, c.Name)
	delete(w.pulls, c.Name)
	if a.Attempt > 0 {
		w.mem.Backoffs[c.Name] = w.mem.Backoffs[c.Name].Next(now)
	}
	w.mu.Unlock()
	w.set.event(pod, c.Name, corev1.EventTypeNormal, "Started", "Container started")
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		if err := w.hook(ctx, pod, c, id, c.Lifecycle.PostStart); err != nil && ctx.Err() == nil {
			w.set.event(pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			w.mu.Lock()
			w.mem.Kills[id] = podworker.Kill{Message: "FailedPostStartHook"}
			w.mu.Unlock()
			return nil
		}
	}
	w.mu.Lock()
	w.hooked[id] = true
	if c.StartupProbe == nil {
		w.mem.Up[id] = true
	}
	w.mu.Unlock()
	return nil
}

// troubled remembers why a container did not start. It is called with mu held.
func (w *worker) troubled(c *corev1.Container, t *trouble, now time.Time) {
	if !t.silent {
		w.event(c.Name, corev1.EventTypeWarning, "Failed", "Error: "+map[bool]string{true: t.reason, false: t.message}[t.pull])
	}
	b := w.pulls[c.Name].Next(now)
	if !t.pull {
		b.Delay = min(b.Delay, podworker.BackoffMax)
	}
	w.pulls[c.Name] = b
	out := podworker.Trouble{Reason: t.reason, Message: t.message, Until: now.Add(b.Delay)}
	if t.pull {
		out.LaterReason, out.LaterMessage = "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: %s: %s", c.Image, t.reason, t.message)
		out.Turn = now.Add(b.Delay / 8)
		w.event(c.Name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image))
		w.event(c.Name, corev1.EventTypeWarning, "Failed", "Error: ImagePullBackOff")
	}
	w.mem.Troubles[c.Name] = out
}

func (w *worker) create(ctx context.Context, pod *corev1.Pod, c *corev1.Container, ephemeral bool, sandbox *podworker.Sandbox, attempt uint32) (string, *trouble) {
	look := lookup{ctx, w.set, pod}
	config := criconfig.Sandbox(pod, &w.set.Node, sandbox.Attempt)
	img, failure := w.set.Images.Ensure(ctx, &image.Request{Image: c.Image, Policy: c.ImagePullPolicy, Sandbox: config, Secrets: look.pullSecrets(),
		Emit: func(kind, reason, message string) { w.set.event(pod, c.Name, kind, reason, message) }})
	if failure != nil {
		return "", &trouble{reason: failure.Reason, message: failure.Message, pull: failure.Pull}
	}
	configError := func(err error) (string, *trouble) {
		return "", &trouble{reason: "CreateContainerConfigError", message: err.Error()}
	}
	env, err := criconfig.Env(pod, c, w.facts(pod))
	if err != nil {
		return configError(err)
	}
	mounts, devices, err := w.mounts(pod, c, look, env, int32(attempt))
	if err != nil {
		return configError(err)
	}
	in := &criconfig.ContainerInput{Pod: pod, Container: c, Node: &w.set.Node, Attempt: attempt, Image: img, ImageRef: img.Id, Env: env, Mounts: mounts, Devices: devices}
	if ephemeral {
		in.TargetID = w.target(pod, c.Name)
	}
	cc, err := criconfig.Container(in)
	if err != nil {
		return configError(err)
	}
	if err := os.MkdirAll(filepath.Join(config.LogDirectory, c.Name), 0o755); err != nil {
		return configError(err)
	}
	got, err := w.set.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.ID, Config: cc, SandboxConfig: config})
	if err != nil {
		return "", &trouble{reason: "CreateContainerError", message: err.Error()}
	}
	return got.ContainerId, nil
}

func (w *worker) target(pod *corev1.Pod, name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name && e.TargetContainerName != "" {
			if t := w.obs.Latest(e.TargetContainerName); t != nil {
				return t.ID
			}
		}
	}
	return ""
}

// mounts are the container's volumes, its /etc/hosts and its termination message.
func (w *worker) mounts(pod *corev1.Pod, c *corev1.Container, look lookup, env []criconfig.Var, attempt int32) ([]*runtimeapi.Mount, []*runtimeapi.Device, error) {
	out, err := w.set.Volumes.Mounts(pod, c, look, func(s string) (string, error) {
		missing := ""
		text := criconfig.Expand(s, func(n string) (string, bool) {
			for _, v := range env {
				if v.Name == n {
					return v.Value, true
				}
			}
			missing = n
			return "", false
		})
		if missing != "" {
			return "", fmt.Errorf("failed to expand subPathExpr %q: no variable %q", s, missing)
		}
		return text, nil
	})
	if err != nil {
		return nil, nil, err
	}
	has := map[string]bool{}
	for _, m := range out {
		has[filepath.Clean(m.ContainerPath)] = true
	}
	if !has["/etc/hosts"] {
		path, err := w.hosts(pod)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}
	if c.TerminationMessagePath != "" && !has[filepath.Clean(c.TerminationMessagePath)] {
		path := w.messageFile(c.Name, attempt)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return nil, nil, err
		}
		if err := os.Chmod(path, 0o666); err != nil { // whatever user the container runs as
			return nil, nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: path})
	}
	var devices []*runtimeapi.Device
	for _, d := range c.VolumeDevices {
		return nil, nil, fmt.Errorf("volume device %q: this node has no block volumes", d.Name)
	}
	return out, devices, nil
}

// hosts writes the pod's hosts file once its addresses are known.
func (w *worker) hosts(pod *corev1.Pod) (string, error) {
	path := filepath.Join(w.set.Volumes.PodDir(pod.UID), "etc-hosts")
	own := ""
	if pod.Spec.HostNetwork {
		b, err := os.ReadFile(w.set.HostsFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		own = string(b)
	}
	host, domain := criconfig.Hostname(pod, w.set.Node.Name, w.set.Node.DNS.Domain)
	text := criconfig.Hosts(pod, w.facts(pod).PodIPs, host, domain, own)
	if b, err := os.ReadFile(path); err == nil && string(b) == text {
		return path, nil
	}
	return path, os.WriteFile(path, []byte(text), 0o644)
}
