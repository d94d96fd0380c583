package health

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"karve/apiserver/metrics"
)

func TestServe(t *testing.T) {
	ready := false
	h := New(slog.New(slog.DiscardHandler), Check{"ping", All, OK}, Check{"etcd", All, OK},
		Check{"poststarthook/start", Readyz, Until(func() bool { return ready }, "not started")})
	ask := func(target string) (int, string) {
		w := httptest.NewRecorder()
		if !h.Serve(w, httptest.NewRequest("GET", target, nil)) {
			return 0, ""
		}
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		target string
		ready  bool
		code   int
		body   string
	}{
		{"/livez", false, 200, "ok"},
		{"/healthz/", false, 200, "ok"},
		{"/livez?verbose", false, 200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n"},
		{"/readyz", false, 500, "[+]ping ok\n[+]etcd ok\n[-]poststarthook/start failed: reason withheld\nreadyz check failed\n"},
		{"/readyz?exclude=poststarthook/start", false, 200, "ok"},
		{"/readyz?exclude=poststarthook/start&exclude=x&exclude=a&verbose", false, 200,
			"[+]ping ok\n[+]etcd ok\n[+]poststarthook/start excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"x\"\nreadyz check passed\n"},
		{"/readyz/poststarthook/start", false, 500, "internal server error: not started\n"},
		{"/readyz/poststarthook/start", true, 200, "ok"},
		{"/readyz", true, 200, "ok"},
		{"/livez/poststarthook/start", true, 404, "404 page not found\n"},
		{"/livez/nope", true, 404, "404 page not found\n"},
		{"/version", true, 0, ""},
	} {
		ready = c.ready
		if code, body := ask(c.target); code != c.code || body != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.target, code, body, c.code, c.body)
		}
	}
	for _, p := range h.Paths() {
		if code, _ := ask(p); code != 200 {
			t.Errorf("%s is listed and answers %d", p, code)
		}
	}
}

func TestMetrics(t *testing.T) {
	err := errors.New("no")
	h := New(slog.New(slog.DiscardHandler), Check{"ping", All, OK}, Check{"disk", Livez, func() error { return err }})
	for range 2 {
		h.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/livez", nil))
	}
	err = nil
	h.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/livez", nil))
	p := metrics.NewPage()
	h.WriteTo(p)
	for _, want := range []string{
		`kubernetes_healthcheck{name="disk",type="livez"} 1`,
		`kubernetes_healthchecks_total{name="disk",status="error",type="livez"} 2`,
		`kubernetes_healthchecks_total{name="disk",status="success",type="livez"} 1`,
		`kubernetes_healthchecks_total{name="ping",status="success",type="livez"} 3`,
	} {
		if !strings.Contains(string(p.Bytes()), want+"\n") {
			t.Errorf("no %s in\n%s", want, p.Bytes())
		}
	}
	if strings.Contains(string(p.Bytes()), `type="readyz"`) {
		t.Error("a probe that nobody asked is counted")
	}
}
