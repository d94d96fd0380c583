package image

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox":                        "docker.io/library/busybox:latest",
		"busybox:1":                      "docker.io/library/busybox:1",
		"library/busybox":                "docker.io/library/busybox:latest",
		"docker.io/busybox":              "docker.io/library/busybox:latest",
		"index.docker.io/library/b:2":    "docker.io/library/b:2",
		"me/app":                         "docker.io/me/app:latest",
		"localhost/app":                  "localhost/app:latest",
		"localhost:5000/app":             "localhost:5000/app:latest",
		"127.0.0.1:5000/a/b:v1":          "127.0.0.1:5000/a/b:v1",
		"registry.k8s.io/pause:3.10":     "registry.k8s.io/pause:3.10",
		"[::1]:5000/x":                   "[::1]:5000/x:latest",
		"busybox@" + d:                   "docker.io/library/busybox@" + d,
		"busybox:1@" + d:                 "docker.io/library/busybox@" + d,
		"":                               "",
		"UPPER":                          "",
		"a b":                            "",
		"busybox:":                       "",
		"busybox@sha256:12":              "",
		"../etc":                         "",
		"x/../y":                         "",
		strings.Repeat("a", 64):          "",
		"registry.k8s.io/" + "-bad":      "",
		"http://registry.k8s.io/pause:3": "",
	} {
		r, err := Parse(in)
		got := ""
		if err == nil {
			got = r.String()
		}
		if got != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}
