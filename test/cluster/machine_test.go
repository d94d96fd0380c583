package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
)

// machine is what a cluster could leave behind, each thing as a line of text that says what kind it is.
type machine map[string]bool

// look lists it all. What belongs to clusters that others run meanwhile is told by their names and left out.
func look(t *testing.T, c *Cluster) machine {
	t.Helper()
	m := machine{}
	for _, part := range []func(func(string)) error{links, routes, tables, mounts, cgroups, files, sysctls, processes(c)} {
		if err := part(func(s string) { m[s] = true }); err != nil {
			t.Fatalf("look at the machine: %v", err)
		}
	}
	others, _ := os.ReadDir("/run/karve")
	for line := range m {
		for _, o := range others {
			if o.Name() != c.Name && (strings.Contains(line+"/", "/"+o.Name()+"/") || strings.Contains(line+" ", "karve-"+o.Name()+" ") || strings.Contains(line, "karve cluster "+o.Name())) {
				delete(m, line)
			}
		}
	}
	return m
}

func links(add func(string)) error {
	all, err := net.Interfaces()
	for _, l := range all {
		alias, _ := os.ReadFile("/sys/class/net/" + l.Name + "/ifalias")
		addrs, _ := l.Addrs()
		add(strings.TrimSpace(fmt.Sprintf("link %s %v %s", l.Name, addrs, alias)))
	}
	return err
}

// routes leaves out those of karve's own links, which go with them: a route names its link, not its cluster.
func routes(add func(string)) error {
	b, err := os.ReadFile("/proc/net/route")
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 7 && !strings.HasPrefix(f[0], "karve") {
			add("route " + strings.Join([]string{f[0], f[1], f[2], f[7]}, " "))
		}
	}
	return err
}

func tables(add func(string)) error {
	all, err := (&nftables.Conn{}).ListTables()
	for _, t := range all {
		add(fmt.Sprintf("table %d %s", t.Family, t.Name))
	}
	return err
}

func mounts(add func(string)) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if p := strings.Fields(sc.Text()); len(p) > 4 {
			add("mount " + p[4])
		}
	}
	return sc.Err()
}

func cgroups(add func(string)) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			add("cgroup " + p)
		}
		return err
	})
}

func files(add func(string)) error {
	for _, dir := range []string{"/", "/run", "/run/karve", "/run/netns", "/var/lib", "/var/lib/karve", "/var/lib/cni", "/var/log", "/etc", "/etc/cni", "/usr/local/bin", "/dev", scratch} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			add("file " + filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// restless are settings that the kernel counts in, or that belong to links.
var restless = []string{"fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr", "fs/quota", "fs/binfmt_misc", "kernel/ns_last_pid", "kernel/random", "kernel/pty/nr",
	"net/netfilter/nf_conntrack_count", "net/ipv4/conf/karve", "net/ipv4/neigh/karve", "net/ipv6/conf/karve", "net/ipv6/neigh/karve"}

func sysctls(add func(string)) error {
	for _, top := range []string{"net/ipv4", "net/ipv6", "net/core", "net/netfilter", "net/bridge", "kernel", "fs", "vm"} {
		err := filepath.WalkDir(filepath.Join("/proc/sys", top), func(p string, d fs.DirEntry, err error) error {
			key := strings.TrimPrefix(p, "/proc/sys/")
			if err != nil || d.IsDir() || slices.ContainsFunc(restless, func(r string) bool { return strings.HasPrefix(key, r) }) {
				return nil
			}
			if b, err := os.ReadFile(p); err == nil {
				add("sysctl " + key + " = " + strings.TrimSpace(string(b)))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// processes lists those that have to do with the cluster: by their cgroup, their command line or their environment.
func processes(c *Cluster) func(func(string)) error {
	return func(add func(string)) error {
		all, err := filepath.Glob("/proc/[0-9]*")
		for _, p := range all {
			group, _ := os.ReadFile(p + "/cgroup")
			line, _ := os.ReadFile(p + "/cmdline")
			if strings.Contains(string(group), "/karve/"+c.Name+"/") || strings.Contains(string(line), c.Dir) {
				add("process " + filepath.Base(p) + " " + strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		return err
	}
}

// members are the processes in the cgroups of a cluster or, when node is not empty, of one of its nodes, with their command.
func (c *Cluster) members(node string) (map[int]string, error) {
	out := map[int]string{}
	all, err := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		group, _ := os.ReadFile(p + "/cgroup")
		if strings.Contains(string(group), "/"+filepath.Join("karve", c.Name, node)+"/") {
			name, _ := os.ReadFile(p + "/comm")
			if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
				out[pid] = strings.TrimSpace(string(name))
			}
		}
	}
	return out, err
}

// killKarve kills the nodes' own processes as a crash would, and returns how many there were.
func (c *Cluster) killKarve(t *testing.T) int {
	t.Helper()
	all, err := c.members("")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for pid, name := range all {
		if name == "karve" {
			n++
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Errorf("kill %d: %v", pid, err)
			}
		}
	}
	within(t, 10*time.Second, "karve to die", func() error {
		all, err := c.members("")
		for pid, name := range all {
			if name == "karve" {
				return fmt.Errorf("%d lives", pid)
			}
		}
		return err
	})
	return n
}

// differences are lines that one look has and the other lacks.
func differences(before, after machine) []string {
	var out []string
	for line := range after {
		if !before[line] {
			out = append(out, "+ "+line)
		}
	}
	for line := range before {
		if !after[line] {
			out = append(out, "- "+line)
		}
	}
	slices.Sort(out)
	return out
}

const busy = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: test/web:v1, ports: [{containerPort: 8080}], volumeMounts: [{name: d, mountPath: /d}, {name: m, mountPath: /m}]}
      volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  containers: [{name: web, image: test/web:v1, env: [{name: PORT, value: "9292"}]}]
`

func TestNothingIsLeftBehind(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, c *Cluster)
		flags  []string
	}{
		{"after down", func(*testing.T, *Cluster) {}, nil},
		{"after kill -9 and down", func(t *testing.T, c *Cluster) { c.killKarve(t) }, nil},
		{"after kill -9 of everything and down", func(t *testing.T, c *Cluster) {
			all, err := c.members("")
			if err != nil || len(all) < 4 {
				t.Fatalf("%d processes, %v", len(all), err)
			}
			for pid := range all {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}, []string{"--nodes=2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t)
			c := named(t, "left")
			t.Cleanup(func() { _, _ = c.karve("down") })
			before := look(t, c)
			c.up(t, tt.flags...)
			c.load(t)
			c.Apply(t, "default", busy)
			c.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=60s")
			c.ready(t, "default", "host")
			// A rollout that is complete is not yet one that every node's proxy has heard of.
			within(t, 10*time.Second, "the published port to answer", func() error {
				_, err := c.page()
				return err
			})
			if len(differences(before, look(t, c))) < 20 {
				t.Error("hardly anything of a running cluster is seen: this test would see nothing left behind either")
			}
			tt.before(t, c)
			if out, err := c.karve("down"); err != nil {
				t.Fatalf("down: %v\n%s", err, out)
			}
			// Others start and stop things on this machine too, so one look may be unlucky.
			within(t, 20*time.Second, "the machine to be as it was", func() error {
				if d := differences(before, look(t, c)); len(d) > 0 {
					return fmt.Errorf("\n%s", strings.Join(d, "\n"))
				}
				return nil
			})
			if _, err := c.karve("down"); err != nil {
				t.Errorf("a second down: %v", err)
			}
		})
	}
}

func TestDownKeepsTheKubeconfigOfOthers(t *testing.T) {
	need(t)
	c := named(t, "kube")
	t.Cleanup(func() { _, _ = c.karve("down") })
	c.Kubectl(t, "config", "set-context", "mine", "--cluster=elsewhere", "--user=me")
	c.Kubectl(t, "config", "use-context", "mine")
	before := c.Kubectl(t, "config", "view", "--raw")
	if out, err := c.karve("up"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if out := c.Kubectl(t, "config", "current-context"); out != "karve-"+c.Name+"\n" {
		t.Errorf("the current context is %s", out)
	}
	if out, err := c.karve("down"); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	if after := c.Kubectl(t, "config", "view", "--raw"); after != before {
		t.Errorf("the kubeconfig was\n%s\nand is\n%s", before, after)
	}
}

// report is what `karve status -o json` prints.
func (c *Cluster) report(t *testing.T) (object, error) {
	t.Helper()
	cmd := exec.Command(karve, "status", "--name", c.Name, "-o", "json")
	out, err := cmd.Output()
	var o object
	if jerr := json.Unmarshal(out, &o); jerr != nil {
		t.Fatalf("status prints no JSON: %v\n%s", jerr, out)
	}
	return o, err
}
