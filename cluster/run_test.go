package cluster

import (
	"context"
	"log/slog"
	"net"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"karve/client"
	"karve/config"
)

// TestControlPlaneComesAndGoes runs a control plane in this process, uses it over its own kubeconfig, stops it, and looks
// for what it left running.
func TestControlPlaneComesAndGoes(t *testing.T) {
	before := goruntime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c := config.Default()
	c.DataDir, c.StateDir, c.Node.Name = t.TempDir(), t.TempDir(), "here"
	c.API.Listen, c.API.Advertise = address, "127.0.0.1"
	c.Components = config.Components{APIServer: true, Controllers: true, Scheduler: true}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c, slog.New(slog.DiscardHandler)) }()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if tr, e := client.FromKubeconfig(c.AdminKubeconfig(), ""); e == nil {
			// The controllers are at work once a namespace has its service account.
			if _, e = client.Of[*corev1.ServiceAccount](tr).Get(ctx, metav1.NamespaceDefault, "default"); e == nil {
				break
			}
			err = e
		} else {
			err = e
		}
		if time.Now().After(deadline) {
			t.Fatalf("the control plane does not work: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatalf("stopped with %v", err)
	}
	// Connections of the client and what they were answered by take a moment to end.
	for time.Now().Before(deadline) && left() > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	if left() > 0 {
		buf := make([]byte, 1<<20)
		t.Fatalf("%d goroutines before, now:\n%s", before, buf[:goruntime.Stack(buf, true)])
	}
}

// left counts the goroutines that run karve's own code besides the test's.
func left() int {
	buf := make([]byte, 4<<20)
	n := 0
	for _, g := range strings.Split(string(buf[:goruntime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "karve/") && !strings.Contains(g, "testing.tRunner") {
			n++
		}
	}
	return n
}
