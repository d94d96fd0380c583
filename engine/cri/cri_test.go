package cri

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine"
	"karve/engine/cgroup"
	"karve/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestSocket runs a container through the socket and asks for what only the socket has.
func TestSocket(t *testing.T) {
	file := enginetest.Busybox(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, err := engine.Open(ctx, engine.Options{Root: t.TempDir(), State: t.TempDir(), CgroupRoot: enginetest.CgroupRoot + "-cri", Network: &enginetest.Loopback{},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Images().Load(ctx, file, ""); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "cri.sock")
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, e, socket) }()
	c, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		if v, err := c.Version(ctx, &runtimeapi.VersionRequest{}); err == nil {
			if v.RuntimeApiVersion != "v1" {
				t.Errorf("version %v", v)
			}
			break
		} else if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", fi, err)
	}
	events := c.Events(ctx)
	p, err := c.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Uid: "u", Namespace: "n"}}})
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.PodSandboxId, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: enginetest.BusyboxImage}, Command: []string{"sleep", "1000"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: k.ContainerId}); err != nil {
		t.Fatal(err)
	}
	x, err := c.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: k.ContainerId, Cmd: []string{"echo", "hi"}})
	if err != nil || string(x.Stdout) != "hi\n" {
		t.Errorf("%v, %v", x, err)
	}
	u, err := c.Exec(ctx, &runtimeapi.ExecRequest{ContainerId: k.ContainerId, Cmd: []string{"true"}, Stdout: true})
	if err != nil || !strings.HasPrefix(u.Url, "http://127.0.0.1:") {
		t.Fatalf("%v, %v", u, err)
	}
	// A token that was not handed out opens nothing.
	resp, err := http.Get(u.Url[:strings.LastIndex(u.Url, "/")] + "/guess")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("guessed token: %s", resp.Status)
	}
	if _, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("error %v", err)
	}
	if _, err := c.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.PodSandboxId}); err != nil {
		t.Error(err)
	}
	for ev := range events {
		if ev.ContainerId == p.PodSandboxId && ev.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
			break
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	tree, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for err = tree.Remove(enginetest.CgroupRoot + "-cri"); errors.Is(err, unix.EBUSY); err = tree.Remove(enginetest.CgroupRoot + "-cri") {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Error(err)
	}
}
