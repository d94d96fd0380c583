package metrics

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"karve/apiserver/admission"
	"karve/apiserver/request"
)

// answer lets a request be counted that is answered with status and size bytes.
func answer(m *Requests, r *http.Request, status, size int, stream bool) {
	t := m.Begin(httptest.NewRecorder(), r, request.Parse(r), stream)
	t.WriteHeader(status)
	_, _ = t.Write(make([]byte, size))
	t.End()
}

// total adds to labels the one that only apiserver_request_total has.
func total(labels string) string {
	return strings.Replace(labels, `,verb=`, `,system_client="",verb=`, 1)
}

func pageOf(m *Requests) string {
	p := NewPage()
	m.WriteTo(p)
	return string(p.Bytes())
}

func TestLabels(t *testing.T) {
	for _, c := range []struct {
		method, target, content string
		want                    string // the labels from component on; "" for a request that is not counted
	}{
		{"GET", "/api/v1/pods", "", `dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"`},
		{"GET", "/api/v1/pods?watch=1", "", `dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"`},
		{"GET", "/apis/apps/v1/namespaces/n/deployments", "", `dry_run="",group="apps",resource="deployments",scope="namespace",subresource="",verb="LIST",version="v1"`},
		{"HEAD", "/apis/apps/v1/namespaces/n/deployments/d", "", `dry_run="",group="apps",resource="deployments",scope="resource",subresource="",verb="GET",version="v1"`},
		{"POST", "/api/v1/namespaces/n/pods?dryRun=All", "", `dry_run="All",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"`},
		{"PATCH", "/api/v1/namespaces/n/pods/p/status?dryRun=x", "", `dry_run="invalid",group="",resource="pods",scope="resource",subresource="status",verb="PATCH",version="v1"`},
		{"PATCH", "/api/v1/namespaces/n/pods/p", "application/apply-patch+yaml", `dry_run="",group="",resource="pods",scope="resource",subresource="",verb="APPLY",version="v1"`},
		{"DELETE", "/api/v1/namespaces/n/pods", "", `dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="DELETE",version="v1"`},
		{"POST", "/api/v1/namespaces/n/pods/p/exec", "", `dry_run="",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"`},
		{"BREW", "/api/v1/namespaces/n/pods/p", "", `dry_run="",group="",resource="pods",scope="resource",subresource="",verb="other",version="v1"`},
		{"GET", "/api/v1/pods?dryRun=All", "", `dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"`},
		{"GET", "/livez", "", `dry_run="",group="",resource="",scope="",subresource="/livez",verb="GET",version=""`},
		{"GET", "/openapi/v3/apis/apps/v1", "", `dry_run="",group="",resource="",scope="",subresource="/openapi/v3/",verb="GET",version=""`},
		{"GET", "/apis", "", `dry_run="",group="",resource="",scope="",subresource="",verb="GET",version=""`},
		{"GET", "/made/up", "", ""},
		{"GET", "/apis/made/up/made/up", "", ""},
		{"GET", "/api/v1/namespaces/n/pods/p/made-up", "", ""},
	} {
		m := NewRequests()
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.content != "" {
			r.Header.Set("Content-Type", c.content)
		}
		answer(m, r, 404, 1, false)
		page := pageOf(m)
		if c.want == "" {
			if strings.Contains(page, "apiserver_request_total{") {
				t.Errorf("%s %s is counted:\n%s", c.method, c.target, page)
			}
			continue
		}
		if want := `apiserver_request_total{code="404",component="apiserver",` + total(c.want) + "} 1\n"; !strings.Contains(page, want) {
			t.Errorf("%s %s: no %s in\n%s", c.method, c.target, want, page)
		}
	}
}

func TestRequests(t *testing.T) {
	m := NewRequests()
	get := httptest.NewRequest("GET", "/api/v1/namespaces/n/configmaps/c", nil)
	answer(m, get, 200, 5000, false)
	answer(m, get, 200, 100, false)
	answer(m, get, 404, 10, false)
	old := httptest.NewRequest("GET", "/api/v1/componentstatuses", nil)
	answer(m, old, 200, 10, false)
	watch := httptest.NewRequest("GET", "/api/v1/configmaps?watch=1", nil)
	open := m.Begin(httptest.NewRecorder(), watch, request.Parse(watch), true)
	m.Listed(request.Parse(watch), 70*time.Millisecond)
	busy := m.Begin(httptest.NewRecorder(), get, request.Parse(get), false)
	page := pageOf(m)
	one := `component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"`
	size := strings.Replace(one, `dry_run="",`, "", 1)
	for _, want := range []string{
		"# HELP apiserver_request_total [STABLE] Requests answered",
		"# TYPE apiserver_request_total counter\n",
		`apiserver_request_total{code="200",` + total(one) + "} 2\n",
		`apiserver_request_total{code="404",` + total(one) + "} 1\n",
		`apiserver_request_duration_seconds_bucket{` + one + `,le="60"} 3` + "\n",
		`apiserver_request_duration_seconds_bucket{` + one + `,le="+Inf"} 3` + "\n",
		`apiserver_request_duration_seconds_count{` + one + "} 3\n",
		`apiserver_request_sli_duration_seconds_count{` + size + "} 3\n",
		`apiserver_response_sizes_bucket{` + size + `,le="1000"} 2` + "\n",
		`apiserver_response_sizes_bucket{` + size + `,le="10000"} 3` + "\n",
		`apiserver_response_sizes_bucket{` + size + `,le="1e+06"} 3` + "\n",
		`apiserver_response_sizes_sum{` + size + "} 5110\n",
		`apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="WATCH",version="v1"} 1` + "\n",
		`apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",version="v1"} 1` + "\n",
		`apiserver_current_inflight_requests{request_kind="readOnly"} 1` + "\n",
		`apiserver_current_inflight_requests{request_kind="mutating"} 0` + "\n",
		`apiserver_watch_list_duration_seconds_bucket{group="",resource="configmaps",scope="cluster",version="v1",le="0.05"} 0` + "\n",
		`apiserver_watch_list_duration_seconds_bucket{group="",resource="configmaps",scope="cluster",version="v1",le="0.1"} 1` + "\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	open.End()
	busy.End()
	if page := pageOf(m); !strings.Contains(page, `verb="WATCH",version="v1"} 0`+"\n") || !strings.Contains(page, `code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="cluster",subresource="",system_client="",verb="WATCH"`) {
		t.Errorf("the watch that ended:\n%s", page)
	}
}

// TestWaiting checks that what a request waited for is no part of its own time, which trials do not have at all.
func TestWaiting(t *testing.T) {
	m := NewRequests()
	for _, target := range []string{"/api/v1/namespaces/n/configmaps/c", "/api/v1/namespaces/n/configmaps/c?dryRun=All"} {
		r := httptest.NewRequest("PUT", target, nil)
		tr := m.Begin(httptest.NewRecorder(), r, request.Parse(r), false)
		tr.began -= time.Hour
		tr.Waiting()
		tr.waiting -= time.Hour
		tr.Waited()
		tr.End()
	}
	page := pageOf(m)
	labels := `group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1",le="60"`
	for _, want := range []string{
		`apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",` + labels + "} 0\n",
		`apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="All",` + labels + "} 0\n",
		`apiserver_request_sli_duration_seconds_bucket{component="apiserver",` + labels + "} 1\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in\n%s", want, page)
		}
	}
}

func TestPeak(t *testing.T) {
	var p peak
	p.add(10)
	p.add(10)
	p.now.Add(-2)
	for second, want := range map[int64]float64{10: 2, 11: 2, 12: 0} {
		if got := p.read(second); got != want {
			t.Errorf("in second %d: %v, want %v", second, got, want)
		}
	}
	p.add(13)
	if got := p.read(13); got != 1 {
		t.Errorf("a new second begins with %v, want 1", got)
	}
}

type plugin struct{ err error }

func (p plugin) Admit(context.Context, *admission.Attributes) error    { return p.err }
func (p plugin) Validate(context.Context, *admission.Attributes) error { return p.err }

func TestAdmission(t *testing.T) {
	m := NewAdmission()
	refuse := errors.New("no")
	chain := m.Chain(admission.Chain{{Name: "First", Mutate: plugin{}, Validate: plugin{}}, {Name: "Second", Validate: plugin{refuse}}, {Name: "Third", Mutate: plugin{}, Validate: plugin{}}})
	a := &admission.Attributes{Operation: admission.Create}
	if err := chain.Admit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := chain.Validate(t.Context(), a); !errors.Is(err, refuse) {
		t.Fatalf("refused with %v", err)
	}
	p := NewPage()
	m.WriteTo(p)
	page := string(p.Bytes())
	const prefix = "apiserver_admission_"
	for _, want := range []string{
		prefix + `step_admission_duration_seconds_count{operation="CREATE",rejected="false",type="admit"} 1`,
		prefix + `step_admission_duration_seconds_count{operation="CREATE",rejected="true",type="validate"} 1`,
		prefix + `controller_admission_duration_seconds_count{name="First",operation="CREATE",rejected="false",type="admit"} 1`,
		prefix + `controller_admission_duration_seconds_count{name="First",operation="CREATE",rejected="false",type="validate"} 1`,
		prefix + `controller_admission_duration_seconds_count{name="Second",operation="CREATE",rejected="true",type="validate"} 1`,
		prefix + `controller_admission_duration_seconds_count{name="Third",operation="CREATE",rejected="false",type="admit"} 1`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, `name="Third",operation="CREATE",rejected="false",type="validate"`) {
		t.Error("a plugin behind the one that refused is counted")
	}
}

func TestPage(t *testing.T) {
	p := NewPage()
	p.Family("a", "gauge", Alpha, "one\ntwo")
	p.Sample(1.5, "x", "a\"b\\c\nd")
	p.Family("b", "gauge", Stable, "plain")
	p.Sample(3)
	p.Registered()
	want := "# HELP a [ALPHA] one\\ntwo\n# TYPE a gauge\na{x=\"a\\\"b\\\\c\\nd\"} 1.5\n# HELP b [STABLE] plain\n# TYPE b gauge\nb 3\n"
	if got := string(p.Bytes()); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, l := range []string{"ALPHA", "BETA", "STABLE"} {
		if line := `registered_metrics_total{deprecated_version="",stability_level="` + l + `"} 1`; !strings.Contains(string(p.Bytes()), line) {
			t.Errorf("no %s in\n%s", line, p.Bytes())
		}
	}
}

func TestParseStat(t *testing.T) {
	const line = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1000 2000 3 18446744073709551615"
	s, ok := parseStat([]byte(line), 100)
	if !ok || s.cpu != 2 || s.virtual != 2000 || s.started != 110 || s.resident < 3*4096 {
		t.Errorf("%+v %v", s, ok)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 1"} {
		if _, ok := parseStat([]byte(bad), 0); ok {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	m := NewRequests()
	r := httptest.NewRequest("PATCH", "/api/v1/namespaces/n/pods/p/status", nil)
	i := request.Parse(r)
	w := httptest.NewRecorder()
	m.Begin(w, r, i, false).End()
	if n := testing.AllocsPerRun(100, func() { m.Begin(w, r, i, false).End() }); n > 0.1 {
		t.Errorf("%v allocations for each request", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	m := NewRequests()
	r := httptest.NewRequest("PATCH", "/api/v1/namespaces/n/pods/p/status", nil)
	i := request.Parse(r)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		m.Begin(w, r, i, false).End()
	}
}

func BenchmarkAdmission(b *testing.B) {
	m := NewAdmission()
	var inner admission.Chain
	for _, name := range strings.Fields("a b c d e f g h i j") {
		inner = append(inner, admission.Plugin{Name: name, Mutate: plugin{}, Validate: plugin{}})
	}
	chain := m.Chain(inner)
	a := &admission.Attributes{Operation: admission.Create}
	b.ReportAllocs()
	for b.Loop() {
		_ = chain.Admit(b.Context(), a)
		_ = chain.Validate(b.Context(), a)
	}
}
