package cluster

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cli is one kubectl in one namespace.
type cli struct {
	*Cluster
	program, ns string
}

func (k *cli) cmd(args ...string) *exec.Cmd {
	return exec.Command(k.program, append([]string{"-n", k.ns}, args...)...)
}

// ok runs it, and what it prints must hold every one of want.
func (k *cli) ok(t *testing.T, line string, want ...string) string {
	t.Helper()
	return k.ran(t, k.cmd(strings.Fields(line)...), want...)
}

func (k *cli) ran(t *testing.T, cmd *exec.Cmd, want ...string) string {
	t.Helper()
	out, err := k.run(cmd)
	if err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args[1:], err, out)
		return out
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%v: no %q in:\n%s", cmd.Args[1:], w, out)
		}
	}
	return out
}

// fails runs it, and it must end with a status and say something.
func (k *cli) fails(t *testing.T, status int, line string, want string) {
	t.Helper()
	out, err := k.run(k.cmd(strings.Fields(line)...))
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != status || !strings.Contains(out, want) {
		t.Errorf("%s: %v, not status %d with %q:\n%s", line, err, status, want, out)
	}
}

func (k *cli) file(t *testing.T, name, content string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

const matrix = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: test/web:v1, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
`

func TestKubectl(t *testing.T) {
	c := shared(t)
	for name, program := range map[string]string{"built": kubectl, "distribution": "/usr/bin/kubectl"} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(program); err != nil {
				t.Skip("SKIPPED: there is no " + program + ": install a kubectl to try another version")
			}
			k := &cli{c, program, c.Namespace(t)}
			manifest := k.file(t, "all.yaml", matrix+box(sleeps, "", "")+"---\n"+strings.NewReplacer("name: p, labels: {app: p}", "name: crash, labels: {app: crash}").Replace(box("echo first; test -e /d/x && { "+sleeps+"; }; >/d/x; exit 1", "volumeMounts: [{name: d, mountPath: /d}]", "volumes: [{name: d, emptyDir: {}}]")))
			k.ok(t, "create -f "+manifest, "deployment.apps/web created", "pod/p created")
			k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
			k.ok(t, "wait --for=condition=Ready pod/p --timeout=60s", "condition met")
			for _, one := range []struct {
				name string
				run  func(*testing.T, *cli)
			}{{"get", kubectlGet}, {"describe", kubectlDescribe}, {"logs", kubectlLogs}, {"exec", kubectlExec}, {"cp", kubectlCopy}, {"port-forward", kubectlForward},
				{"apply", kubectlApply}, {"edit", kubectlEdit}, {"create", kubectlCreate}, {"rollout", kubectlRollout}, {"auth", kubectlAuth}, {"explain", kubectlExplain}, {"node", kubectlNode}, {"delete", kubectlDelete}} {
				t.Run(one.name, func(t *testing.T) { one.run(t, k) })
			}
		})
	}
}

func kubectlGet(t *testing.T, k *cli) {
	node := k.Name + "-1"
	k.ok(t, "get pods -o wide", "NAME", "READY", "IP", "NODE", "10.244.", node)
	k.ok(t, "get pods p -o yaml", "kind: Pod", "phase: Running")
	k.ok(t, "get pods p -o json", `"kind": "Pod"`)
	k.ok(t, "get pods p -o name", "pod/p")
	k.ok(t, "get pods p -o custom-columns=N:.metadata.name,P:.status.phase", "N", "P\n", "p ", "Running\n")
	if out := k.ok(t, "get pods p -o jsonpath={.status.phase}"); out != "Running" {
		t.Errorf("jsonpath gives %q", out)
	}
	k.ok(t, "get pods --show-labels", "LABELS", "app=p")
	k.ok(t, "get pods -L app", "APP")
	k.ok(t, "get pods -A", "NAMESPACE", k.ns)
	if out := k.ok(t, "get pods -l app=p -o name"); out != "pod/p\n" {
		t.Errorf("-l gives %q", out)
	}
	if out := k.ok(t, "get pods --field-selector metadata.name=p -o name"); out != "pod/p\n" {
		t.Errorf("--field-selector gives %q", out)
	}
	k.ok(t, "get pods --sort-by=.metadata.name", "p ")
	k.ok(t, "get deploy,rs,svc,po", "deployment.apps/web", "replicaset.apps/web-", "service/web", "pod/p")
	k.ok(t, "get all", "deployment.apps/web", "service/web")
	k.ok(t, "get nodes -o wide", node, "Ready", "INTERNAL-IP", "karve://")
	k.ok(t, "get namespaces", k.ns, "Active")
	k.ok(t, "get events", "Scheduled", "Started")
	k.ok(t, "get endpointslices", "web-")
	k.ok(t, "get --raw /readyz", "ok")
	k.ok(t, "api-resources", "deployments", "apps/v1", "deploy")
	k.ok(t, "api-versions", "apps/v1")
	k.ok(t, "version", "Server Version: v1.36")
	k.ok(t, "cluster-info", "is running at")
	k.fails(t, 1, "get pods none", `pods "none" not found`)
	k.fails(t, 1, "get nonsense", "the server doesn't have a resource type")
	out, err := k.run(k.cmd("top", "nodes"))
	if err != nil && !strings.Contains(strings.ToLower(out), "not available") {
		t.Errorf("top: %v: %s", err, out)
	}
}

func kubectlDescribe(t *testing.T, k *cli) {
	k.ok(t, "describe pod p", "Status:", "Running", "test/box:v1", "Events:", "Scheduled", "Started", "Conditions:", "QoS Class:")
	k.ok(t, "describe deployment web", "Replicas:", "2 desired | 2 updated | 2 total | 2 available | 0 unavailable", "RollingUpdate", "ScalingReplicaSet")
	k.ok(t, "describe service web", "Selector:", "app=web", "Endpoints:", ":8080")
	k.ok(t, "describe node "+k.Name+"-1", "Capacity:", "Allocatable:", "Ready", "Non-terminated Pods:", "Allocated resources:", "PodCIDR:")
	k.ok(t, "describe rs", "Controlled By:", "Deployment/web")
	k.ok(t, "describe namespace "+k.ns, "Active")
}

func kubectlLogs(t *testing.T, k *cli) {
	k.becomes(t, k.ns, "crash", "status.containerStatuses.0.restartCount", "1", "status.containerStatuses.0.ready", "true")
	if out := k.ok(t, "logs crash --previous"); out != "first\n" {
		t.Errorf("--previous gives %q", out)
	}
	k.fails(t, 1, "logs p --previous", "previous terminated container")
	k.ok(t, "run say --image=test/web:v1 --restart=Never -- say", "pod/say created")
	k.ready(t, k.ns, "say")
	cmd := k.cmd("logs", "-f", "say")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	n := 0
	for sc := bufio.NewScanner(out); n < 25 && sc.Scan(); {
		if n++; sc.Text() != fmt.Sprint("line ", n) {
			t.Errorf("line %d is %q", n, sc.Text())
		}
	}
	if n < 25 {
		t.Errorf("it ends after %d lines", n)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out := k.ok(t, "logs say --tail=2"); strings.Count(out, "\n") != 2 {
		t.Errorf("--tail=2 gives %q", out)
	}
	k.ok(t, "logs say --timestamps --limit-bytes=60", "T", "Z line 1\n")
	k.ok(t, "logs -l app=web --prefix --all-containers")
	k.ok(t, "logs deployment/web")
	k.ok(t, "delete pod say --grace-period=0 --force")
}

func kubectlExec(t *testing.T, k *cli) {
	if out := k.ran(t, k.cmd("exec", "p", "--", "sh", "-c", "echo out; echo err >&2")); !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") {
		t.Errorf("got %q", out)
	}
	k.fails(t, 1, "exec p -- /bin/server none", "there is no mode none")
	cmd := k.cmd("exec", "-i", "p", "--", "busybox", "wc", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 300000))
	if out := k.ran(t, cmd); strings.TrimSpace(out) != "300000" {
		t.Errorf("300000 bytes became %s", out)
	}
	k.ran(t, k.cmd("exec", "deployment/web", "--", "busybox", "true"))
	k.fails(t, 1, "exec p -c none -- true", "container none")
	x := k.terminal(t, k.program, "-n", k.ns, "exec", "-it", "p", "--", "sh")
	x.types(t, "busybox stty size\n", "33 77")
	x.types(t, "test -t 0 && echo it-is-a-$((40+2))\n", "it-is-a-42")
	if err := resize(x.master); err != nil {
		t.Fatal(err)
	}
	k.eventually(t, "the new size", func() error {
		_, _ = x.master.WriteString("busybox stty size\n")
		x.mu.Lock()
		defer x.mu.Unlock()
		if !strings.Contains(x.seen.String(), "44 111") {
			return fmt.Errorf("it shows %q", x.seen.String())
		}
		return nil
	})
	x.types(t, "exit 5\n", "exit code 5")
	if err := x.cmd.Wait(); err == nil || x.cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("it ends with %v", err)
	}
}

func kubectlCopy(t *testing.T, k *cli) {
	dir := t.TempDir()
	big := strings.Repeat("0123456789", 100000)
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	if err := os.WriteFile(there, []byte(big), 0o644); err != nil {
		t.Fatal(err)
	}
	k.ran(t, k.cmd("cp", there, "p:/tmp/copied"))
	k.ran(t, k.cmd("cp", "p:/tmp/copied", back))
	if b, err := os.ReadFile(back); err != nil || string(b) != big {
		t.Errorf("%d bytes came back, %v", len(b), err)
	}
}

func kubectlForward(t *testing.T, k *cli) {
	for _, target := range []string{"deployment/web", "service/web"} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		to := "8080"
		if target == "service/web" {
			to = "80"
		}
		cmd := k.cmd("port-forward", target, fmt.Sprintf("%d:%s", port, to))
		cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig)
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			within(t, 20*time.Second, "an answer through "+target, func() error {
				page, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", port))
				if err == nil && !strings.HasPrefix(page, "web-") {
					err = fmt.Errorf("%q answers", page)
				}
				return err
			})
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out.Len() > 0 {
			t.Errorf("%s: %s", target, out.String())
		}
	}
}

func kubectlApply(t *testing.T, k *cli) {
	one := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1', w: '1'}\n"
	two := strings.Replace(one, "x: '1', w: '1'", "x: '2'", 1)
	a, b := k.file(t, "a.yaml", one), k.file(t, "b.yaml", two)
	k.fails(t, 1, "diff -f "+a, "+kind: ConfigMap")
	k.ok(t, "apply -f "+a, "configmap/a created")
	k.ok(t, "diff -f "+a)
	k.ok(t, "apply -f "+a, "configmap/a unchanged")
	k.fails(t, 1, "diff -f "+b, "+  x: \"2\"")
	k.ok(t, "apply -f "+b+" --dry-run=server", "configured (server dry run)")
	k.ok(t, "apply -f "+b, "configmap/a configured")
	if out := k.ok(t, "get configmap a -o jsonpath={.data}"); out != `{"x":"2"}` {
		t.Errorf("data is %s", out)
	}
	s := k.file(t, "s.yaml", strings.ReplaceAll(one, "name: a", "name: s"))
	k.ok(t, "apply --server-side -f "+s, "configmap/s serverside-applied")
	other := k.file(t, "o.yaml", strings.ReplaceAll(two, "name: a", "name: s"))
	k.fails(t, 1, "apply --server-side --field-manager=other -f "+other, "conflict")
	k.ok(t, "apply --server-side --field-manager=other --force-conflicts -f "+other, "serverside-applied")
	if out := k.ok(t, "get configmap s -o jsonpath={.data}"); out != `{"w":"1","x":"2"}` {
		t.Errorf("data is %s", out)
	}
	bad := k.file(t, "bad.yaml", strings.Replace(one, "\ndata:", "\ndta:", 1))
	k.fails(t, 1, "apply -f "+bad, "dta")
	invalid := k.file(t, "invalid.yaml", strings.Replace(one, "name: a", "name: A_B", 1))
	k.fails(t, 1, "apply -f "+invalid, "RFC 1123")
	k.ran(t, k.cmd("patch", "configmap", "a", "--type=json", "-p", `[{"op":"add","path":"/data/z","value":"9"}]`), "patched")
	k.ok(t, "replace -f "+a, "replaced")
	k.ok(t, "delete -f "+a, "deleted")
}

func kubectlEdit(t *testing.T, k *cli) {
	k.ok(t, "create configmap e --from-literal=word=before")
	editor := k.file(t, "editor", "#!/bin/sh\nexec sed -i s/before/after/ \"$1\"\n")
	cmd := k.cmd("edit", "configmap", "e")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig, "EDITOR="+editor)
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "configmap/e edited") {
		t.Errorf("%v: %s", err, out.String())
	}
	if out := k.ok(t, "get configmap e -o jsonpath={.data.word}"); out != "after" {
		t.Errorf("the word is %s", out)
	}
}

func kubectlCreate(t *testing.T, k *cli) {
	k.ok(t, "create secret generic s1 --from-literal=k=v", "secret/s1 created")
	if out := k.ok(t, "get secret s1 -o jsonpath={.data.k}"); out != "dg==" {
		t.Errorf("it holds %s", out)
	}
	k.ok(t, "create job once --image=test/box:v1 -- busybox true", "job.batch/once created")
	k.ok(t, "wait --for=condition=complete job/once --timeout=60s", "condition met")
	k.ok(t, "create deployment made --image=test/web:v1 --replicas=1 --port=8080", "deployment.apps/made created")
	k.ok(t, "expose deployment made --port=80 --target-port=8080", "service/made exposed")
	k.ok(t, "wait --for=condition=available deployment/made --timeout=60s", "condition met")
	k.ok(t, "create serviceaccount robot", "serviceaccount/robot created")
	if out := k.ok(t, "create token robot"); strings.Count(out, ".") != 2 {
		t.Error("that is no token")
	}
	k.ok(t, "create role reader --verb=get,list --resource=pods", "created")
	k.ok(t, "create rolebinding reader --role=reader --serviceaccount="+k.ns+":robot", "created")
	k.ok(t, "create quota q --hard=configmaps=100", "created")
	k.ok(t, "run one --image=test/box:v1 --restart=Never --command -- busybox echo ran", "pod/one created")
	k.ok(t, "wait --for=jsonpath={.status.phase}=Succeeded pod/one --timeout=60s", "condition met")
	k.ok(t, "logs one", "ran")
	k.ok(t, "run gone --image=test/box:v1 --restart=Never --rm -i --quiet --command -- busybox echo attached", "attached")
	k.fails(t, 1, "get pod gone", "not found")
	k.ok(t, "label pod p colour=red", "pod/p labeled")
	k.fails(t, 1, "label pod p colour=blue", "--overwrite")
	k.ok(t, "label pod p colour-", "unlabeled")
	k.ok(t, "annotate pod p a=b", "annotated")
	k.fails(t, 1, "create namespace "+k.ns, "already exists")
}

func kubectlRollout(t *testing.T, k *cli) {
	k.ok(t, "set image deployment/web web=test/web:v2", "image updated")
	k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
	k.ok(t, "rollout history deployment/web", "REVISION", "1", "2")
	k.ok(t, "rollout history deployment/web --revision=2", "test/web:v2")
	k.ok(t, "rollout undo deployment/web", "rolled back")
	k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
	if out := k.ok(t, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}"); out != "test/web:v1" {
		t.Errorf("the image is %s", out)
	}
	k.ok(t, "rollout restart deployment/web", "restarted")
	k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
	k.ok(t, "scale deployment web --replicas=3", "scaled")
	k.ok(t, "wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s", "condition met")
	k.ok(t, "scale deployment web --current-replicas=3 --replicas=1", "scaled")
	k.ok(t, "set env deployment/web A=b", "env updated")
	k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
	k.ok(t, "autoscale deployment web --max=3 --cpu-percent=50", "autoscaled")
}

func kubectlAuth(t *testing.T, k *cli) {
	k.ok(t, "auth can-i create pods", "yes")
	k.ok(t, "auth can-i --list", "*.*")
	k.ok(t, "auth whoami", "system:masters")
	as := "--as=system:serviceaccount:" + k.ns + ":robot"
	k.ok(t, "auth can-i list pods "+as, "yes")
	k.fails(t, 1, "auth can-i delete pods "+as, "no")
	k.ok(t, "auth can-i --list "+as, "pods", "get list")
	k.fails(t, 1, "get secrets "+as, "forbidden")
}

func kubectlExplain(t *testing.T, k *cli) {
	k.ok(t, "explain pod.spec.containers", "KIND:", "image")
	k.ok(t, "explain deployment --recursive", "replicas", "<integer>")
	k.fails(t, 1, "explain pod.spec.none", "does not exist")
}

func kubectlNode(t *testing.T, k *cli) {
	node := k.Name + "-1"
	k.ok(t, "cordon "+node, "cordoned")
	t.Cleanup(func() { k.ok(t, "uncordon "+node) })
	k.ok(t, "get node "+node, "SchedulingDisabled")
	k.ok(t, "drain "+node+" --pod-selector=app=web --ignore-daemonsets --delete-emptydir-data --force --timeout=60s", "drained")
	k.eventually(t, "replacements that find no node", func() error {
		pods, err := k.pods(k.ns, "app=web")
		if err == nil && (len(pods) == 0 || pods[0].at("status.phase") != "Pending") {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
	k.ok(t, "uncordon "+node, "uncordoned")
	k.ok(t, "rollout status deployment/web --timeout=60s", "successfully rolled out")
	k.ok(t, "taint node "+node+" key=value:NoSchedule", "tainted")
	t.Cleanup(func() { _, _ = k.run(k.cmd("taint", "node", node, "key-")) })
	k.ok(t, "run late --image=test/web:v1", "created")
	k.eventually(t, "the reason", func() error {
		out, err := k.run(k.cmd("describe", "pod", "late"))
		if err == nil && (!strings.Contains(out, "FailedScheduling") || !strings.Contains(out, "untolerated taint")) {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
	k.ok(t, "taint node "+node+" key-", "untainted")
	k.ready(t, k.ns, "late")
}

func kubectlDelete(t *testing.T, k *cli) {
	k.ok(t, "delete pod late --timeout=60s", "deleted")
	k.fails(t, 1, "get pod late", "not found")
	k.ok(t, "delete pod -l app=p --timeout=60s", "deleted")
	k.ok(t, "delete service,deployment web --timeout=60s", "deleted")
	k.ok(t, "wait --for=delete pod -l app=web --timeout=60s")
	k.ok(t, "delete pod none --ignore-not-found")
	k.ok(t, "delete configmap --all", "deleted")
	k.ok(t, "create namespace "+k.ns+"-b", "created")
	k.ok(t, "-n "+k.ns+"-b create deployment d --image=test/web:v1")
	k.ok(t, "delete namespace "+k.ns+"-b --timeout=60s", "deleted")
	k.fails(t, 1, "get namespace "+k.ns+"-b", "not found")
}
