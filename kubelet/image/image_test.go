package image

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/critest"
)

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		key, target string
		want        bool
	}{
		{"registry.io", "registry.io/a/b", true}, {"https://registry.io/v1/", "registry.io/a", true}, {"*.registry.io", "x.registry.io/a", true}, {"*.registry.io", "x.y.registry.io/a", false},
		{"registry.io/a", "registry.io/a/b", true}, {"registry.io/a", "registry.io/ab", false}, {"https://index.docker.io/v1/", "docker.io/library/busybox", true},
		{"registry.io:5000", "registry.io:5000/a", true}, {"registry.io", "registry.io:5000/a", false}, {"evil.io", "registry.io/a", false},
	} {
		if got := Matches(tc.key, tc.target); got != tc.want {
			t.Errorf("%s %s: %v", tc.key, tc.target, got)
		}
	}
}

func TestPullTriesEachCredential(t *testing.T) {
	rt := critest.New()
	var tried []string
	rt.OnPull = func(_ string, a *runtimeapi.AuthConfig) error {
		tried = append(tried, a.GetUsername())
		if a.GetUsername() != "good" {
			return errors.New("denied")
		}
		return nil
	}
	secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"r.io":{"auth":"Z29vZDpwdw=="},"r.io/team":{"username":"bad","password":"x"},"other.io":{"username":"never"}}}`)}}
	var events []string
	img, fail := New(rt, slog.New(slog.DiscardHandler), 1).Ensure(context.Background(), &Request{Image: "r.io/team/app", Policy: corev1.PullIfNotPresent, Secrets: []*corev1.Secret{secret},
		Emit: func(_, reason, _ string) { events = append(events, reason) }})
	if fail != nil || img.Id != "sha256:r.io/team/app:latest" || strings.Join(tried, " ") != "bad good" || strings.Join(events, " ") != "Pulling Pulled" {
		t.Errorf("%v %v %v %v", img, fail, tried, events)
	}
}

func TestCollectSparesWhatIsUsed(t *testing.T) {
	rt := critest.New()
	for _, n := range []string{"used", "free1", "free2"} {
		rt.AddImage(n)
	}
	freed, err := New(rt, slog.New(slog.DiscardHandler), 1).Collect(context.Background(), func(i *runtimeapi.Image) bool { return i.Id == "sha256:used" }, 1500)
	if err != nil || freed != 2000 || rt.Count("remove-image used") != 0 {
		t.Errorf("%d %v %v", freed, err, rt.Calls())
	}
}
