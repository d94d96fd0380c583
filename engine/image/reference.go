package image

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Reference is an image name in full: every spelling of the same image gives the same Reference.
type Reference struct {
	Repository string // with the registry, as in docker.io/library/busybox
	Tag        string // "" when only a digest was given
	Digest     string // "" when none was given
}

var (
	repoPattern   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	hostPattern   = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?$`)
	tagPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hexPattern    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Parse completes a name as people write it: without a registry it is Docker Hub's, there a single word is in library/,
// and without tag and digest the tag is latest.
func Parse(s string) (Reference, error) {
	var r Reference
	rest := s
	if name, d, ok := strings.Cut(rest, "@"); ok {
		if !digestPattern.MatchString(d) {
			return r, fmt.Errorf("parse image reference %q: bad digest", s)
		}
		rest, r.Digest = name, d
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		r.Tag = rest[i+1:]
		rest = rest[:i]
		if !tagPattern.MatchString(r.Tag) {
			return r, fmt.Errorf("parse image reference %q: bad tag", s)
		}
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok || (!strings.ContainsAny(host, ".:") && host != "localhost" && strings.ToLower(host) == host) {
		host, path = "docker.io", rest
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		if path == "" || hexPattern.MatchString(path) {
			return r, fmt.Errorf("parse image reference %q: not a name", s)
		}
		path = "library/" + path
	}
	if !hostPattern.MatchString(host) || !repoPattern.MatchString(path) || len(path) > 255 {
		return r, fmt.Errorf("parse image reference %q: invalid reference format", s)
	}
	r.Repository = host + "/" + path
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// String is the full name. A digest wins over a tag, because it decides which image is meant.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Repository + "@" + r.Digest
	}
	return r.Repository + ":" + r.Tag
}

// parseID recognises an image's own identifier, with or without the algorithm.
func parseID(s string) (string, error) {
	h := strings.TrimPrefix(s, "sha256:")
	if !hexPattern.MatchString(h) {
		return "", errors.New("not an image id")
	}
	return "sha256:" + h, nil
}
