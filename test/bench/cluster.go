package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"karve/client"
)

// cluster is one made for a measurement.
type cluster struct {
	b                     *bench
	name, dir, kubeconfig string
	gone                  bool
}

// run runs a program for at most ten minutes and returns what it printed; its error holds what it complained about.
func (b *bench) run(ctx context.Context, dir string, env []string, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "KUBECONFIG="+filepath.Join(b.scratch, "none")), env...)
	cmd.WaitDelay = time.Second
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(bad.String()))
	}
	return out.String(), nil
}

// up starts a cluster of one node and returns how long it took until the node was Ready.
func (b *bench) up(ctx context.Context, what string) (*cluster, time.Duration, error) {
	name := fmt.Sprintf("b-%s-%d-%d", what, os.Getpid(), len(b.made))
	c := &cluster{b: b, name: name, dir: filepath.Join(b.scratch, name), kubeconfig: filepath.Join(b.scratch, name+".kubeconfig")}
	b.made = append(b.made, c)
	began := time.Now()
	_, err := c.karve(ctx, "up")
	return c, time.Since(began), err
}

func (c *cluster) karve(ctx context.Context, command ...string) (string, error) {
	return c.b.run(ctx, "/", []string{"KUBECONFIG=" + c.kubeconfig}, filepath.Join(c.b.bin, "karve"), append(command, "--name", c.name, "--data", c.dir)...)
}

func (c *cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return c.b.run(ctx, "/", []string{"KUBECONFIG=" + c.kubeconfig, "HOME=" + c.b.scratch}, filepath.Join(c.b.bin, "kubectl"), args...)
}

func (c *cluster) load(ctx context.Context) error {
	_, err := c.karve(ctx, append([]string{"image", "load"}, c.b.images...)...)
	return err
}

// down removes the cluster, once; the interrupt that may have ended the measurement does not keep it from that.
func (c *cluster) down() error {
	if c.gone {
		return nil
	}
	c.gone = true
	_, err := c.karve(context.Background(), "down")
	return err
}

func (c *cluster) api() (client.Transport, error) { return client.FromKubeconfig(c.kubeconfig, "") }

// processes returns the cluster's processes: id by name, as karve status tells them from the cluster's control groups.
func (c *cluster) processes(ctx context.Context) (map[int]string, error) {
	out, err := c.karve(ctx, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var s struct {
		Processes []struct {
			PID  int
			Name string
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, fmt.Errorf("read karve status: %w", err)
	}
	pids := map[int]string{}
	for _, p := range s.Processes {
		pids[p.PID] = p.Name
	}
	return pids, nil
}

// until tries fn every 20 ms until it has no complaint, for at most two minutes.
func until(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited too long: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
