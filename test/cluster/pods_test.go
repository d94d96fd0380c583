package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// podTest is a pod, and what is to be seen of it. NS in the manifest stands for the namespace, HOST for a directory of this
// machine that the test has for itself.
type podTest struct {
	name     string
	manifest string
	check    func(t *testing.T, c *Cluster, ns string)
}

func runPods(t *testing.T, tests []podTest) {
	c := shared(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := c.Namespace(t)
			c.Apply(t, ns, strings.NewReplacer("NS", ns, "HOST", hostDir(ns)).Replace(tt.manifest))
			tt.check(t, c, ns)
		})
	}
}

// hostDir is below what is removed in the end. It is a path of the machine: nodes have no root of their own.
func hostDir(ns string) string { return filepath.Join(scratch, "host", ns) }

// box is a pod p of one container that runs a line of shell. more is added to the container, spec to the pod.
func box(line, more, spec string) string {
	indent := func(s, by string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+by) }
	out := "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: p}, annotations: {note: first}}\nspec:\n  terminationGracePeriodSeconds: 1\n"
	if spec != "" {
		out += "  " + indent(spec, "  ") + "\n"
	}
	out += "  containers:\n  - name: main\n    image: test/box:v1\n    command: [sh, -c, " + fmt.Sprintf("%q", line) + "]\n"
	if more != "" {
		out += "    " + indent(more, "    ") + "\n"
	}
	return out
}

// sleeps goes on until it is told to end.
const sleeps = "trap 'exit 0' TERM; while :; do sleep 0.2; done"

func says(pairs ...string) func(*testing.T, *Cluster, string) {
	return func(t *testing.T, c *Cluster, ns string) { c.becomes(t, ns, "p", pairs...) }
}

// prints waits until the pod has succeeded, and looks for lines in its log.
func prints(lines ...string) func(*testing.T, *Cluster, string) {
	return func(t *testing.T, c *Cluster, ns string) {
		c.becomes(t, ns, "p", "status.phase", "Succeeded")
		log := c.Kubectl(t, "logs", "-n", ns, "p")
		for _, l := range lines {
			if !strings.Contains(log, strings.ReplaceAll(l, "NS", ns)) {
				t.Errorf("no %q in the log:\n%s", l, log)
			}
		}
	}
}

func TestPodLife(t *testing.T) {
	runPods(t, []podTest{
		{"init containers run in order", box("cat /d/x; cat /d/x >/dev/termination-log", "volumeMounts: [{name: d, mountPath: /d}]", `
restartPolicy: Never
volumes: [{name: d, emptyDir: {}}]
initContainers:
- {name: a, image: test/box:v1, command: [sh, -c, "echo a >>/d/x"], volumeMounts: [{name: d, mountPath: /d}]}
- {name: b, image: test/box:v1, command: [sh, -c, "echo b >>/d/x"], volumeMounts: [{name: d, mountPath: /d}]}`),
			says("status.phase", "Succeeded", "status.initContainerStatuses.0.state.terminated.reason", "Completed",
				"status.containerStatuses.0.state.terminated.message", "a\nb\n")},
		{"a failing init container keeps the others from starting", box("true", "", `
restartPolicy: Never
initContainers: [{name: a, image: test/box:v1, command: [sh, -c, "exit 3"]}]`),
			says("status.phase", "Failed", "status.initContainerStatuses.0.state.terminated.exitCode", "3",
				"status.containerStatuses.0.state.waiting.reason", "PodInitializing")},
		{"a sidecar starts before and ends after", box("cat /d/up && echo seen", "volumeMounts: [{name: d, mountPath: /d}]", `
restartPolicy: Never
volumes: [{name: d, emptyDir: {}}]
initContainers:
- name: side
  image: test/box:v1
  restartPolicy: Always
  command: [sh, -c, "echo up >/d/up; trap 'exit 0' TERM; while :; do sleep 0.2; done"]
  startupProbe: {exec: {command: [busybox, test, -e, /d/up]}, periodSeconds: 1}
  volumeMounts: [{name: d, mountPath: /d}]`), func(t *testing.T, c *Cluster, ns string) {
			prints("seen")(t, c, ns)
			says("status.initContainerStatuses.0.state.terminated.exitCode", "0", "status.initContainerStatuses.0.restartCount", "0")(t, c, ns)
		}},
		{"restartPolicy OnFailure", box("echo x >>/d/x; test $(busybox wc -l </d/x) -ge 2", "volumeMounts: [{name: d, mountPath: /d}]",
			"restartPolicy: OnFailure\nvolumes: [{name: d, emptyDir: {}}]"),
			says("status.phase", "Succeeded", "status.containerStatuses.0.restartCount", "1")},
		{"restartPolicy Never", box("exit 7", "", "restartPolicy: Never"),
			says("status.phase", "Failed", "status.containerStatuses.0.state.terminated.exitCode", "7", "status.containerStatuses.0.state.terminated.reason", "Error",
				"status.containerStatuses.0.restartCount", "0")},
		{"CrashLoopBackOff", box("exit 1", "", ""), says("status.containerStatuses.0.state.waiting.reason", "CrashLoopBackOff", "status.phase", "Running",
			"status.containerStatuses.0.lastState.terminated.exitCode", "1")},
		{"OOMKilled", strings.Replace(box("x", "resources: {limits: {memory: 48Mi}}", "restartPolicy: Never"), `[sh, -c, "x"]`, "[/bin/server, eat]", 1),
			says("status.containerStatuses.0.state.terminated.reason", "OOMKilled", "status.containerStatuses.0.state.terminated.exitCode", "137")},
		{"message falls back to the log", box("echo the end; exit 1", "terminationMessagePolicy: FallbackToLogsOnError", "restartPolicy: Never"),
			says("status.containerStatuses.0.state.terminated.message", "the end\n")},
		{"activeDeadlineSeconds", box(sleeps, "", "activeDeadlineSeconds: 2"), says("status.phase", "Failed", "status.reason", "DeadlineExceeded")},
		{"ErrImageNeverPull", strings.Replace(box(sleeps, "imagePullPolicy: Never", ""), "test/box:v1", "test/none:v1", 1),
			says("status.containerStatuses.0.state.waiting.reason", "ErrImageNeverPull", "status.phase", "Pending")},
		{"imagePullPolicy Never with the image present", box(sleeps, "imagePullPolicy: Never", ""), says("status.phase", "Running")},
		{"an image that cannot be pulled", strings.Replace(box(sleeps, "", ""), "test/box:v1", "127.0.0.1:9/none:v1", 1),
			says("status.containerStatuses.0.state.waiting.reason", "ImagePullBackOff", "status.phase", "Pending")},
		{"a command that is not there", strings.Replace(box("x", "", "restartPolicy: Never"), `[sh, -c, "x"]`, "[/nothing]", 1),
			says("status.phase", "Failed", "status.containerStatuses.0.state.terminated.exitCode", "128", "status.containerStatuses.0.state.terminated.reason", "StartError")},
		{"a container without its ConfigMap", box(sleeps, "envFrom: [{configMapRef: {name: none}}]", ""),
			says("status.containerStatuses.0.state.waiting.reason", "CreateContainerConfigError")},
		{"lifecycle hooks and graceful end", box("trap 'echo term >>/h/x; exit 0' TERM; while :; do sleep 0.1; done", `
volumeMounts: [{name: h, mountPath: /h}]
lifecycle:
  postStart: {exec: {command: [sh, -c, "echo start >>/h/x"]}}
  preStop: {exec: {command: [sh, -c, "echo stop >>/h/x"]}}`, "terminationGracePeriodSeconds: 20\nvolumes: [{name: h, hostPath: {path: HOST, type: DirectoryOrCreate}}]"), gracefulEnd},
		{"killed when the grace is over", box("trap '' TERM; while :; do sleep 0.2; done", "", ""), func(t *testing.T, c *Cluster, ns string) {
			c.ready(t, ns, "p")
			c.Kubectl(t, "delete", "pod", "-n", ns, "p", "--timeout=60s")
		}},
		{"a failing postStart hook", box("sleep 1000", `lifecycle: {postStart: {exec: {command: [sh, -c, "exit 1"]}}}`, "restartPolicy: Never"), says("status.phase", "Failed")},
	})
}

func gracefulEnd(t *testing.T, c *Cluster, ns string) {
	c.ready(t, ns, "p")
	c.Kubectl(t, "delete", "pod", "-n", ns, "p", "--timeout=60s")
	c.Apply(t, ns, strings.Replace(box(`cat /h/x`, "volumeMounts: [{name: h, mountPath: /h}]",
		"restartPolicy: Never\nvolumes: [{name: h, hostPath: {path: "+hostDir(ns)+"}}]"), "name: p,", "name: q,", 1))
	c.becomes(t, ns, "q", "status.phase", "Succeeded")
	if log := c.Kubectl(t, "logs", "-n", ns, "q"); log != "start\nstop\nterm\n" {
		t.Errorf("the order was %q", log)
	}
}

func TestProbes(t *testing.T) {
	web := func(probe string) string {
		return strings.Replace(box("x", "ports: [{name: http, containerPort: 8080}]\n"+probe, ""), `[sh, -c, "x"]`, "[/bin/server]", 1)
	}
	runPods(t, []podTest{
		{"a failing exec liveness probe restarts", box("touch=1; "+sleeps, `livenessProbe: {exec: {command: [sh, -c, "exit 1"]}, periodSeconds: 1, failureThreshold: 2}`, ""),
			says("status.containerStatuses.0.restartCount", "1", "status.containerStatuses.0.lastState.terminated.exitCode", "0")},
		{"http readiness follows the answers", web("readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 1}"),
			func(t *testing.T, c *Cluster, ns string) {
				c.ready(t, ns, "p")
				c.exec(t, ns, "p", "server get http://127.0.0.1:8080/sick")
				c.becomes(t, ns, "p", "status.containerStatuses.0.ready", "false", "status.containerStatuses.0.restartCount", "0")
				c.exec(t, ns, "p", "server get http://127.0.0.1:8080/well")
				c.ready(t, ns, "p")
			}},
		{"http liveness restarts", web("livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 5}"),
			func(t *testing.T, c *Cluster, ns string) {
				c.ready(t, ns, "p")
				c.exec(t, ns, "p", "server get http://127.0.0.1:8080/sick")
				c.becomes(t, ns, "p", "status.containerStatuses.0.restartCount", "1", "status.containerStatuses.0.ready", "true")
			}},
		{"tcp readiness", web("readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"), says("status.containerStatuses.0.ready", "true")},
		{"tcp readiness of a port nobody serves", web("readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}"), func(t *testing.T, c *Cluster, ns string) {
			c.eventually(t, "an Unhealthy event", func() error {
				out, err := c.Try("get", "events", "-n", ns, "-o", "jsonpath={.items[*].reason}")
				if err == nil && !strings.Contains(out, "Unhealthy") {
					err = fmt.Errorf("events are %s", out)
				}
				return err
			})
			c.becomes(t, ns, "p", "status.phase", "Running", "status.containerStatuses.0.ready", "false")
		}},
		{"the startup probe comes first", box("sleep 3; >/tmp/up; "+sleeps, `
startupProbe: {exec: {command: [busybox, test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 60}
livenessProbe: {exec: {command: [busybox, test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 1}`, ""),
			says("status.containerStatuses.0.started", "true", "status.containerStatuses.0.ready", "true", "status.containerStatuses.0.restartCount", "0")},
	})
}

func TestPodEnvironment(t *testing.T) {
	runPods(t, []podTest{
		{"env of every source", `
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: {one: "1", TWO: "2"}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {three: "3", FOUR: "4"}
---
` + box("busybox env", `
envFrom: [{configMapRef: {name: m}, prefix: M_}, {secretRef: {name: s}}]
env:
- {name: PLAIN, value: plain}
- {name: BUILT, value: "$(PLAIN)-$(ONE)-$$(PLAIN)-$(NOBODY)"}
- {name: ONE, valueFrom: {configMapKeyRef: {name: m, key: one}}}
- {name: THREE, valueFrom: {secretKeyRef: {name: s, key: three}}}
- {name: MAYBE, valueFrom: {secretKeyRef: {name: none, key: x, optional: true}}}
- {name: AFTER, value: "$(ONE)"}
- {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: SPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
- {name: MEM, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
resources: {limits: {cpu: 300m, memory: 64Mi}, requests: {memory: 32Mi}}`, "restartPolicy: Never"),
			prints("M_one=1\n", "M_TWO=2\n", "\nFOUR=4\n", "\nthree=3\n", "PLAIN=plain\n", "BUILT=plain-$(ONE)-$(PLAIN)-$(NOBODY)\n", "\nTHREE=3\n", "AFTER=1\n", "POD=p\n",
				"SPACE=NS\n", "LABEL=p\n", "IP=10.244.", "NODE=t-shared", "ACCOUNT=default\n", "CPU=300\n", "MEM=32\n", "HOSTNAME=p\n", "KUBERNETES_SERVICE_HOST=10.96.0.1\n")},
		{"resources reach the cgroups", box(
			`cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null; true`,
			"resources: {limits: {cpu: 250m, memory: 64Mi}}", "restartPolicy: Never"), prints("67108864\n", "25000")},
		{"runAsUser and groups", box("busybox id", "", "restartPolicy: Never\nsecurityContext: {runAsUser: 1234, runAsGroup: 99, supplementalGroups: [7]}"),
			prints("uid=1234 gid=99", "7")},
		{"a read-only root", box("echo x >/x || echo refused", "securityContext: {readOnlyRootFilesystem: true}", "restartPolicy: Never"), prints("refused")},
		{"capabilities", box("busybox grep CapEff /proc/self/status; busybox chown 5 /tmp || echo refused", "securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}", "restartPolicy: Never"),
			prints("CapEff:\t0000000000000400", "refused")},
		{"seccomp is on unless it is turned off", box("busybox grep Seccomp: /proc/self/status; busybox unshare -U true || echo refused", "", "restartPolicy: Never"), prints("Seccomp:\t2", "refused")},
		{"seccomp turned off", box("busybox grep Seccomp: /proc/self/status", "securityContext: {seccompProfile: {type: Unconfined}}", "restartPolicy: Never"), prints("Seccomp:\t0")},
		{"privileged", box("busybox mount -t tmpfs none /tmp && echo mounted", "securityContext: {privileged: true}", "restartPolicy: Never"), prints("mounted")},
		{"no new privileges", box("busybox grep NoNewPrivs /proc/self/status", "securityContext: {allowPrivilegeEscalation: false}", "restartPolicy: Never"), prints("NoNewPrivs:\t1")},
		{"runAsNonRoot refuses root", box("true", "", "restartPolicy: Never\nsecurityContext: {runAsNonRoot: true}"),
			says("status.containerStatuses.0.state.waiting.reason", "CreateContainerConfigError")},
		{"a shared process namespace", box("sleep 1; busybox ps | busybox grep -c '[s]erver'", "",
			"restartPolicy: Never\nshareProcessNamespace: true\ninitContainers: [{name: other, image: test/web:v1, restartPolicy: Always}]"), prints("1")},
		{"a name of its own", box("busybox hostname; busybox hostname -f", "", "restartPolicy: Never\nhostname: me\nsubdomain: sub"), prints("me\n", "me.sub.NS.svc.cluster.local\n")},
		{"further lines in /etc/hosts", box("cat /etc/hosts", "", "restartPolicy: Never\nhostAliases: [{ip: 10.1.2.3, hostnames: [a.test]}]"), prints("10.1.2.3\ta.test")},
		{"the host's network", box("busybox ip -4 -o addr show eth0", "", "restartPolicy: Never\nhostNetwork: true"), prints("inet 10.")},
		{"a host port", strings.Replace(box("x", "ports: [{containerPort: 8080, hostPort: 9191}]", ""), `[sh, -c, "x"]`, "[/bin/server]", 1), func(t *testing.T, c *Cluster, ns string) {
			p := c.ready(t, ns, "p")
			c.Apply(t, ns, strings.Replace(box("server get http://"+p.at("status.hostIP")+":9191/", "", "restartPolicy: Never"), "name: p,", "name: q,", 1))
			c.becomes(t, ns, "q", "status.phase", "Succeeded")
		}},
	})
}
