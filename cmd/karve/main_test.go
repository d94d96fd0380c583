package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(args ...string) (string, error) {
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

func TestMistakesSayWhatToDo(t *testing.T) {
	tests := []struct {
		args string
		want string
	}{
		{"fly", `no command "fly": karve --help`},
		{"up --wings", "karve up --help"},
		{"up --publish 80", "8080:30080"},
		{"up --nodes 0", "at least one"},
		{"status -o xml", "only json"},
		{"server --network-mode=mesh", "choose one of route, vxlan"},
		{"agent", "join.kubeconfig"},
		{"scheduler --kubeconfig relative --log-level loud", "log.level"},
		{"image load", "requires at least 1 arg"},
		{"image pack -o /nonexistent/x a b", "pack image a"},
	}
	for _, tt := range tests {
		if _, err := run(strings.Fields(tt.args)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("karve %s: got %v, want %q in it", tt.args, err, tt.want)
		}
	}
}

func TestHelpListsEveryCommand(t *testing.T) {
	out, err := run("--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"up", "down", "status", "check", "image", "kubectl", "version", "completion", "server", "agent",
		"apiserver", "controllers", "scheduler", "kubelet", "proxy", "dns"} {
		if !strings.Contains(out, "  "+name+" ") {
			t.Errorf("%s is not listed", name)
		}
	}
}

func TestVersion(t *testing.T) {
	if out, err := run("version"); err != nil || !strings.HasPrefix(out, "karve dev (Kubernetes v1.36, ") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestImagePack(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.tar")
	if _, err := run("image", "pack", "-o", out, "--env", "A=1", "test/x:v1", os.Args[0]+":/x"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(out); err != nil || fi.Size() < 1<<20 {
		t.Errorf("got %v, %v", fi, err)
	}
}
