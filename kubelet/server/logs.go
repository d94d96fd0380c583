package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"karve/kubelet/podlog"
	"karve/kubelet/podrun"
	"karve/kubelet/podworker"
)

// logs serves /containerLogs with the parameters of the API's pods/log.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	v, ok := s.Pods.Find(r.PathValue("ns"), r.PathValue("pod"), "")
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	name := r.PathValue("container")
	if c, _, _ := podworker.Find(&v.Pod.Spec, name); c == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, v.Pod.Name), http.StatusNotFound)
		return
	}
	opts, err := logOptions(r, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	c, err := attempt(&v, name, r.FormValue("previous") == "true")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	opts.Done = func() bool {
		now, ok := s.Pods.Find(v.Pod.Namespace, v.Pod.Name, v.Pod.UID)
		if !ok {
			return true
		}
		for i := range now.Observed.Containers {
			if x := &now.Observed.Containers[i]; x.ID == c.ID {
				return x.State == podworker.Exited
			}
		}
		return true
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flusher{w: w}
	err = podlog.Read(r.Context(), s.LogPath(v.Pod, name, c.RestartCount), out, opts)
	if err != nil && !out.wrote {
		code := http.StatusInternalServerError
		if errors.Is(err, fs.ErrNotExist) {
			code = http.StatusNotFound
		}
		http.Error(w, fmt.Sprintf("failed to read the log of container %q in pod %q", name, v.Pod.Name), code)
	}
}

// attempt returns the container whose log is asked for.
func attempt(v *podrun.View, name string, previous bool) (*podworker.Container, error) {
	var found []*podworker.Container
	for i := range v.Observed.Containers {
		if c := &v.Observed.Containers[i]; c.Name == name && c.State != podworker.Created {
			found = append(found, c)
		}
	}
	switch {
	case previous && len(found) > 1:
		return found[1], nil
	case previous && len(found) == 1 && found[0].State == podworker.Exited && waits(v.Pod, name):
		return found[0], nil
	case previous:
		return nil, fmt.Errorf("previous terminated container %q in pod %q not found", name, v.Pod.Name)
	case len(found) > 0:
		return found[0], nil
	}
	reason := "ContainerCreating"
	for _, list := range [][]corev1.ContainerStatus{v.Pod.Status.InitContainerStatuses, v.Pod.Status.ContainerStatuses, v.Pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name && list[i].State.Waiting != nil && list[i].State.Waiting.Reason != "" {
				reason = list[i].State.Waiting.Reason
			}
		}
	}
	switch reason {
	case "ErrImagePull", "ErrImageNeverPull", "ErrInvalidImageName":
		return nil, fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", name, v.Pod.Name)
	case "ImagePullBackOff":
		return nil, fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", name, v.Pod.Name)
	}
	return nil, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, v.Pod.Name, reason)
}

func waits(pod *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return list[i].State.Waiting != nil
			}
		}
	}
	return false
}

func logOptions(r *http.Request, now time.Time) (podlog.Options, error) {
	var o podlog.Options
	number := func(name string, least int64) (*int64, error) {
		v := r.FormValue(name)
		if v == "" {
			return nil, nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < least {
			return nil, fmt.Errorf("invalid value %q of %s", v, name)
		}
		return &n, nil
	}
	var err error
	if v := r.FormValue("tailLines"); v != "all" {
		if o.Tail, err = number("tailLines", 0); err != nil {
			return o, err
		}
	}
	if o.Limit, err = number("limitBytes", 1); err != nil {
		return o, err
	}
	seconds, err := number("sinceSeconds", 1)
	if err != nil {
		return o, err
	}
	if seconds != nil {
		o.Since = now.Add(-time.Duration(*seconds) * time.Second)
	}
	if v := r.FormValue("sinceTime"); v != "" {
		if o.Since, err = time.Parse(time.RFC3339, v); err != nil {
			return o, fmt.Errorf("invalid value %q of sinceTime", v)
		}
	}
	switch v := r.FormValue("stream"); v {
	case "", "All":
	case "Stdout":
		o.Stream = "stdout"
	case "Stderr":
		o.Stream = "stderr"
	default:
		return o, fmt.Errorf("invalid value %q of stream", v)
	}
	o.Follow, o.Timestamps = r.FormValue("follow") == "true", r.FormValue("timestamps") == "true"
	return o, nil
}

// flusher sends what was written at the end of each batch of lines.
type flusher struct {
	w     http.ResponseWriter
	wrote bool
}

func (f *flusher) Write(b []byte) (int, error) { f.wrote = true; return f.w.Write(b) }

// Flush implements what podlog looks for.
func (f *flusher) Flush() {
	f.wrote = true
	http.NewResponseController(f.w).Flush()
}
