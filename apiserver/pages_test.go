package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMetricsPage(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", cms, configMap("a"))
	r.must(http.StatusNotFound, nil, "GET", cms+"/b", "")
	r.must(http.StatusOK, nil, "GET", cms, "")
	r.must(http.StatusForbidden, nil, "GET", cms, "", "Impersonate-User: nobody")
	r.must(http.StatusNotFound, nil, "GET", "/made-up", "")
	r.frames(cms+"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", 2)
	page := ""
	for range 200 { // a watch is counted as begun a moment after its client has the first events
		page = string(r.must(http.StatusOK, nil, "GET", "/metrics", "").body)
		if strings.Contains(page, "\napiserver_watch_list_duration_seconds_count") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",system_client="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",system_client="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="403",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",system_client="",verb="LIST",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 2`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 2`,
		`apiserver_watch_list_duration_seconds_count{group="",resource="configmaps",scope="namespace",version="v1"} 1`,
		`apiserver_storage_objects{resource="configmaps"} 1`,
		`apiserver_storage_objects{resource="deployments.apps"} 0`,
		`apiserver_resource_objects{group="apps",resource="deployments"} 0`,
		`apiserver_storage_events_received_total{group="",resource="configmaps"} 1`,
		`apiserver_current_inflight_requests{request_kind="readOnly"} 1`,
		`apiserver_flowcontrol_nominal_limit_seats{priority_level="exempt"}`,
		`kubernetes_build_info{build_date="`,
		`apiserver_admission_controller_admission_duration_seconds_bucket{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit",le="0.005"}`,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, "made-up") {
		t.Error("a client made up a series")
	}
	checkExposition(t, page)
}

// checkExposition checks that a page has every sample below the head of its family, each family once, and no sample twice.
func checkExposition(t *testing.T, page string) {
	t.Helper()
	families, samples := map[string]bool{}, map[string]bool{}
	family, kind := "", ""
	for i, line := range strings.Split(strings.TrimSuffix(page, "\n"), "\n") {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "# HELP "):
			if family = fields[2]; families[family] {
				t.Errorf("line %d: %s comes twice", i+1, family)
			}
			families[family] = true
		case strings.HasPrefix(line, "# TYPE "):
			if kind = fields[3]; fields[2] != family {
				t.Errorf("line %d: the type of %s follows the help of %s", i+1, fields[2], family)
			}
		default:
			end := strings.LastIndexByte(line, ' ')
			if end < 0 || samples[line[:end]] {
				t.Errorf("line %d: %q is no sample or comes twice", i+1, line)
				continue
			}
			samples[line[:end]] = true
			name, _, _ := strings.Cut(line[:end], "{")
			if kind == "histogram" {
				for _, s := range []string{"_bucket", "_sum", "_count"} {
					name = strings.TrimSuffix(name, s)
				}
			}
			if name != family {
				t.Errorf("line %d: a sample of %s in %s", i+1, name, family)
			}
		}
	}
}

func TestHealthPages(t *testing.T) {
	r := start(t)
	for path, want := range map[string]string{
		"/livez":              "ok",
		"/healthz/etcd":       "ok",
		"/livez?exclude=etcd": "ok",
		"/readyz/poststarthook/rbac/bootstrap-roles": "ok",
	} {
		if got := string(r.must(http.StatusOK, nil, "GET", path, "").body); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	live, ready := string(r.must(200, nil, "GET", "/livez?verbose", "").body), string(r.must(200, nil, "GET", "/readyz?verbose", "").body)
	for _, only := range []string{"[+]informer-sync ok", "[+]shutdown ok", "[+]etcd-readiness ok"} {
		if strings.Contains(live, only) || !strings.Contains(ready, only) {
			t.Errorf("%s belongs to readyz alone:\n%s\n%s", only, live, ready)
		}
	}
	if b := string(r.must(200, nil, "GET", "/metrics/slis", "").body); !strings.Contains(b, `kubernetes_healthcheck{name="shutdown",type="readyz"} 1`) {
		t.Errorf("no result of what was asked:\n%s", b)
	}
}

func TestDebugPages(t *testing.T) {
	r := start(t)
	for _, path := range []string{"/statusz", "/flagz"} {
		kind := strings.ToUpper(path[1:2]) + path[2:]
		as := ";g=config.k8s.io;as=" + kind + ";v="
		for _, c := range []struct {
			accept, content, begin, warning string
			code                            int
		}{
			{"", "text/plain; charset=utf-8", "\napiserver " + path[1:] + "\nWarning: ", "", 200},
			{"*/*", "text/plain; charset=utf-8", "\napiserver ", "", 200},
			{"application/json" + as + "v1beta1", "application/json", `{"kind":"` + kind + `","apiVersion":"config.k8s.io/v1beta1","metadata":{"name":"apiserver"}`, "", 200},
			{"application/yaml" + as + "v1alpha1", "application/yaml", "apiVersion: config.k8s.io/v1alpha1", "deprecated", 200},
			{"application/json", "application/json", `{"kind":"Status"`, "", 406},
		} {
			headers := []string{"User-Agent: test"}
			if c.accept != "" {
				headers = append(headers, "Accept: "+c.accept)
			}
			a := r.do("GET", path, "", headers...)
			if a.StatusCode != c.code || a.Header.Get("Content-Type") != c.content || !strings.HasPrefix(string(a.body), c.begin) || !strings.Contains(a.Header.Get("Warning"), c.warning) {
				t.Errorf("%s as %q: %d %v %s", path, c.accept, a.StatusCode, a.Header, a.body)
			}
		}
	}
	var page struct{ Paths []string }
	b := r.do("GET", "/statusz", "", "Accept: application/json;g=config.k8s.io;v=v1beta1;as=Statusz").body
	if err := json.Unmarshal(b, &page); err != nil || !strings.Contains(strings.Join(page.Paths, " ")+" ", "/metrics ") || strings.Contains(string(b), "/apis") {
		t.Errorf("%v: %s", err, b)
	}
	for _, path := range []string{"/statusz", "/flagz", "/metrics", "/debug/pprof/"} {
		r.must(http.StatusOK, nil, "GET", path, "")
		r.must(http.StatusForbidden, nil, "GET", path, "", "Impersonate-User: nobody")
	}
}

// TestEveryListedPath checks that what the server lists at its root is there.
func TestEveryListedPath(t *testing.T) {
	r := start(t)
	var list struct{ Paths []string }
	r.must(http.StatusOK, &list, "GET", "/", "")
	for _, p := range list.Paths {
		if p == "/openapi/v3/" {
			continue // what is below it is listed by /openapi/v3
		}
		if a := r.do("GET", p, ""); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", p, a.StatusCode, a.body)
		}
	}
	req := r.request(t.Context(), "GET", "/metrics", "", "Accept-Encoding: gzip")
	res, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(string(b), "\x1f\x8b") {
		t.Errorf("not compressed: %v", res.Header)
	}
}

// TestHeaders checks what every answer says besides its body.
func TestHeaders(t *testing.T) {
	r := start(t)
	for path, cache := range map[string]string{
		"/version": "no-cache, private", "/livez": "no-cache, private", cms: "no-cache, private", cms + "/nope": "no-cache, private", "/nope": "no-cache, private",
		"/openapi/v3": "no-cache, private", "/openid/v1/jwks": "public, max-age=3600",
	} {
		a := r.do("GET", path, "")
		if got := a.Header.Get("Cache-Control"); got != cache || a.Header.Get("Audit-Id") == "" {
			t.Errorf("%s: Cache-Control %q, Audit-Id %q", path, got, a.Header.Get("Audit-Id"))
		}
		if got := r.do("GET", path, "", "Audit-Id: mine").Header.Values("Audit-Id"); len(got) != 1 || got[0] != "mine" {
			t.Errorf("%s: its own Audit-Id comes back as %q", path, got)
		}
	}
	a := r.do("GET", "/apis", "", "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	if got := a.Header.Get("Cache-Control"); got != "public" {
		t.Errorf("discovery: Cache-Control %q", got)
	}
}

// TestWatchOverSocket checks that a watch over a WebSocket passes all that is around the resources, and is counted.
func TestWatchOverSocket(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", cms, configMap("a"))
	d := websocket.Dialer{TLSClientConfig: r.http.Transport.(*http.Transport).TLSClientConfig.Clone()}
	d.TLSClientConfig.NextProtos = nil
	c, res, err := d.Dial("wss"+strings.TrimPrefix(r.url, "https")+cms+"?watch=1", nil)
	if err != nil {
		t.Fatalf("%v: %v", err, res)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, name := range []string{"a", "b"} {
		var e struct {
			Type   string
			Object struct{ Metadata metav1.ObjectMeta }
		}
		if err := c.ReadJSON(&e); err != nil || e.Type != "ADDED" || e.Object.Metadata.Name != name {
			t.Fatalf("%+v %v, want %s", e, err, name)
		}
		if name == "a" {
			r.must(http.StatusCreated, nil, "POST", cms, configMap("b"))
		}
	}
	const labels = `component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} `
	if page := string(r.must(http.StatusOK, nil, "GET", "/metrics", "").body); !strings.Contains(page, "apiserver_longrunning_requests{"+labels+"1\n") {
		t.Error("the open watch is not counted")
	}
	c.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		page := string(r.must(http.StatusOK, nil, "GET", "/metrics", "").body)
		if strings.Contains(page, "apiserver_longrunning_requests{"+labels+"0\n") && strings.Contains(page, `apiserver_request_total{code="101",component="apiserver",dry_run="",group="",resource="configmaps"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the watch that its client closed is still counted as open")
		}
	}
}
