package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// small is a web server behind a Service, and a client that asks it by that Service's DNS name. %s is what the client asks.
const small = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "bench/app:v1", imagePullPolicy: IfNotPresent, args: [serve], ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
`

const asker = `apiVersion: v1
kind: Pod
metadata: {name: ask, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: ask, image: "bench/app:v1", imagePullPolicy: IfNotPresent, args: [ask, "%s"]}
`

// measureStart starts clusters one after the other, each with one application that is asked by DNS name from inside a pod.
func (b *bench) measureStart(ctx context.Context) error {
	shop, err := os.ReadFile(filepath.Join(b.root, "examples", "shop", "shop.yaml"))
	if err != nil {
		return err
	}
	apps := []struct{ what, manifest, url string }{
		{"one web server and a client", small, "http://web.default.svc.cluster.local/"},
		{"`examples/shop`, 4 Deployments with readiness probes of 1 s", string(shop) + "\n---\n", "http://web.shop.svc.cluster.local:8080/page"},
	}
	ups := figure{what: "`karve up` → node Ready", unit: "s", must: 3, aim: 1}
	load := figure{what: "loading the six images into the node", unit: "s"}
	var answers []figure
	for i, app := range apps {
		answer := figure{what: "`kubectl apply` → first good answer by DNS name inside a pod: " + app.what, unit: "s", must: 6, aim: 3}
		total := figure{what: "`karve up` → that answer, loading of images included: " + app.what, unit: "s"}
		for range b.runs {
			ups.begin()
			began := time.Now()
			c, took, err := b.up(ctx, "start")
			if err != nil {
				return err
			}
			ups.add(took.Seconds())
			loading := time.Now()
			if err := c.load(ctx); err != nil {
				return err
			}
			load.begin()
			load.add(time.Since(loading).Seconds())
			answer.begin()
			total.begin()
			applied := time.Now()
			at, err := c.firstAnswer(ctx, app.manifest+fmt.Sprintf(asker, app.url), i)
			if err != nil {
				return fmt.Errorf("%s: %w", app.what, err)
			}
			answer.add(at.Sub(applied).Seconds())
			total.add(at.Sub(began).Seconds())
			if err := c.down(); err != nil {
				return err
			}
		}
		answers = append(answers, answer, total)
	}
	b.report.figures = append(append(b.report.figures, ups, load), answers...)
	return nil
}

// firstAnswer applies a manifest and returns when the asking pod got its first good answer, by its own clock, which is this
// machine's.
func (c *cluster) firstAnswer(ctx context.Context, manifest string, i int) (time.Time, error) {
	file := filepath.Join(c.b.scratch, fmt.Sprintf("app%d.yaml", i))
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		return time.Time{}, err
	}
	if _, err := c.kubectl(ctx, "apply", "-f", file); err != nil {
		return time.Time{}, err
	}
	var at time.Time
	err := until(ctx, func() error {
		out, err := c.kubectl(ctx, "logs", "ask")
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return errors.New("there has been no good answer")
		}
		at = time.Unix(0, n)
		return nil
	})
	return at, err
}
