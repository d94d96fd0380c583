package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// demo is what the checks work with.
type demo struct {
	name        string
	nodes, port int
	bin, root   string // of the programs, and of the source

	kubeconfig, context string // how kubectl reaches the cluster
	address             string // of the Service web, once it is known
}

func (d *demo) nameFlag() string {
	if d.name == "karve" {
		return ""
	}
	return " --name " + d.name
}

// command runs a program and returns what it printed; its error holds what it complained about.
func (d *demo) command(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if d.kubeconfig != "" {
		cmd.Env = append(cmd.Env, "KUBECONFIG="+d.kubeconfig)
	}
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it took too long: %w", ctx.Err())
		}
		return "", fmt.Errorf("%s %s: %w %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(bad.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func (d *demo) karve(ctx context.Context, args ...string) (string, error) {
	return d.command(ctx, "/", filepath.Join(d.bin, "karve"), args...)
}

func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	return d.command(ctx, "/", filepath.Join(d.bin, "kubectl"), append([]string{"--context", d.context, "-n", "shop"}, args...)...)
}

// pod is what the checks look at.
type pod struct {
	Metadata struct {
		Name              string
		UID               string
		DeletionTimestamp string
		Labels            map[string]string
	}
	Spec struct {
		NodeName   string
		Containers []struct{ Image string }
	}
	Status struct {
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			Name         string
			RestartCount int
			Ready        bool
		}
	}
}

func (p *pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && p.Metadata.DeletionTimestamp == ""
		}
	}
	return false
}

func (d *demo) pods(ctx context.Context, app string) ([]pod, error) {
	out, err := d.kubectl(ctx, "get", "pods", "-l", "app="+app, "-o", "json")
	if err != nil {
		return nil, err
	}
	var l struct{ Items []pod }
	return l.Items, json.Unmarshal([]byte(out), &l)
}

func readyNames(pods []pod) map[string]bool {
	out := map[string]bool{}
	for i := range pods {
		if pods[i].ready() {
			out[pods[i].Metadata.Name] = true
		}
	}
	return out
}

// until tries fn again and again until it has no complaint, and returns the last one if ctx ends before.
func until[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	var last error
	for {
		v, err := fn()
		if err == nil {
			return v, nil
		}
		if ctx.Err() == nil || last == nil { // else it says no more than that the time was up
			last = err
		}
		select {
		case <-ctx.Done():
			return v, last
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// page is what the front answers.
type page struct {
	Version, Web, Catalog, Cart, Greeting, Banner string
	Items, InCart                                 []string
}

// client connects anew for each request, so that each is led to a pod of its own.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func ask(ctx context.Context, method, url string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		if resp.StatusCode >= 400 {
			return errors.New(url + " answered " + resp.Status)
		}
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(url + " answered " + resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (d *demo) url(path string) string { return "http://127.0.0.1:" + strconv.Itoa(d.port) + path }

func (d *demo) page(ctx context.Context) (page, error) {
	var p page
	return p, ask(ctx, http.MethodGet, d.url("/page"), &p)
}

// answering asks n times and returns the web pods that answered, each of which must show the version, if one is given.
func (d *demo) answering(ctx context.Context, n int, version string) (map[string]bool, error) {
	out := map[string]bool{}
	for range n {
		p, err := d.page(ctx)
		if err != nil {
			return nil, err
		}
		if version != "" && p.Version != version {
			return nil, fmt.Errorf("%s answered as %s, not %s", p.Web, p.Version, version)
		}
		out[p.Web] = true
	}
	return out, nil
}

// stats are the load's totals.
type stats struct {
	Requests, Failed int
	Versions         map[string]int
	LastError        string
}

func (d *demo) stats(ctx context.Context) (stats, error) {
	var s stats
	return s, ask(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(d.port+1)+"/stats", &s)
}
