package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// kubectl is upstream's kubectl with an administrator's access to s.
func (s *server) kubectl(args ...string) (string, error) {
	path := os.Getenv("KUBECTL")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "kubectl")
	}
	c := exec.CommandContext(s.t.Context(), path, append([]string{"--kubeconfig", filepath.Join(s.dir, "data", "admin.kubeconfig"), "--cache-dir", filepath.Join(s.dir, "cache")}, args...)...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// everyResource calls fn for every resource that is served, with its group and version, and returns how many there are.
func everyResource(t *testing.T, cs kubernetes.Interface, fn func(gv string, r *metav1.APIResource)) int {
	t.Helper()
	_, lists, err := cs.Discovery().ServerGroupsAndResources()
	must(t, err)
	n := 0
	for _, l := range lists {
		for i := range l.APIResources {
			if !strings.Contains(l.APIResources[i].Name, "/") {
				fn(l.GroupVersion, &l.APIResources[i])
				n++
			}
		}
	}
	return n
}

// TestExplain checks that kubectl explains every resource with all that is in it, out of the published schemas.
func TestExplain(t *testing.T) {
	s := start(t)
	if out, err := s.kubectl("version"); err != nil {
		t.Fatalf("no kubectl to test with (make build makes it; KUBECTL names another): %v\n%s", err, out)
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, 4)
	n := everyResource(t, s.clientset(), func(gv string, r *metav1.APIResource) {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out, err := s.kubectl("explain", "--recursive", r.Name, "--api-version="+gv)
			for _, want := range []string{"KIND:       " + r.Kind + "\n", "DESCRIPTION:\n", "FIELDS:\n", "\n  kind\t<string>\n"} {
				if err != nil || !strings.Contains(out, want) {
					t.Errorf("explain %s of %s: %v, no %q in\n%s", r.Name, gv, err, want, out)
					return
				}
			}
			if strings.Contains(out, "<no description>") {
				t.Errorf("explain %s of %s: it has no description", r.Name, gv)
			}
		})
	})
	wait.Wait()
	if n < 60 {
		t.Errorf("only %d resources", n)
	}
}

// TestStrictEverywhere checks that a field that there is not is refused of every kind that is stored, in YAML and
// without anything having been stored, and that the same file passes where the client looks at its form alone.
func TestStrictEverywhere(t *testing.T) {
	s := start(t)
	var file strings.Builder
	kinds := 0
	everyResource(t, s.clientset(), func(gv string, r *metav1.APIResource) {
		if !slices.Contains(r.Verbs, "create") || !slices.Contains(r.Verbs, "patch") {
			return // kubectl asks the server to validate where there is a patch, and does it itself elsewhere
		}
		kinds++
		fmt.Fprintf(&file, "---\napiVersion: %s\nkind: %s\nmetadata:\n  name: walk\nspecial: {unheard: of}\n", gv, r.Kind)
	})
	path := filepath.Join(t.TempDir(), "all.yaml")
	must(t, os.WriteFile(path, []byte(file.String()), 0o600))
	out, err := s.kubectl("create", "--dry-run=server", "--validate=strict", "-f", path)
	if got := strings.Count(out, `unknown field "special"`); err == nil || got != kinds {
		t.Errorf("%d of %d kinds refused an unknown field: %v\n%s", got, kinds, err, out)
	}
	out, err = s.kubectl("create", "--dry-run=client", "--validate=false", "-f", path)
	if got := strings.Count(out, "created (dry run)"); err != nil || got != kinds {
		t.Errorf("%d of %d kinds created on trial by the client: %v\n%s", got, kinds, err, out)
	}
	good := filepath.Join(t.TempDir(), "good.yaml")
	must(t, os.WriteFile(good, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: walk\ndata: {a: b}\n"), 0o600))
	for _, args := range [][]string{{"--dry-run=server", "--validate=strict"}, {"--dry-run=client", "--validate=strict"}, {"--dry-run=server", "--server-side"}} {
		if out, err := s.kubectl(append([]string{"apply", "-f", good}, args...)...); err != nil || strings.Contains(out, "Warning") {
			t.Errorf("apply %v: %v\n%s", args, err, out)
		}
	}
	if out, err := s.kubectl("get", "configmap", "walk"); err == nil {
		t.Errorf("a trial was stored:\n%s", out)
	}
}
