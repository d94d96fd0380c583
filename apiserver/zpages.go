package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/apiserver/request"
	"karve/apiserver/rest"
)

// The pages for people who debug a server: /statusz and /flagz, as text or as an object of config.k8s.io.

// zpageVersions are the versions that the pages are offered in as objects; the first is what others are to move to.
var zpageVersions = []string{"v1beta1", "v1alpha1"}

type zpageMeta struct {
	metav1.TypeMeta
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

type statusz struct {
	zpageMeta
	StartTime        metav1.Time `json:"startTime"`
	UptimeSeconds    int64       `json:"uptimeSeconds"`
	GoVersion        string      `json:"goVersion"`
	BinaryVersion    string      `json:"binaryVersion"`
	EmulationVersion string      `json:"emulationVersion,omitempty"`
	Paths            []string    `json:"paths"`
}

type flagz struct {
	zpageMeta
	Flags map[string]string `json:"flags,omitempty"`
}

const zpageHead = "\napiserver %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

func (s *Server) serveStatusz(w http.ResponseWriter, r *http.Request) {
	up := time.Since(s.started)
	page := statusz{StartTime: metav1.NewTime(s.started), UptimeSeconds: int64(up.Seconds()), GoVersion: runtime.Version(), BinaryVersion: "1.36",
		EmulationVersion: "1.36", Paths: debugPaths(s.paths())}
	text := func() string {
		seconds := page.UptimeSeconds
		return fmt.Sprintf("\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\nEmulation version: %s\nPaths: %s\n",
			s.started.Format(time.UnixDate), seconds/3600, seconds/60%60, seconds%60, page.GoVersion, page.BinaryVersion, page.EmulationVersion, strings.Join(page.Paths, " "))
	}
	servePage(w, r, "Statusz", &page.zpageMeta, &page, text)
}

// debugPaths are the first parts of paths, but for those that are the API itself.
func debugPaths(paths []string) []string {
	var out []string
	for _, p := range paths {
		first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		switch first {
		case "", "api", "apis", "openid", "openapi", ".well-known":
			continue
		}
		if p := "/" + first; !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Server) serveFlagz(w http.ResponseWriter, r *http.Request) {
	o := &s.opts
	page := flagz{Flags: map[string]string{"advertise": o.Advertise.String(), "anonymous-auth": strconv.FormatBool(o.Anonymous), "listen": o.Listen,
		"service-cidr": o.ServiceCIDR.String(), "service-node-port-range": fmt.Sprintf("%d-%d", o.NodePorts[0], o.NodePorts[1]), "seats": strconv.Itoa(o.Seats)}}
	text := func() string {
		var b strings.Builder
		for _, name := range []string{"advertise", "anonymous-auth", "listen", "seats", "service-cidr", "service-node-port-range"} {
			fmt.Fprintf(&b, "%s=%s\n", name, page.Flags[name])
		}
		return b.String()
	}
	servePage(w, r, "Flagz", &page.zpageMeta, &page, text)
}

// servePage answers with a page in the form that is asked for; meta is part of page.
func servePage(w http.ResponseWriter, r *http.Request, kind string, meta *zpageMeta, page any, text func() string) {
	acc, ok := request.Kind(r, "config.k8s.io", kind, zpageVersions...)
	switch {
	case ok:
	case request.Text(r):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, zpageHead, strings.ToLower(kind))
		_, _ = w.Write([]byte(text()))
		return
	default:
		rest.WriteError(w, r, notAcceptablePage())
		return
	}
	if acc.AsVersion != zpageVersions[0] {
		w.Header().Set("Warning", fmt.Sprintf("299 - %q", "This version of the "+strings.ToLower(kind)+" endpoint is deprecated. Please use a newer version."))
	}
	meta.Kind, meta.APIVersion, meta.Metadata.Name = kind, "config.k8s.io/"+acc.AsVersion, "apiserver"
	b, err := json.Marshal(page)
	if err != nil {
		rest.WriteError(w, r, apierrors.NewInternalError(err))
		return
	}
	rest.WriteJSON(w, r, acc, b)
}

func notAcceptablePage() error {
	e := apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", metav1.SchemeGroupVersion.WithResource("").GroupResource(), "", "", 0, false)
	e.ErrStatus.Reason, e.ErrStatus.Details = metav1.StatusReasonNotAcceptable, nil
	e.ErrStatus.Message = "only the following media types are accepted: application/json, application/yaml, text/plain"
	return e
}
