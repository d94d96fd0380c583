package cluster

import (
	"fmt"
	"strings"
	"testing"
)

func (c *Cluster) job(ns, name string) (object, error) {
	return c.get("/apis/batch/v1/namespaces/" + ns + "/jobs/" + name)
}

const job = `
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  completions: 3
  parallelism: 2
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: test/box:v1, args: [-c, "echo done"]}]}
`

func TestJobs(t *testing.T) {
	finished := func(kind, reason string) func(*testing.T, *Cluster, string) {
		return func(t *testing.T, c *Cluster, ns string) {
			t.Helper()
			c.eventually(t, "the job", func() error {
				j, err := c.job(ns, "j")
				if err != nil {
					return err
				}
				if s, r := j.condition(kind); s != "True" || r != reason {
					return fmt.Errorf("status is %s", j.at("status"))
				}
				return nil
			})
		}
	}
	runPods(t, []podTest{
		{"completions", job, func(t *testing.T, c *Cluster, ns string) {
			finished("Complete", "CompletionsReached")(t, c, ns)
			if j, err := c.job(ns, "j"); err != nil || j.at("status.succeeded") != "3" {
				t.Errorf("status is %s, %v", j.at("status"), err)
			}
			c.Kubectl(t, "delete", "job", "j", "-n", ns)
			c.eventually(t, "the pods to go", func() error {
				pods, err := c.pods(ns, "")
				if err == nil && len(pods) > 0 {
					err = fmt.Errorf("%d are left", len(pods))
				}
				return err
			})
		}},
		{"indexed", strings.NewReplacer("completions: 3", "completions: 3\n  completionMode: Indexed", "echo done", "echo $JOB_COMPLETION_INDEX").Replace(job), func(t *testing.T, c *Cluster, ns string) {
			finished("Complete", "CompletionsReached")(t, c, ns)
			if j, err := c.job(ns, "j"); err != nil || j.at("status.completedIndexes") != "0-2" {
				t.Errorf("status is %s, %v", j.at("status"), err)
			}
		}},
		{"backoffLimit", strings.NewReplacer("completions: 3", "backoffLimit: 1", "echo done", "exit 1", "parallelism: 2", "parallelism: 1").Replace(job), func(t *testing.T, c *Cluster, ns string) {
			finished("Failed", "BackoffLimitExceeded")(t, c, ns)
			if j, err := c.job(ns, "j"); err != nil || j.at("status.failed") != "2" {
				t.Errorf("status is %s, %v", j.at("status"), err)
			}
		}},
		{"activeDeadlineSeconds", strings.NewReplacer("completions: 3", "activeDeadlineSeconds: 2", "echo done", sleeps).Replace(job), finished("Failed", "DeadlineExceeded")},
		{"ttlSecondsAfterFinished", strings.Replace(job, "completions: 3", "ttlSecondsAfterFinished: 1", 1), func(t *testing.T, c *Cluster, ns string) {
			c.eventually(t, "job and pods to go", func() error {
				if j, err := c.job(ns, "j"); err == nil {
					return fmt.Errorf("status is %s", j.at("status"))
				} else if !strings.Contains(err.Error(), "404") {
					return err
				}
				pods, err := c.pods(ns, "")
				if err == nil && len(pods) > 0 {
					err = fmt.Errorf("%d pods are left", len(pods))
				}
				return err
			})
		}},
	})
}

// rolling never has fewer pods ready than it should, and its pods answer a little longer than they are asked to.
const rolling = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: test/web:v1
        env: [{name: LINGER, value: 2s}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
`

func TestRollingUpdateUnderLoad(t *testing.T) {
	c := shared(t)
	ns := c.Namespace(t)
	c.Apply(t, ns, rolling)
	status := func() string {
		t.Helper()
		return c.Kubectl(t, "rollout", "status", "deployment/web", "-n", ns, "--timeout=90s")
	}
	status()
	c.eventually(t, "the first answer", func() error { _, err := c.page(); return err })
	v := c.visit(t)
	v.more(t, 20)
	answers := func(version string) {
		t.Helper()
		c.eventually(t, "only "+version, func() error {
			for range 8 {
				if page, err := c.page(); err != nil || !strings.HasSuffix(page, version) {
					return fmt.Errorf("%q, %v", page, err)
				}
			}
			return nil
		})
	}
	c.Kubectl(t, "set", "image", "deployment/web", "-n", ns, "web=test/web:v2")
	status()
	answers("v2")
	c.Kubectl(t, "rollout", "undo", "deployment/web", "-n", ns)
	status()
	answers("v1")
	c.Kubectl(t, "rollout", "pause", "deployment/web", "-n", ns)
	c.Kubectl(t, "set", "image", "deployment/web", "-n", ns, "web=test/web:v2")
	c.eventually(t, "the change to be seen", func() error {
		d, err := c.get("/apis/apps/v1/namespaces/" + ns + "/deployments/web")
		if err == nil && d.at("status.observedGeneration") != d.at("metadata.generation") {
			err = fmt.Errorf("generation %s, observed %s", d.at("metadata.generation"), d.at("status.observedGeneration"))
		}
		return err
	})
	v.more(t, 50)
	answers("v1") // a paused Deployment does nothing
	c.Kubectl(t, "rollout", "resume", "deployment/web", "-n", ns)
	status()
	answers("v2")
	v.end()
	v.allAnswered(t)
}

func TestDeployments(t *testing.T) {
	condition := func(t *testing.T, c *Cluster, ns, kind, status, reason string) {
		t.Helper()
		c.eventually(t, kind, func() error {
			d, err := c.get("/apis/apps/v1/namespaces/" + ns + "/deployments/web")
			if err != nil {
				return err
			}
			if s, r := d.condition(kind); s != status || r != reason {
				return fmt.Errorf("status is %s", d.at("status"))
			}
			return nil
		})
	}
	plain := strings.Split(strings.Replace(rolling, "strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", "progressDeadlineSeconds: 3", 1), "---")[0]
	plain = strings.Replace(plain, "2s", "0s", 1)
	runPods(t, []podTest{
		{"a bad image exceeds the progress deadline", strings.Replace(plain, "image: test/web:v1", "image: test/none:v1\n        imagePullPolicy: Never", 1), func(t *testing.T, c *Cluster, ns string) {
			condition(t, c, ns, "Progressing", "False", "ProgressDeadlineExceeded")
			if out, err := c.Try("rollout", "status", "deployment/web", "-n", ns); err == nil || !strings.Contains(out, "exceeded its progress deadline") {
				t.Errorf("rollout status: %v, %s", err, out)
			}
			c.Kubectl(t, "patch", "deployment", "web", "-n", ns, "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"test/web:v1"}]}}}}`)
			condition(t, c, ns, "Available", "True", "MinimumReplicasAvailable")
			condition(t, c, ns, "Progressing", "True", "NewReplicaSetAvailable")
		}},
		{"Recreate never runs two versions", strings.Replace(plain, "progressDeadlineSeconds: 3", "strategy: {type: Recreate}", 1), func(t *testing.T, c *Cluster, ns string) {
			condition(t, c, ns, "Available", "True", "MinimumReplicasAvailable")
			c.Kubectl(t, "set", "image", "deployment/web", "-n", ns, "web=test/web:v2")
			c.eventually(t, "the new version alone", func() error {
				pods, err := c.pods(ns, "app=web")
				if err != nil {
					return err
				}
				running, ready := map[string]bool{}, 0
				for _, p := range pods {
					if p.find("status.containerStatuses.0.state.running") != nil {
						running[p.at("spec.containers.0.image")] = true
					}
					if s, _ := p.condition("Ready"); s == "True" && p.at("spec.containers.0.image") == "test/web:v2" {
						ready++
					}
				}
				if len(running) > 1 {
					t.Fatal("both versions run")
				}
				if ready != 2 {
					return fmt.Errorf("%d are ready", ready)
				}
				return nil
			})
		}},
		{"a deleted pod is replaced", plain, func(t *testing.T, c *Cluster, ns string) {
			condition(t, c, ns, "Available", "True", "MinimumReplicasAvailable")
			c.Kubectl(t, "delete", "pod", "-l", "app=web", "-n", ns, "--timeout=60s")
			c.Kubectl(t, "rollout", "status", "deployment/web", "-n", ns, "--timeout=60s")
		}},
		{"a namespace takes everything with it", plain, func(t *testing.T, c *Cluster, ns string) {
			condition(t, c, ns, "Available", "True", "MinimumReplicasAvailable")
			c.Kubectl(t, "delete", "namespace", ns, "--timeout=60s")
			if out, err := c.Try("get", "all", "-n", ns); err != nil || !strings.Contains(out, "No resources found") {
				t.Errorf("%v: %s", err, out)
			}
		}},
	})
}
