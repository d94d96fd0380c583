// Command gen writes the checked-in schema files of package schema: definitions_gen.json.gz, which is every published type
// with its documentation, and merge_gen.jsonl, which is what server-side apply needs to know of each. Both are derived from
// the Go types and comments of the k8s.io modules in go.mod. `go generate ./api/schema` runs it from the package's folder;
// it needs the module cache and no network.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// packages hold the types that are published or that describe query parameters.
var packages = []string{
	"k8s.io/api/admissionregistration/v1", "k8s.io/api/apps/v1", "k8s.io/api/authentication/v1", "k8s.io/api/authorization/v1",
	"k8s.io/api/autoscaling/v1", "k8s.io/api/autoscaling/v2", "k8s.io/api/batch/v1", "k8s.io/api/certificates/v1",
	"k8s.io/api/coordination/v1", "k8s.io/api/core/v1", "k8s.io/api/discovery/v1", "k8s.io/api/events/v1",
	"k8s.io/api/flowcontrol/v1", "k8s.io/api/networking/v1", "k8s.io/api/node/v1", "k8s.io/api/policy/v1", "k8s.io/api/rbac/v1",
	"k8s.io/api/resource/v1", "k8s.io/api/scheduling/v1", "k8s.io/api/storage/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
	"k8s.io/apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/runtime", "k8s.io/apimachinery/pkg/version",
	"k8s.io/apimachinery/pkg/api/resource", "k8s.io/apimachinery/pkg/util/intstr",
}

// program is the main function that the generated definitions are compiled with.
const program = `package main

import (
	"fmt"
	"os"

	"karve/api/schema/gen/emit"
)

func main() {
	if err := emit.Write(os.Args[1], GetOpenAPIDefinitions); err != nil {
		fmt.Fprintln(os.Stderr, "emit:", err)
		os.Exit(1)
	}
}
`

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run generates Go source for the definitions in a folder of its own, then runs that program to write the files.
func run() error {
	out, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	// The folder has to be inside the module, for the program imports packages of it.
	dir, err := os.MkdirTemp("gen", "build-")
	if err != nil {
		return fmt.Errorf("make build folder (run this from api/schema): %w", err)
	}
	defer os.RemoveAll(dir)
	args := append([]string{"tool", "openapi-gen", "--output-dir", dir, "--output-pkg", "main", "--output-file", "definitions.go",
		"--report-filename", filepath.Join(dir, "report.txt")}, packages...)
	if err := command("go", args...); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		return fmt.Errorf("write program: %w", err)
	}
	return command("go", "run", "./"+dir, out)
}

func command(name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w", name, args[0], err)
	}
	return nil
}
