package cluster

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// refused runs karve, which must end with status 1 and one line that holds want.
func refused(t *testing.T, c *Cluster, cmd *exec.Cmd, want string) {
	t.Helper()
	out, err := c.run(cmd)
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 {
		t.Errorf("it ends with %v, not status 1:\n%s", err, out)
	}
	var told []string
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		if strings.HasPrefix(l, "karve: ") {
			told = append(told, l)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], want) {
		t.Errorf("no single line says %q:\n%s", want, out)
	}
}

func (c *Cluster) command(command string, args ...string) *exec.Cmd {
	return exec.Command(karve, append([]string{command, "--name", c.Name, "--data", c.Dir}, args...)...)
}

func TestUpRefuses(t *testing.T) {
	need(t)
	t.Run("an ordinary user", func(t *testing.T) {
		dir, err := os.MkdirTemp("/tmp", "karve-test-") // one they may enter
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, "karve")
		b, err := os.ReadFile(karve)
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		c := named(t, "user")
		for _, args := range [][]string{{"up"}, {"down"}, {"status"}, {"image", "ls"}} {
			cmd := exec.Command(program, append(args, "--name", c.Name)...)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			refused(t, c, cmd, "sudo")
		}
	})
	t.Run("a port in use", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := named(t, "port")
		defer c.karve("down")
		refused(t, c, c.command("up", fmt.Sprintf("--publish=%d:30080", l.Addr().(*net.TCPAddr).Port)), "in use by another program: choose another port")
		if _, err := os.Stat(filepath.Join(c.Dir, "nodes")); err == nil {
			t.Error("it began nevertheless")
		}
	})
	t.Run("a directory of something else", func(t *testing.T) {
		c := named(t, "else")
		if err := os.MkdirAll(c.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mine := filepath.Join(c.Dir, "mine")
		if err := os.WriteFile(mine, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, c, c.command("up"), "--data")
		_, _ = c.karve("down")
		if b, err := os.ReadFile(mine); err != nil || string(b) != "x" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("a port of another cluster", func(t *testing.T) {
		other := shared(t)
		c := named(t, "port2")
		defer c.karve("down")
		refused(t, c, c.command("up", fmt.Sprintf("--publish=%d:30080", other.Port)), "choose another port")
	})
	t.Run("a data directory in use by another cluster", func(t *testing.T) {
		other := shared(t)
		c := named(t, "second")
		refused(t, c, exec.Command(karve, "up", "--name", c.Name, "--data", other.Dir), "belongs to the cluster")
	})
	t.Run("a second process on one data directory", func(t *testing.T) {
		other := shared(t)
		file := filepath.Join(other.Dir, "nodes", other.Name+"-1", "config.yaml")
		refused(t, other, exec.Command(karve, "server", "--config", file), other.Dir)
		if r, err := other.report(t); err != nil {
			t.Errorf("the cluster is not well: %v, %v", err, r)
		}
	})
	t.Run("an unknown configuration key", func(t *testing.T) {
		c := named(t, "key")
		file := filepath.Join(scratch, "bad.yaml")
		if err := os.WriteFile(file, []byte("network: {podCidr: 10.0.0.0/8}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, c, exec.Command(karve, "server", "--config", file), "unknown key network.podCidr: correct or remove it")
	})
	t.Run("fewer nodes than there are", func(t *testing.T) {
		c := fresh(t, "fewer", "--nodes=2")
		refused(t, c, c.command("up", "--nodes=1"), "cannot be made smaller")
	})
}

// keep makes something that must be there afterwards.
func keep(t *testing.T, c *Cluster) {
	t.Helper()
	c.Kubectl(t, "create", "configmap", "kept", "--from-literal=a=b")
}

func kept(t *testing.T, c *Cluster) {
	t.Helper()
	if out := c.Kubectl(t, "get", "configmap", "kept", "-o", "jsonpath={.data.a}"); out != "b" {
		t.Errorf("what was kept is %q", out)
	}
}

func TestDamagedStore(t *testing.T) {
	need(t)
	c := named(t, "damaged")
	t.Cleanup(func() { _, _ = c.karve("down") })
	c.up(t)
	keep(t, c)
	if out, err := c.karve("down", "--keep-data"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	store := filepath.Join(c.Dir, "nodes", c.Name+"-1", "store")
	manifests, err := filepath.Glob(filepath.Join(store, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifest in %s: %v", store, err)
	}
	victim := manifests[len(manifests)-1]
	whole, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(victim, 3); err != nil {
		t.Fatal(err)
	}
	out, err := c.karve("up", "--timeout=30s")
	if err == nil {
		t.Fatal("it starts on a damaged store")
	}
	if !strings.Contains(out, store) || !strings.Contains(out, "backup") && !strings.Contains(out, "restore") {
		t.Errorf("it does not say what to do:\n%s", out)
	}
	if _, err := c.karve("down", "--keep-data"); err != nil {
		t.Errorf("down: %v", err)
	}
	if err := os.WriteFile(victim, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	c.up(t)
	kept(t, c)
}

func TestFullDisk(t *testing.T) {
	need(t)
	c := named(t, "full")
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", c.Dir, "tmpfs", 0, "size=400m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := c.karve("down"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		_ = syscall.Unmount(c.Dir, syscall.MNT_DETACH)
	})
	c.up(t)
	keep(t, c)
	fill := filepath.Join(c.Dir, "nodes", "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<16)
	for {
		if _, err := f.Write(block); err != nil {
			break
		}
		if fi, err := f.Stat(); err == nil && fi.Size() > 1<<30 {
			t.Fatal("the disk does not get full")
		}
	}
	f.Close()
	acknowledged := []string{}
	c.eventually(t, "a write to be refused", func() error {
		name := fmt.Sprintf("w%d", len(acknowledged))
		_, err := c.send("POST", "/api/v1/namespaces/default/configmaps", map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": name}, "data": map[string]any{"x": strings.Repeat("x", 200000)}})
		if err == nil {
			acknowledged = append(acknowledged, name)
			return fmt.Errorf("%d were accepted", len(acknowledged))
		}
		return nil
	})
	if out, err := c.karve("up", "--timeout=30s"); err == nil {
		t.Log("up finds nothing to do while the disk is full")
	} else if !strings.Contains(out, "space") {
		t.Errorf("it does not say that the disk is full:\n%s", out)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	c.up(t)
	kept(t, c)
	c.eventually(t, "writes to be accepted again", func() error {
		_, err := c.Try("create", "configmap", "after")
		return err
	})
	for _, name := range acknowledged {
		c.Kubectl(t, "get", "configmap", name)
	}
}

func TestUpOnAFullDisk(t *testing.T) {
	need(t)
	c := named(t, "tiny")
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", c.Dir, "tmpfs", 0, "size=2m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = c.karve("down")
		_ = syscall.Unmount(c.Dir, syscall.MNT_DETACH)
	})
	out, err := c.karve("up", "--timeout=30s")
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 || !strings.Contains(out, "space") {
		t.Errorf("it ends with %v and says:\n%s", err, out)
	}
	if err := syscall.Mount("none", c.Dir, "tmpfs", syscall.MS_REMOUNT, "size=400m,mode=700"); err != nil {
		t.Fatal(err)
	}
	c.up(t)
}
