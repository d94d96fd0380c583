package cluster

import (
	"fmt"
	"strings"
	"testing"
)

const network = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: test/web:v1, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.NS.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
`

func TestNetwork(t *testing.T) {
	c := shared(t)
	ns := c.Namespace(t)
	c.Apply(t, ns, strings.ReplaceAll(network, "NS", ns)+box(sleeps, "", ""))
	c.Kubectl(t, "rollout", "status", "deployment/web", "-n", ns, "--timeout=60s")
	c.ready(t, ns, "p")
	try := func(line string) (string, error) {
		return c.Try("exec", "-n", ns, "p", "-q", "--", "sh", "-c", line)
	}
	pods, err := c.pods(ns, "app=web")
	if err != nil || len(pods) != 2 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	names, ips := map[string]bool{}, map[string]bool{}
	for _, p := range pods {
		names[p.at("metadata.name")+" v1"], ips[p.at("status.podIP")] = true, true
	}
	svc, err := c.get("/api/v1/namespaces/" + ns + "/services/web")
	if err != nil {
		t.Fatal(err)
	}
	both := func(t *testing.T, ask func() (string, error)) {
		t.Helper()
		seen := map[string]bool{}
		c.eventually(t, "an answer of each pod", func() error {
			page, err := ask()
			if err != nil {
				return err
			}
			if page = strings.TrimSpace(page); !names[page] {
				t.Fatalf("%q answers", page)
			}
			if seen[page] = true; len(seen) < 2 {
				return fmt.Errorf("only %v", seen)
			}
			return nil
		})
	}
	t.Run("ClusterIP", func(t *testing.T) {
		both(t, func() (string, error) { return try("server get http://" + svc.at("spec.clusterIP") + "/") })
	})
	t.Run("short name", func(t *testing.T) { both(t, func() (string, error) { return try("server get http://web/") }) })
	t.Run("name with namespace", func(t *testing.T) {
		both(t, func() (string, error) { return try("server get http://web." + ns + "/") })
	})
	t.Run("NodePort from the host", func(t *testing.T) { both(t, c.page) })
	t.Run("NodePort from inside", func(t *testing.T) {
		both(t, func() (string, error) { return try("server get http://" + pods[0].at("status.hostIP") + ":30080/") })
	})
	t.Run("pod to itself through its Service", func(t *testing.T) {
		both(t, func() (string, error) {
			return c.Try("exec", "-n", ns, pods[0].at("metadata.name"), "-q", "--", "server", "get", "http://web/")
		})
	})
	t.Run("headless", func(t *testing.T) {
		got := strings.Fields(c.exec(t, ns, "p", "server host headless"))
		if len(got) != 2 || !ips[got[0]] || !ips[got[1]] {
			t.Errorf("got %v, want %v", got, ips)
		}
	})
	t.Run("SRV", func(t *testing.T) {
		got := c.exec(t, ns, "p", "server srv _http._tcp.web."+ns+".svc.cluster.local")
		if got != "web."+ns+".svc.cluster.local. 80\n" {
			t.Errorf("got %q", got)
		}
		if got := c.exec(t, ns, "p", "server srv _http._tcp.headless."+ns+".svc.cluster.local"); strings.Count(got, " 8080\n") != 2 {
			t.Errorf("headless: got %q", got)
		}
	})
	t.Run("ExternalName", func(t *testing.T) {
		if got := strings.TrimSpace(c.exec(t, ns, "p", "server host elsewhere")); got != svc.at("spec.clusterIP") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("session affinity", func(t *testing.T) {
		out := c.exec(t, ns, "p", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do server get http://sticky/; done | busybox sort -u")
		if !names[strings.TrimSpace(out)] {
			t.Errorf("answered by %s", out)
		}
	})
	t.Run("search path", func(t *testing.T) {
		out := c.exec(t, ns, "p", "cat /etc/resolv.conf")
		if !strings.Contains(out, "search "+ns+".svc.cluster.local svc.cluster.local cluster.local") || !strings.Contains(out, "nameserver 10.96.0.10") || !strings.Contains(out, "ndots:5") {
			t.Errorf("got %s", out)
		}
	})
	t.Run("no such name", func(t *testing.T) {
		if out, err := try("server host none." + ns + ".svc.cluster.local"); err == nil || !strings.Contains(out, "no such host") {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("no way out", func(t *testing.T) {
		for _, addr := range []string{"192.0.2.1:80", "10.96.200.200:80", "10.244.9.9:80"} {
			if out, err := try("server dial " + addr); err == nil {
				t.Errorf("%s answers: %s", addr, out)
			}
		}
	})
	t.Run("a Service without pods refuses", func(t *testing.T) {
		c.eventually(t, "a refusal", func() error {
			out, err := try("server dial nobody:80")
			if err == nil {
				t.Fatal("somebody answers")
			}
			if !strings.Contains(out, "refused") {
				return fmt.Errorf("it says %s", out)
			}
			return nil
		})
	})
	t.Run("the API from a pod", func(t *testing.T) {
		if out, err := try("server dial kubernetes.default:443"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a deleted Service is gone", func(t *testing.T) {
		c.Kubectl(t, "delete", "service", "sticky", "-n", ns)
		c.eventually(t, "the name to go", func() error {
			if out, err := try("server host sticky"); err == nil {
				return fmt.Errorf("it is %s", out)
			}
			return nil
		})
	})
}
