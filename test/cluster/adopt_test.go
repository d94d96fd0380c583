package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// visitor asks the published port again and again.
type visitor struct {
	mu         sync.Mutex
	ok, failed int
	last       string
	seen       map[string]int
	end        func()
}

func (c *Cluster) visit(t *testing.T) *visitor {
	ctx, cancel := context.WithCancel(context.Background())
	v := &visitor{seen: map[string]int{}}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				page, err := c.page()
				v.mu.Lock()
				if err != nil {
					v.failed, v.last = v.failed+1, err.Error()
				} else {
					v.ok++
					v.seen[page]++
				}
				v.mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	v.end = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(v.end)
	return v
}

// more waits until the visitor has been answered n times more, or turned away.
func (v *visitor) more(t *testing.T, n int) {
	t.Helper()
	v.mu.Lock()
	goal := v.ok + n
	v.mu.Unlock()
	within(t, time.Minute, "the visitor", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.ok < goal && v.failed == 0 {
			return fmt.Errorf("answered %d times", v.ok)
		}
		return nil
	})
}

func (v *visitor) allAnswered(t *testing.T) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed > 0 || v.ok == 0 {
		t.Errorf("%d answered, %d not: %s", v.ok, v.failed, v.last)
	}
}

func TestKarveMayBeKilled(t *testing.T) {
	c := fresh(t, "adopt")
	c.Apply(t, "default", busy)
	svc, err := c.get("/api/v1/namespaces/default/services/web")
	if err != nil {
		t.Fatal(err)
	}
	// By address: names are answered by karve itself, and wait for it.
	c.Kubectl(t, "run", "inside", "--image=test/web:v1", "--", "load", "http://"+svc.at("spec.clusterIP")+"/")
	c.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=60s")
	c.ready(t, "default", "inside")
	c.ready(t, "default", "host")
	c.eventually(t, "the first answer", func() error { _, err := c.page(); return err })
	inside := func() string { return c.exec(t, "default", "inside", "server get http://127.0.0.1:8081/") }
	c.eventually(t, "the first answer inside", func() error {
		if out := inside(); strings.HasPrefix(out, "ok=0 ") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	v := c.visit(t)
	failedBefore := between(inside(), "failed=", " ")
	okBefore := between(inside(), "ok=", " ")
	started := map[string]string{}
	containers := map[int]string{}
	for round := range 3 {
		v.more(t, 50)
		acknowledged, stop := c.write(t, round)
		within(t, time.Minute, "some writes", func() error {
			if len(acknowledged()) < 20 {
				return fmt.Errorf("%d so far", len(acknowledged()))
			}
			return nil
		})
		if round == 0 {
			started, containers = c.containers(t), c.others(t)
		}
		if n := c.killKarve(t); n != 1 {
			t.Errorf("%d karve processes were killed", n)
		}
		v.more(t, 200) // Services go on with nobody there
		stop()
		c.up(t)
		all, err := c.get("/api/v1/namespaces/default/configmaps")
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, o := range all.list("items") {
			have[o.at("metadata.name")] = true
		}
		for _, name := range acknowledged() {
			if !have[name] {
				t.Errorf("round %d: %s was acknowledged and is lost", round, name)
			}
		}
		for _, p := range []string{"inside", "host"} {
			c.ready(t, "default", p)
		}
		c.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=60s")
		if now := c.containers(t); !maps.Equal(now, started) {
			t.Errorf("round %d: containers were %v and are %v", round, started, now)
		}
		if now := c.others(t); !maps.Equal(now, containers) {
			t.Errorf("round %d: processes were %v and are %v", round, containers, now)
		}
	}
	v.more(t, 50)
	v.end()
	v.allAnswered(t)
	if out := inside(); between(out, "failed=", " ") != failedBefore || between(out, "ok=", " ") == okBefore {
		t.Errorf("a client inside the cluster: %s", out)
	}
	c.Apply(t, "default", strings.Replace(box(sleeps, "", ""), "name: p,", "name: new,", 1))
	c.ready(t, "default", "new")
	if out, err := c.Try("exec", "new", "--", "server", "get", "http://web.default.svc.cluster.local/"); err != nil {
		t.Errorf("the Service by its name: %v: %s", err, out)
	}
	c.Kubectl(t, "delete", "pod", "inside", "host", "new", "--timeout=60s")
	c.Kubectl(t, "scale", "deployment", "web", "--replicas=3")
	c.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=60s")
}

// write creates ConfigMaps until it is stopped. acknowledged returns those that the API has said were made.
func (c *Cluster) write(t *testing.T, round int) (acknowledged func() []string, stop func()) {
	var mu sync.Mutex
	var names []string
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("written-%d-%d", round, i)
			_, err := c.send(http.MethodPost, "/api/v1/namespaces/default/configmaps", map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}})
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			mu.Lock()
			names = append(names, name)
			mu.Unlock()
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return func() []string { mu.Lock(); defer mu.Unlock(); return names[:len(names):len(names)] }, stop
}

// containers are the pods' containers and how often they were restarted.
func (c *Cluster) containers(t *testing.T) map[string]string {
	t.Helper()
	pods, err := c.pods("default", "")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range pods {
		out[p.at("metadata.name")] = p.at("status.containerStatuses.0.containerID") + " " + p.at("status.containerStatuses.0.restartCount")
	}
	return out
}

// others are the cluster's processes but for karve itself.
func (c *Cluster) others(t *testing.T) map[int]string {
	t.Helper()
	all, err := c.members("")
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(all, func(_ int, name string) bool { return name != "karve-shim" && name != "server" })
	return all
}

func between(s, after, before string) string {
	_, s, _ = strings.Cut(s, after)
	s, _, _ = strings.Cut(s, before)
	return s
}
