package cluster

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	c := shared(t)
	r, err := c.report(t)
	if err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	if err := r.want("name", c.Name, "healthy", "true", "context", "karve-"+c.Name, "kubeconfig", c.Kubeconfig, "dir", c.Dir, "nodes.0.name", c.Name+"-1", "nodes.0.ready", "true"); err != nil {
		t.Error(err)
	}
	for _, part := range r.list("nodes.0.components") {
		if part.at("healthy") != "true" {
			t.Errorf("%v is not healthy", part)
		}
	}
	if len(r.list("processes")) == 0 || len(r.list("nodes.0.components")) < 5 {
		t.Errorf("got %v", r)
	}
	out, err := c.karve("status")
	for _, want := range []string{"COMPONENTS", "scheduler", "127.0.0.1", c.Name + "-1"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: no %q in:\n%s", err, want, out)
		}
	}
	if out, err := c.run(exec.Command(karve, "status", "--name", "t-none")); err == nil || !strings.Contains(out, "karve up --name t-none") {
		t.Errorf("status of none: %v: %s", err, out)
	}
}

func TestCheck(t *testing.T) {
	need(t)
	out, err := exec.Command(karve, "check", "-o", "json").Output()
	var all []struct {
		Name, Found, Remedy string
		OK                  bool
	}
	if jerr := json.Unmarshal(out, &all); jerr != nil || len(all) < 10 {
		t.Fatalf("%v, %d checks:\n%s", jerr, len(all), out)
	}
	failed := 0
	for _, f := range all {
		if f.Name == "" || !f.OK && f.Remedy == "" {
			t.Errorf("%+v says nothing", f)
		}
		if !f.OK {
			failed++
		}
	}
	if (err != nil) != (failed > 0) {
		t.Errorf("%d failed and it ends with %v", failed, err)
	}
	if failed == 0 {
		if out, err := exec.Command(karve, "check").CombinedOutput(); err != nil || !strings.Contains(string(out), "overlayfs") {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestImages(t *testing.T) {
	c := shared(t)
	list := func() string {
		t.Helper()
		out, err := c.karve("image", "ls")
		if err != nil {
			t.Fatalf("image ls: %v: %s", err, out)
		}
		return out
	}
	for _, want := range []string{"NODE", "test/box:v1", "test/web:v2", "MiB"} {
		if out := list(); !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	file := scratch + "/extra.tar"
	if out, err := c.run(exec.Command(karve, "image", "pack", "-o", file, "test/extra:v1", "/bin/busybox:/busybox")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := c.karve("image", "load", file); err != nil || !strings.Contains(out, "test/extra:v1") {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(list(), "test/extra:v1") {
		t.Error("it is not there after it was loaded")
	}
	if out, err := c.karve("image", "rm", "test/extra:v1"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if strings.Contains(list(), "test/extra:v1") {
		t.Error("it is there after it was removed")
	}
	if out, err := c.karve("image", "rm", "test/extra:v1"); err == nil || !strings.Contains(out, "karve image ls") {
		t.Errorf("an image that is not there was removed: %v %s", err, out)
	}
	if out, err := c.karve("image", "load", "/bin/busybox"); err == nil || !strings.Contains(out, "karve: ") {
		t.Errorf("a program was loaded as an image: %v %s", err, out)
	}
	if out, err := c.karve("image", "ls", "--node", "none"); err == nil || !strings.Contains(out, c.Name+"-1") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestKubectlCommand(t *testing.T) {
	c := shared(t)
	if out, err := c.run(exec.Command(karve, "kubectl", "get", "nodes", "-o", "name")); err != nil || out != "node/"+c.Name+"-1\n" {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := c.run(exec.Command(karve, "kubectl", "get", "pods", "none")); err == nil {
		t.Error("its status is lost")
	}
}

func TestCompletion(t *testing.T) {
	need(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, err := exec.Command(karve, "completion", shell).Output(); err != nil || !strings.Contains(string(out), "karve") {
			t.Errorf("%s: %v, %d bytes", shell, err, len(out))
		}
	}
	out, err := exec.Command(karve, "__complete", "image", "").Output()
	if err != nil || !strings.Contains(string(out), "load") {
		t.Errorf("%v: %s", err, out)
	}
}
