package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"karve/config"
	"karve/pki"
)

// TestMain runs the tests of root in network and mount namespaces of their own, with an empty /run: that is the "host" they
// put clusters on. The same program stands in for node processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "standin" {
		log.SetFlags(0)
		log.Fatal(standIn(os.Args[2:]))
	}
	if os.Geteuid() != 0 || os.Getenv("KARVE_TEST_HOST") != "" {
		if os.Geteuid() == 0 {
			if err := prepareHost(); err != nil {
				log.Fatal(err)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "KARVE_TEST_HOST=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		log.Fatal(err)
	}
}

func prepareHost() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
}

// standIn is a node process without Kubernetes: as server it answers what Up asks, as agent it waits. The word after the
// configuration changes what it does.
func standIn(args []string) error {
	role, file, mode := args[0], args[1], args[2]
	c, err := config.Load(config.Default(), []string{"KARVE_CONFIG=" + file}, nil)
	if err != nil {
		return err
	}
	if host, _ := os.Hostname(); host != c.Node.Name {
		return fmt.Errorf("host name %q, not %q", host, c.Node.Name)
	}
	if mode == "fail" {
		return errors.New("the engine is on fire")
	}
	if role == "agent" {
		if _, err := os.Stat(c.Join.Kubeconfig); err != nil {
			return err
		}
		time.Sleep(time.Hour)
	}
	ca, err := pki.Open(filepath.Join(c.DataDir, "pki"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.AdminKubeconfig()); err != nil {
		cert, key, err := ca.Client("admin", nil, time.Hour)
		if err != nil {
			return err
		}
		for _, p := range []string{c.JoinKubeconfig(), c.AdminKubeconfig()} {
			if err := ca.WriteKubeconfig(p, "https://"+net.JoinHostPort(c.API.Advertise, "6443"), cert, key, "admin"); err != nil {
				return err
			}
		}
	}
	serving, err := ca.Serving([]string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	answer := func(pattern string, obj func(r *http.Request) map[string]any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(obj(r))
		})
	}
	answer("/api/v1/namespaces/kube-system", func(*http.Request) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "kube-system"}}
	})
	answer("/api/v1/nodes", func(*http.Request) map[string]any {
		var items []any
		for _, n := range strings.Split(mode, ",") {
			items = append(items, map[string]any{"metadata": map[string]any{"name": n}, "status": map[string]any{
				"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}, "nodeInfo": map[string]any{"kubeletVersion": "v0-test"}}})
		}
		return map[string]any{"apiVersion": "v1", "kind": "NodeList", "items": items}
	})
	answer("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}", func(r *http.Request) map[string]any {
		return map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": r.PathValue("name")},
			"spec": map[string]any{"renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")}}
	})
	go func() { // what a Service would answer at its NodePort
		err := http.ListenAndServe("0.0.0.0:30080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "shop on", c.Node.Name) }))
		log.Fatal(err)
	}()
	srv := &http.Server{Addr: c.API.Listen, Handler: mux}
	srv.TLSConfig = tlsFor(serving)
	return srv.ListenAndServeTLS("", "")
}
