package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sources = `
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: {one: first, two: second}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {key: hidden}
---
`

// turns waits until a line of shell in the pod prints text.
func (c *Cluster) turns(t *testing.T, ns, line, text string) {
	t.Helper()
	c.eventually(t, line, func() error {
		out, err := c.Try("exec", "-n", ns, "p", "-q", "--", "sh", "-c", line)
		if err == nil && strings.TrimSpace(out) != text {
			err = fmt.Errorf("it prints %q, not %q", out, text)
		}
		return err
	})
}

func TestVolumes(t *testing.T) {
	runPods(t, []podTest{
		{"emptyDir is shared and outlives a container", box("cat /d/x 2>/dev/null && "+"{ "+sleeps+"; }; echo mine >/d/x; exit 1", "volumeMounts: [{name: d, mountPath: /d}]", "volumes: [{name: d, emptyDir: {}}]") +
			"  - {name: other, image: test/box:v1, command: [sh, -c, \"" + sleeps + "\"], volumeMounts: [{name: d, mountPath: /e}]}\n",
			func(t *testing.T, c *Cluster, ns string) {
				c.becomes(t, ns, "p", "status.containerStatuses.0.restartCount", "1", "status.containerStatuses.0.ready", "true")
				if out := c.Kubectl(t, "exec", "-n", ns, "p", "-c", "other", "--", "busybox", "cat", "/e/x"); out != "mine\n" {
					t.Errorf("the other container sees %q", out)
				}
			}},
		{"emptyDir in memory has a size", box("busybox grep ' /d ' /proc/mounts", "volumeMounts: [{name: d, mountPath: /d}]", "restartPolicy: Never\nvolumes: [{name: d, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]"),
			prints("tmpfs", "size=4096k")},
		{"a ConfigMap is followed", sources + box(sleeps, "volumeMounts: [{name: v, mountPath: /v}]", "volumes: [{name: v, configMap: {name: m}}]"), func(t *testing.T, c *Cluster, ns string) {
			c.ready(t, ns, "p")
			c.turns(t, ns, "cat /v/one", "first")
			c.Kubectl(t, "patch", "configmap", "m", "-n", ns, "-p", `{"data":{"one":"third","two":null,"new":"x"}}`)
			c.turns(t, ns, "cat /v/one /v/new; busybox ls /v", "thirdxnew\none")
		}},
		{"a Secret is followed and its mode kept", sources + box(sleeps, "volumeMounts: [{name: v, mountPath: /v}]", "volumes: [{name: v, secret: {secretName: s, defaultMode: 0400, items: [{key: key, path: sub/k}]}}]"),
			func(t *testing.T, c *Cluster, ns string) {
				c.ready(t, ns, "p")
				c.turns(t, ns, "cat /v/sub/k; busybox stat -L -c ' %a' /v/sub/k; busybox grep -c ' /v tmpfs' /proc/mounts", "hidden 400\n1")
				c.Kubectl(t, "patch", "secret", "s", "-n", ns, "-p", `{"stringData":{"key":"changed"}}`)
				c.turns(t, ns, "cat /v/sub/k", "changed")
			}},
		{"projected and downward", sources + box(sleeps, `volumeMounts: [{name: v, mountPath: /v}]
resources: {limits: {memory: 64Mi}}`, `volumes:
- name: v
  projected:
    sources:
    - configMap: {name: m, items: [{key: one, path: m/one}]}
    - secret: {name: s}
    - serviceAccountToken: {path: token, expirationSeconds: 600, audience: somebody}
    - downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: mem, resourceFieldRef: {containerName: main, resource: limits.memory}}]}`),
			func(t *testing.T, c *Cluster, ns string) {
				c.ready(t, ns, "p")
				c.turns(t, ns, "cat /v/m/one /v/key /v/note /v/labels /v/mem; test -s /v/token && echo token", "firsthiddenfirstapp=\"p\"67108864token")
				c.Kubectl(t, "annotate", "pod", "p", "-n", ns, "note=later", "--overwrite")
				c.turns(t, ns, "cat /v/note", "later")
			}},
		{"an optional ConfigMap", box("busybox ls /v; echo there", "volumeMounts: [{name: v, mountPath: /v}]", "restartPolicy: Never\nvolumes: [{name: v, configMap: {name: none, optional: true}}]"), prints("there")},
		{"a volume whose ConfigMap comes late", box("cat /v/x", "volumeMounts: [{name: v, mountPath: /v}]", "restartPolicy: Never\nvolumes: [{name: v, configMap: {name: late}}]"), func(t *testing.T, c *Cluster, ns string) {
			c.eventually(t, "a FailedMount event", func() error {
				out, err := c.Try("get", "events", "-n", ns, "-o", "jsonpath={.items[*].reason}")
				if err == nil && !strings.Contains(out, "FailedMount") {
					err = fmt.Errorf("events are %s", out)
				}
				return err
			})
			c.Kubectl(t, "create", "configmap", "late", "-n", ns, "--from-literal=x=come")
			prints("come")(t, c, ns)
		}},
		{"hostPath", box("echo kept >/h/x", "volumeMounts: [{name: h, mountPath: /h}]", "restartPolicy: Never\nvolumes: [{name: h, hostPath: {path: HOST, type: DirectoryOrCreate}}]"), func(t *testing.T, c *Cluster, ns string) {
			says("status.phase", "Succeeded")(t, c, ns)
			if b, err := os.ReadFile(filepath.Join(hostDir(ns), "x")); err != nil || string(b) != "kept\n" {
				t.Errorf("the machine has %q, %v", b, err)
			}
		}},
		{"subPath", sources + box("cat /etc/one; echo in >/d/f; busybox ls /all", "volumeMounts: [{name: v, mountPath: /etc/one, subPath: one}, {name: d, mountPath: /d, subPath: a/b}, {name: d, mountPath: /all}]",
			"restartPolicy: Never\nvolumes: [{name: v, configMap: {name: m}}, {name: d, emptyDir: {}}]"), prints("first", "a\n")},
		{"a read-only mount", box("echo x >/d/x || echo refused", "volumeMounts: [{name: d, mountPath: /d, readOnly: true}]", "restartPolicy: Never\nvolumes: [{name: d, emptyDir: {}}]"), prints("refused")},
		{"fsGroup owns the files", sources + box("busybox id -G; busybox stat -c '%g' /d; busybox stat -L -c '%g %a' /v/key; echo x >/d/x && echo wrote", "volumeMounts: [{name: d, mountPath: /d}, {name: v, mountPath: /v}]",
			"restartPolicy: Never\nsecurityContext: {runAsUser: 1000, fsGroup: 4321}\nvolumes: [{name: d, emptyDir: {}}, {name: v, secret: {secretName: s, defaultMode: 0400}}]"),
			prints("4321\n4321\n4321 440\nwrote")},
		{"the service account's token works", box("test -s /var/run/secrets/kubernetes.io/serviceaccount/token && test -s /var/run/secrets/kubernetes.io/serviceaccount/ca.crt && cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "", "restartPolicy: Never"), prints("NS")},
		{"no token where none is wanted", box("test ! -e /var/run/secrets && echo none", "", "restartPolicy: Never\nautomountServiceAccountToken: false"), prints("none")},
	})
}
