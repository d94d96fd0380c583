package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// images are the shop's, by name: the program each is made of and the version it shows.
var images = []struct{ name, program, version string }{
	{"shop/web:v1", "web", "v1"}, {"shop/web:v2", "web", "v2"}, {"shop/sidecar:v1", "sidecar", ""},
	{"shop/catalog:v1", "catalog", ""}, {"shop/cart:v1", "cart", ""}, {"shop/load:v1", "load", ""},
}

// run makes the checks in order. Without a cluster that runs the shop the later ones mean nothing and are left out.
func (d *demo) run(ctx context.Context, l *list) {
	ok := l.check(ctx, "built", 5*time.Minute, d.built) &&
		l.check(ctx, "cluster ready", 2*time.Minute, d.clusterReady) &&
		l.check(ctx, "images loaded", time.Minute, d.imagesLoaded) &&
		l.check(ctx, "application available", 2*time.Minute, d.available) &&
		l.check(ctx, "page through the NodePort", 20*time.Second, d.pageAnswers)
	if !ok {
		return
	}
	l.check(ctx, "killed process restarted", time.Minute, d.killedRestarts)
	l.check(ctx, "deleted pod replaced", time.Minute, d.deletedReplaced)
	l.check(ctx, "scaled 2 → 6", time.Minute, func(ctx context.Context) (string, error) { return d.scaled(ctx, 6) })
	l.check(ctx, "scaled 6 → 2", time.Minute, func(ctx context.Context) (string, error) { return d.scaled(ctx, 2) })
	l.check(ctx, "rolled v1 → v2 under load", 2*time.Minute, func(ctx context.Context) (string, error) {
		return d.rolls(ctx, "v1", "v2", "set", "image", "deployment/web", "web=shop/web:v2")
	})
	l.check(ctx, "rolled back under load", 2*time.Minute, func(ctx context.Context) (string, error) {
		return d.rolls(ctx, "v2", "v1", "rollout", "undo", "deployment/web")
	})
	l.check(ctx, "Service kept its address", 10*time.Second, d.keptAddress)
	l.check(ctx, "kubectl explain", 20*time.Second, d.explains)
}

func (d *demo) built(ctx context.Context) (string, error) {
	version, err := d.karve(ctx, "version")
	if err != nil {
		return "", fmt.Errorf("run make build first: %w", err)
	}
	if _, err := os.Stat(filepath.Join(d.bin, "kubectl")); err != nil {
		return "", fmt.Errorf("run make build first: %w", err)
	}
	dir := filepath.Join(d.bin, "shop")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, im := range images {
		program := filepath.Join(dir, im.program+im.version)
		if _, err := d.command(ctx, d.root, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+im.version, "-o", program, "./examples/shop/"+im.program); err != nil {
			return "", err
		}
		if _, err := d.karve(ctx, "image", "pack", "-o", d.tarball(im.name), "--user", "65532:65532", im.name, program+":/"+im.program); err != nil {
			return "", err
		}
	}
	return version, nil
}

func (d *demo) tarball(image string) string {
	return filepath.Join(d.bin, "shop", strings.NewReplacer("/", "-", ":", "-").Replace(image)+".tar")
}

// status is the part of `karve status -o json` used here.
type status struct {
	Context, Kubeconfig string
	Healthy             bool
	Problem             string
	Nodes               []struct {
		Name, Version string
		Ready         bool
	}
	Processes []struct {
		PID    int
		Name   string
		Memory int64
	}
	Memory int64
}

func (d *demo) status(ctx context.Context) (status, error) {
	var s status
	out, err := d.karve(ctx, "status", "--name", d.name, "-o", "json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func (d *demo) clusterReady(ctx context.Context) (string, error) {
	started := time.Now()
	if _, err := d.karve(ctx, "up", "--name", d.name, "--nodes", fmt.Sprint(d.nodes),
		"--publish", fmt.Sprintf("%d:30080", d.port), "--publish", fmt.Sprintf("%d:30081", d.port+1)); err != nil {
		return "", err
	}
	took := time.Since(started)
	s, err := d.status(ctx)
	if err != nil {
		return "", err
	}
	if !s.Healthy || len(s.Nodes) < d.nodes {
		return "", fmt.Errorf("%d nodes, healthy %v %s", len(s.Nodes), s.Healthy, s.Problem)
	}
	d.kubeconfig, d.context = s.Kubeconfig, s.Context
	return fmt.Sprintf("%d node(s) Ready after %.2f s, %d MiB in %d process(es)", len(s.Nodes), took.Seconds(), s.Memory>>20, len(s.Processes)), nil
}

func (d *demo) imagesLoaded(ctx context.Context) (string, error) {
	args := []string{"image", "load", "--name", d.name}
	for _, im := range images {
		args = append(args, d.tarball(im.name))
	}
	if _, err := d.karve(ctx, args...); err != nil {
		return "", err
	}
	out, err := d.karve(ctx, "image", "ls", "--name", d.name)
	if err != nil {
		return "", err
	}
	for _, im := range images {
		if strings.Count(out, im.name+" ") < d.nodes {
			return "", fmt.Errorf("%s is not on every node", im.name)
		}
	}
	return fmt.Sprintf("%d images on every node", len(images)), nil
}

func (d *demo) available(ctx context.Context) (string, error) {
	if _, err := d.kubectl(ctx, "apply", "-f", filepath.Join(d.root, "examples", "shop", "shop.yaml")); err != nil {
		return "", err
	}
	for _, name := range []string{"web", "catalog", "cart", "load"} {
		if _, err := d.kubectl(ctx, "rollout", "status", "deployment/"+name, "--timeout=90s"); err != nil {
			return "", err
		}
	}
	var err error
	if d.address, err = d.serviceAddress(ctx); err != nil {
		return "", err
	}
	return "4 Deployments, Service web at " + d.address, nil
}

func (d *demo) serviceAddress(ctx context.Context) (string, error) {
	ip, err := d.kubectl(ctx, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if err == nil && ip == "" {
		err = errors.New("the Service web has no address")
	}
	return ip, err
}

func (d *demo) pageAnswers(ctx context.Context) (string, error) {
	p, err := until(ctx, func() (page, error) { return d.page(ctx) })
	if err != nil {
		return "", err
	}
	if p.Version != "v1" || p.Greeting == "" || p.Banner == "" || len(p.Items) == 0 {
		return "", fmt.Errorf("the page lacks something: %+v", p)
	}
	for app, name := range map[string]string{"web": p.Web, "catalog": p.Catalog, "cart": p.Cart} {
		pods, err := d.pods(ctx, app)
		if err != nil {
			return "", err
		}
		if !readyNames(pods)[name] {
			return "", fmt.Errorf("the page says %s answered for %s, which is no ready pod of it", name, app)
		}
	}
	return fmt.Sprintf("%s: %s, %s, %s", p.Version, p.Web, p.Catalog, p.Cart), nil
}

// killedRestarts puts something into the cart, kills the cart's process as an accident would, and finds the process back
// with what it had kept.
func (d *demo) killedRestarts(ctx context.Context) (string, error) {
	if err := ask(ctx, http.MethodPost, d.url("/add?item=Anchor"), nil); err != nil {
		return "", err
	}
	before, err := d.pods(ctx, "cart")
	if err != nil {
		return "", err
	}
	if len(before) != 1 || len(before[0].Status.ContainerStatuses) != 1 {
		return "", fmt.Errorf("%d pods of cart, not 1", len(before))
	}
	s, err := d.status(ctx)
	if err != nil {
		return "", err
	}
	var pids []int
	for _, p := range s.Processes {
		if p.Name == "cart" {
			pids = append(pids, p.PID)
		}
	}
	if len(pids) != 1 {
		return "", fmt.Errorf("%d processes are called cart, not 1", len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		return "", fmt.Errorf("kill process %d: %w", pids[0], err)
	}
	killed := time.Now()
	restarts := before[0].Status.ContainerStatuses[0].RestartCount
	return until(ctx, func() (string, error) {
		now, err := d.pods(ctx, "cart")
		if err != nil {
			return "", err
		}
		if len(now) != 1 || now[0].Metadata.UID != before[0].Metadata.UID {
			return "", errors.New("the pod was replaced, not its process")
		}
		if len(now[0].Status.ContainerStatuses) != 1 || now[0].Status.ContainerStatuses[0].RestartCount <= restarts || !now[0].ready() {
			return "", errors.New("the container has not been restarted")
		}
		p, err := d.page(ctx)
		if err != nil {
			return "", err
		}
		if !slices.Contains(p.InCart, "Anchor") {
			return "", fmt.Errorf("the cart has lost the anchor: %v", p.InCart)
		}
		return fmt.Sprintf("process %d killed, back %.2f s later with its cart", pids[0], time.Since(killed).Seconds()), nil
	})
}

func (d *demo) deletedReplaced(ctx context.Context) (string, error) {
	before, err := d.pods(ctx, "web")
	if err != nil {
		return "", err
	}
	old := readyNames(before)
	names := slices.Sorted(maps.Keys(old))
	if len(names) == 0 {
		return "", errors.New("no pod of web is ready")
	}
	victim := names[0]
	if _, err := d.kubectl(ctx, "delete", "pod", victim, "--wait=false"); err != nil {
		return "", err
	}
	return until(ctx, func() (string, error) {
		now, err := d.pods(ctx, "web")
		if err != nil {
			return "", err
		}
		ready := readyNames(now)
		for name := range ready {
			if !old[name] && len(ready) == len(old) {
				return fmt.Sprintf("%s for %s", name, victim), nil
			}
		}
		return "", fmt.Errorf("%s has not been replaced: %d of %d ready", victim, len(ready), len(old))
	})
}

// scaled changes the number of web pods and finds that each of them, and no other, answers.
func (d *demo) scaled(ctx context.Context, n int) (string, error) {
	if _, err := d.kubectl(ctx, "scale", "deployment/web", fmt.Sprintf("--replicas=%d", n)); err != nil {
		return "", err
	}
	return until(ctx, func() (string, error) {
		pods, err := d.pods(ctx, "web")
		if err != nil {
			return "", err
		}
		ready := readyNames(pods)
		if len(ready) != n || len(pods) != n {
			return "", fmt.Errorf("%d pods, %d of them ready, not %d", len(pods), len(ready), n)
		}
		answered, err := d.answering(ctx, 20*n, "")
		if err != nil {
			return "", err
		}
		if !maps.Equal(answered, ready) {
			return "", fmt.Errorf("%d pods answered, not the %d that are ready", len(answered), n)
		}
		return fmt.Sprintf("all %d answer", n), nil
	})
}

// rolls changes the version of web while the load goes on asking, and counts.
func (d *demo) rolls(ctx context.Context, from, to string, change ...string) (string, error) {
	before, err := d.stats(ctx)
	if err != nil {
		return "", err
	}
	if _, err := until(ctx, func() (struct{}, error) { // so that the old version is seen answering, too
		now, err := d.stats(ctx)
		if err == nil && now.Versions[from] == before.Versions[from] {
			err = errors.New("the load gets no answer from " + from)
		}
		return struct{}{}, err
	}); err != nil {
		return "", err
	}
	if _, err := d.kubectl(ctx, change...); err != nil {
		return "", err
	}
	if _, err := d.kubectl(ctx, "rollout", "status", "deployment/web", "--timeout=90s"); err != nil {
		return "", err
	}
	// Until the last pod of the old version has gone: its end is where requests would be lost.
	if _, err := until(ctx, func() (struct{}, error) {
		pods, err := d.pods(ctx, "web")
		if err == nil && len(pods) != 2 {
			err = fmt.Errorf("%d pods are there, not 2", len(pods))
		}
		return struct{}{}, err
	}); err != nil {
		return "", err
	}
	if _, err := until(ctx, func() (map[string]bool, error) { return d.answering(ctx, 20, to) }); err != nil {
		return "", err
	}
	after, err := d.stats(ctx)
	if err != nil {
		return "", err
	}
	count := fmt.Sprintf("%d requests, %d failed (%s %d, %s %d)", after.Requests-before.Requests, after.Failed-before.Failed,
		from, after.Versions[from]-before.Versions[from], to, after.Versions[to]-before.Versions[to])
	if after.Failed != before.Failed || after.Requests == before.Requests || after.Versions[to] == before.Versions[to] {
		return "", errors.New(count + " " + after.LastError)
	}
	return count, nil
}

func (d *demo) keptAddress(ctx context.Context) (string, error) {
	now, err := d.serviceAddress(ctx)
	if err == nil && now != d.address {
		err = fmt.Errorf("it was %s and is %s", d.address, now)
	}
	return now, err
}

func (d *demo) explains(ctx context.Context) (string, error) {
	out, err := d.kubectl(ctx, "explain", "deployment.spec.strategy")
	if err != nil {
		return "", err
	}
	for _, want := range []string{"KIND:", "Deployment", "strategy", "rollingUpdate"} {
		if !strings.Contains(out, want) {
			return "", fmt.Errorf("the answer lacks %q", want)
		}
	}
	return fmt.Sprintf("deployment.spec.strategy in %d lines", strings.Count(out, "\n")+1), nil
}
