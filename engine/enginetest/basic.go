package enginetest

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"images", testImages}, {"sandbox", testSandbox}, {"run", testRun}, {"start error", testStartError}, {"environment", testEnvironment},
		{"mounts", testMounts}, {"users", testUsers}, {"security", testSecurity}, {"limits", testLimits}, {"oom", testOOM},
		{"stop", testStop}, {"exec", testExec}, {"exec streams", testExecStream}, {"attach", testAttach}, {"terminal", testTerminal},
		{"log rotation", testLogRotation}, {"port forward", testPortForward}, {"events", testEvents}, {"adoption", testAdoption},
		{"shim death", testShimDeath}, {"damaged state", testDamage}, {"shared PID namespace", testSharedPID}, {"host namespaces", testHost}, {"stats", testStats},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newBench(t, open)) })
	}
}

func (b *bench) image(ref string) *runtimeapi.Image {
	b.Helper()
	r, err := b.e.ImageStatus(b.ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		b.Fatal(err)
	}
	return r.Image
}

func testImages(b *bench) {
	srv := httptest.NewServer(registry.New())
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	img, err := random.Image(4096, 3)
	if err != nil {
		b.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/some/app:v1")
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		b.Fatal(err)
	}
	r, err := b.e.PullImage(b.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: host + "/some/app:v1"}})
	if err != nil {
		b.Fatal(err)
	}
	digest, _ := img.Digest()
	for _, n := range []string{r.ImageRef, strings.TrimPrefix(r.ImageRef, "sha256:"), host + "/some/app:v1", host + "/some/app@" + digest.String()} {
		if im := b.image(n); im == nil || im.Id != r.ImageRef {
			b.Errorf("%s is %v", n, im)
		}
	}
	if im := b.image(host + "/some/app:v2"); im != nil {
		b.Errorf("found an image that is not there: %v", im)
	}
	if _, err := b.e.PullImage(b.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: host + "/some/other"}}); err == nil {
		b.Error("pulled an image that is not there")
	}
	// A docker archive under a short name is found by every spelling of it.
	file := filepath.Join(b.TempDir(), "docker.tar")
	tag, _ := name.NewTag("thing:2")
	other, err := random.Image(100, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, other); err != nil {
		b.Fatal(err)
	}
	if _, err := b.e.Images().Load(b.ctx, file, ""); err != nil {
		b.Fatal(err)
	}
	for _, n := range []string{"thing:2", "docker.io/thing:2", "docker.io/library/thing:2", "library/thing:2"} {
		if b.image(n) == nil {
			b.Errorf("%s not found", n)
		}
	}
	b.restart()
	if b.image("thing:2") == nil || b.image(BusyboxImage) == nil {
		b.Error("images are gone after a restart")
	}
	before, _ := os.ReadDir(b.root + "/snapshots")
	for range 2 {
		if _, err := b.e.RemoveImage(b.ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: host + "/some/app:v1"}}); err != nil {
			b.Error(err)
		}
	}
	after, _ := os.ReadDir(b.root + "/snapshots")
	if len(before)-len(after) != 3 {
		b.Errorf("%d layers were removed with an image of 3", len(before)-len(after))
	}
	list, err := b.e.ListImages(b.ctx, &runtimeapi.ListImagesRequest{})
	if err != nil || len(list.Images) != 2 {
		b.Errorf("images %v, %v", list, err)
	}
}

func testSandbox(b *bench) {
	pod, pc := b.pod(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "20000 20100", "kernel.shmmax": "1234567"}
	})
	r, err := b.e.PodSandboxStatus(b.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil || r.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || r.Status.Network.Ip != "127.0.0.1" || r.Status.Network.AdditionalIps[0].Ip != "::1" {
		b.Errorf("status %v, %v", r, err)
	}
	if _, err := b.e.RunPodSandbox(b.ctx, &runtimeapi.RunPodSandboxRequest{Config: pc}); err == nil {
		b.Error("the same sandbox was made twice")
	}
	out, _ := b.output(pod, pc, b.config("hostname; cat /etc/resolv.conf /etc/hostname /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shmmax; echo x >/dev/shm/f; ls /dev/shm; ip -o addr show dev lo | grep -c 127.0.0.1"))
	want := "pod-host\nsearch default.svc\nnameserver 10.96.0.10\npod-host\n20000\t20100\n1234567\nf\n1\n"
	if out != want {
		b.Errorf("got %q, want %q", out, want)
	}
	// Containers of a pod share /dev/shm.
	if out, _ := b.output(pod, pc, b.config("cat /dev/shm/f")); out != "x\n" {
		b.Errorf("shared memory holds %q", out)
	}
	running := b.start(pod, pc, b.config("sleep 1000"))
	for range 2 {
		if _, err := b.e.StopPodSandbox(b.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
			b.Error(err)
		}
	}
	if st := b.status(running); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 137 {
		b.Errorf("container after its sandbox was stopped: %v", st)
	}
	ready := &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}
	if l, _ := b.e.ListPodSandbox(b.ctx, &runtimeapi.ListPodSandboxRequest{Filter: ready}); len(l.Items) != 0 {
		b.Errorf("ready: %v", l.Items)
	}
	if _, err := b.e.CreateContainer(b.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: b.config("true")}); err == nil {
		b.Error("created a container in a stopped sandbox")
	}
	b.remove(pod)
	b.remove(pod)
	if _, err := b.e.RunPodSandbox(b.ctx, &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "bad"}, Linux: &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{"vm.swappiness": "1"}}}}); err == nil {
		b.Error("a sandbox changed a setting of the host")
	}
}

func testRun(b *bench) {
	pod, pc := b.pod(nil)
	out, st := b.output(pod, pc, b.config("echo hello; echo oops >&2; printf part; exit 3"))
	if out != "hello\npart" || st.ExitCode != 3 || st.Reason != "Error" {
		b.Errorf("logged %q, status %v", out, st)
	}
	if s := logText(b, st.LogPath, "stderr"); s != "oops\n" {
		b.Errorf("stderr %q", s)
	}
	if st.StartedAt < st.CreatedAt || st.FinishedAt < st.StartedAt || st.ImageId == "" || st.Image.Image != BusyboxImage {
		b.Errorf("status %v", st)
	}
	// Lines longer than what is read at once come back whole.
	out, st = b.output(pod, pc, b.config("i=0; while [ $i -lt 5000 ]; do printf 0123456789; i=$((i+1)); done; echo; echo end"))
	if want := strings.Repeat("0123456789", 5000) + "\nend\n"; out != want || st.ExitCode != 0 || st.Reason != "Completed" {
		b.Errorf("long line came back as %d bytes, status %v", len(out), st)
	}
	// Many at once.
	ids := map[int]string{}
	for i := range 5 {
		ids[i] = b.start(pod, pc, b.config(fmt.Sprintf("exit %d", i)))
	}
	for i, id := range ids {
		if st := b.wait(id); int(st.ExitCode) != i {
			b.Errorf("exit code %d, want %d", st.ExitCode, i)
		}
	}
}

func testStartError(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("")
	c.Command = []string{"/no/such/program"}
	id := b.create(pod, pc, c)
	_, err := b.e.StartContainer(b.ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		b.Errorf("error %v", err)
	}
	check := func() {
		if st := b.status(id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 128 || st.Reason != "StartError" {
			b.Errorf("status %v", st)
		}
	}
	check()
	b.restart()
	check()
	c = b.config("true")
	c.Image.Image = "not/there"
	if _, err := b.e.CreateContainer(b.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c}); err == nil {
		b.Error("created a container without an image")
	}
}

func testEnvironment(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("echo $FROM_IMAGE $BOTH $OWN $HOSTNAME; pwd; echo $0 $1")
	c.Envs = []*runtimeapi.KeyValue{{Key: "BOTH", Value: []byte("config")}, {Key: "OWN", Value: []byte("a b")}}
	c.WorkingDir = "/made/here"
	c.Args = []string{"zero", "one"}
	if out, _ := b.output(pod, pc, c); out != "yes config a b pod-host\n/made/here\nzero one\n" {
		b.Errorf("got %q", out)
	}
}

func testMounts(b *bench) {
	pod, pc := b.pod(nil)
	rw, ro, missing := b.TempDir(), b.TempDir(), filepath.Join(b.TempDir(), "a/b")
	c := b.config("echo data >/rw/f; echo data >/ro/f; echo $?; touch /missing/x; ls /img/bin/busybox; touch /img/x; echo $?; touch /root/x; echo $?")
	c.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/rw", HostPath: rw}, {ContainerPath: "/ro", HostPath: ro, Readonly: true}, {ContainerPath: "/missing", HostPath: missing},
		{ContainerPath: "/img", Image: &runtimeapi.ImageSpec{Image: BusyboxImage}},
	}
	c.Linux.SecurityContext.ReadonlyRootfs = true
	out, _ := b.output(pod, pc, c)
	if out != "1\n/img/bin/busybox\n1\n1\n" {
		b.Errorf("got %q", out)
	}
	if got, err := os.ReadFile(rw + "/f"); err != nil || string(got) != "data\n" {
		b.Errorf("mounted file holds %q, %v", got, err)
	}
	if _, err := os.Stat(missing + "/x"); err != nil {
		b.Error(err)
	}
	c = b.config("cat /sub/passwd | head -1")
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/sub", Image: &runtimeapi.ImageSpec{Image: BusyboxImage}, ImageSubPath: "etc"}}
	if out, _ := b.output(pod, pc, c); out != "root:x:0:0::/root:/bin/sh\n" {
		b.Errorf("got %q", out)
	}
}

func testUsers(b *bench) {
	pod, pc := b.pod(nil)
	for _, u := range []struct {
		sc   *runtimeapi.LinuxContainerSecurityContext
		want string
	}{
		{&runtimeapi.LinuxContainerSecurityContext{}, "uid=0(root) gid=0(root) groups=0(root)\n"},
		{&runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 1234}}, "uid=1234(alice) gid=1235(alice) groups=50(staff),1235(alice)\n"},
		{&runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "alice", SupplementalGroupsPolicy: runtimeapi.SupplementalGroupsPolicy_Strict, SupplementalGroups: []int64{77}},
			"uid=1234(alice) gid=1235(alice) groups=77,1235(alice)\n"},
		{&runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 5000}, RunAsGroup: &runtimeapi.Int64Value{Value: 6000}}, "uid=5000 gid=6000 groups=6000\n"},
	} {
		c := b.config("id")
		u.sc.NamespaceOptions = c.Linux.SecurityContext.NamespaceOptions
		c.Linux.SecurityContext = u.sc
		out, st := b.output(pod, pc, c)
		if out != u.want {
			b.Errorf("%v: got %q, want %q (%v)", u.sc, out, u.want, st)
		}
	}
	c := b.config("true")
	c.Linux.SecurityContext.RunAsUsername = "nobody-knows"
	if _, err := b.e.CreateContainer(b.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c}); err == nil {
		b.Error("ran as a user that does not exist")
	}
}

func testSecurity(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null; echo $?; cat /proc/secret 2>/dev/null; unshare -U true 2>/dev/null; echo $?")
	sc := c.Linux.SecurityContext
	sc.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
	sc.NoNewPrivs = true
	sc.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	if out, _ := b.output(pod, pc, c); out != "CapEff:\t0000000000000400\nCapBnd:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2\n1\n1\n" {
		b.Errorf("restricted: got %q", out)
	}
	c = b.config("grep -E '^(CapEff|Seccomp):' /proc/self/status; ls /sys/firmware; cat /proc/sys/kernel/hostname >/dev/null; echo b >/proc/sysrq-trigger")
	c.Linux.SecurityContext.MaskedPaths = []string{"/sys/firmware"}
	c.Linux.SecurityContext.ReadonlyPaths = []string{"/proc/sysrq-trigger"}
	if out, st := b.output(pod, pc, c); out != "CapEff:\t00000000a80425fb\nSeccomp:\t0\n" || st.ExitCode == 0 {
		b.Errorf("default: got %q, %v", out, st)
	}
	c = b.config("mount -t tmpfs x /tmp && echo mounted; ls /dev/null")
	c.Linux.SecurityContext.Privileged = true
	if out, _ := b.output(pod, pc, c); out != "mounted\n/dev/null\n" {
		b.Errorf("privileged: got %q", out)
	}
	profile := filepath.Join(b.TempDir(), "p.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`), 0o600); err != nil {
		b.Fatal(err)
	}
	c = b.config("mkdir /tmp/x; echo $?")
	c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
	if out, _ := b.output(pod, pc, c); out != "1\n" {
		b.Errorf("localhost profile: got %q", out)
	}
}
