package cluster

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

const spread = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - {name: web, image: test/web:v1, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
`

func TestThreeNodes(t *testing.T) {
	c := fresh(t, "nodes", "--nodes=3")
	nodes, err := c.get("/api/v1/nodes")
	if err != nil || len(nodes.list("items")) != 3 {
		t.Fatalf("%d nodes, %v", len(nodes.list("items")), err)
	}
	for _, n := range nodes.list("items") {
		if s, r := n.condition("Ready"); s != "True" {
			t.Errorf("%s is not Ready: %s", n.at("metadata.name"), r)
		}
	}
	c.Apply(t, "default", spread)
	c.Kubectl(t, "rollout", "status", "deployment/web", "--timeout=90s")
	pods, err := c.pods("default", "app=web")
	if err != nil {
		t.Fatal(err)
	}
	on := map[string]bool{}
	for _, p := range pods {
		on[p.at("spec.nodeName")] = true
	}
	if len(on) != 3 {
		t.Errorf("three pods are on %v", on)
	}
	t.Run("every pod reaches every pod", func(t *testing.T) {
		for _, from := range pods {
			for _, to := range pods {
				out, err := c.Try("exec", from.at("metadata.name"), "--", "server", "get", "http://"+to.at("status.podIP")+":8080/")
				if err != nil || !strings.HasPrefix(out, to.at("metadata.name")+" ") {
					t.Errorf("%s to %s: %v: %s", from.at("spec.nodeName"), to.at("spec.nodeName"), err, out)
				}
				out, err = c.Try("exec", from.at("metadata.name"), "--", "server", "get", "http://"+to.at("status.podIP")+":8080/from")
				if err != nil || from.at("spec.nodeName") != to.at("spec.nodeName") && !strings.HasPrefix(out, from.at("status.podIP")+":") {
					t.Errorf("%s shows as %s, %v", from.at("status.podIP"), out, err)
				}
			}
		}
	})
	t.Run("Service by address, by name and by every NodePort", func(t *testing.T) {
		svc, err := c.get("/api/v1/namespaces/default/services/web")
		if err != nil {
			t.Fatal(err)
		}
		urls := []string{"http://" + svc.at("spec.clusterIP") + "/", "http://web/", "http://web.default.svc.cluster.local/"}
		for _, n := range nodes.list("items") {
			urls = append(urls, "http://"+n.at("status.addresses.0.address")+":30080/")
		}
		for _, from := range pods {
			for _, url := range urls {
				if out, err := c.Try("exec", from.at("metadata.name"), "--", "server", "get", url); err != nil || !strings.HasPrefix(out, "web-") {
					t.Errorf("%s asks %s: %v: %s", from.at("spec.nodeName"), url, err, out)
				}
			}
		}
		seen := map[string]bool{}
		c.eventually(t, "an answer of each pod", func() error {
			page, err := c.page()
			if err != nil {
				t.Fatal(err)
			}
			if seen[page] = true; len(seen) < 3 {
				return fmt.Errorf("only %v", seen)
			}
			return nil
		})
	})
	t.Run("logs and exec of every node", func(t *testing.T) {
		for _, p := range pods {
			c.Kubectl(t, "logs", p.at("metadata.name"))
		}
	})
	t.Run("an agent that is killed is started by up", func(t *testing.T) {
		if n := c.killKarve(t); n != 3 {
			t.Errorf("%d processes were killed", n)
		}
		c.up(t)
		if r, err := c.report(t); err != nil || r.at("healthy") != "true" {
			t.Errorf("%v: %v", err, r)
		}
	})
	t.Run("a node that dies is replaced", func(t *testing.T) { deadNode(t, c) })
}

func deadNode(t *testing.T, c *Cluster) {
	dead := c.Name + "-3"
	all, err := c.members(dead)
	if err != nil || len(all) < 3 {
		t.Fatalf("%d processes, %v", len(all), err)
	}
	for pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	within(t, 90*time.Second, "the node to be Unknown", func() error {
		n, err := c.get("/api/v1/nodes/" + dead)
		if err != nil {
			return err
		}
		if s, r := n.condition("Ready"); s != "Unknown" {
			return fmt.Errorf("Ready is %s (%s)", s, r)
		}
		return nil
	})
	if out := c.Kubectl(t, "get", "node", dead); !strings.Contains(out, "NotReady") {
		t.Errorf("kubectl shows %s", out)
	}
	c.eventually(t, "three pods on the others", func() error {
		pods, err := c.pods("default", "app=web")
		n := 0
		for _, p := range pods {
			if s, _ := p.condition("Ready"); s == "True" && p.at("spec.nodeName") != dead && p.at("metadata.deletionTimestamp") == "" {
				n++
			}
		}
		if err == nil && n != 3 {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
	for range 20 { // nobody is led to the dead one
		if _, err := c.page(); err != nil {
			t.Error(err)
		}
	}
	c.up(t)
	c.eventually(t, "the old pod to go", func() error {
		pods, err := c.pods("default", "app=web")
		if err == nil && len(pods) != 3 {
			err = fmt.Errorf("there are %d pods", len(pods))
		}
		return err
	})
	if r, err := c.report(t); err != nil || r.at("healthy") != "true" {
		t.Errorf("after up: %v: %v", err, r)
	}
}
