package image

import (
	"encoding/base64"
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Credentials returns the credentials of the secrets that are meant for the registry of image, the most specific first.
// A secret that cannot be read is passed over.
func Credentials(image string, secrets []*corev1.Secret) []*runtimeapi.AuthConfig {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil
	}
	target := ref.Context().RegistryStr() + "/" + ref.Context().RepositoryStr()
	if strings.HasPrefix(target, "index.docker.io/") {
		target = "docker.io/" + strings.TrimPrefix(target, "index.docker.io/")
	}
	type match struct {
		key  string
		auth *runtimeapi.AuthConfig
	}
	var found []match
	for _, s := range secrets {
		for key, e := range entries(s) {
			if Matches(key, target) {
				found = append(found, match{key, e.auth(key)})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int {
		if n := len(b.key) - len(a.key); n != 0 {
			return n
		}
		return strings.Compare(a.key, b.key)
	})
	out := make([]*runtimeapi.AuthConfig, len(found))
	for i, m := range found {
		out[i] = m.auth
	}
	return out
}

func entries(s *corev1.Secret) map[string]entry {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file) == nil {
			return file.Auths
		}
	case corev1.SecretTypeDockercfg:
		var file map[string]entry
		if json.Unmarshal(s.Data[corev1.DockerConfigKey], &file) == nil {
			return file
		}
	}
	return nil
}

func (e entry) auth(server string) *runtimeapi.AuthConfig {
	out := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken, ServerAddress: server}
	if out.Username == "" && e.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
			out.Username, out.Password, _ = strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		}
	}
	return out
}

// Matches reports whether a registry key of a credentials file covers target (registry/repository): hosts part by part,
// each with *, and the path as a prefix of whole elements.
func Matches(key, target string) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(key, "/"), "/v1"), "/v2")
	host, prefix, _ := strings.Cut(key, "/")
	if host == "index.docker.io" {
		host = "docker.io"
	}
	thost, tpath, _ := strings.Cut(target, "/")
	a, b := strings.Split(host, "."), strings.Split(thost, ".")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if ok, err := path.Match(a[i], b[i]); err != nil || !ok {
			return false
		}
	}
	return prefix == "" || tpath == prefix || strings.HasPrefix(tpath, prefix+"/")
}
