package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func front(t *testing.T, cart http.HandlerFunc) *httptest.Server {
	t.Helper()
	say := func(text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	c := httptest.NewServer(cart)
	t.Cleanup(c.Close)
	w := &web{catalog: say(`{"pod":"catalog-1","items":["Oar","<b>"]}`), cart: c.URL, greeter: say(`{"greeting":"Ahoy"}`),
		shared: t.TempDir(), token: "secret", client: &http.Client{Timeout: 5 * time.Second}}
	if err := os.WriteFile(filepath.Join(w.shared, "banner"), []byte("open\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w.handler())
	t.Cleanup(s.Close)
	return s
}

func TestPage(t *testing.T) {
	s := front(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(401)
			return
		}
		w.Write([]byte(`{"pod":"cart-1","items":["Tar"]}`))
	})
	r, err := http.Get(s.URL + "/page")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var p page
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Catalog != "catalog-1" || p.Cart != "cart-1" || p.Greeting != "Ahoy" || p.Banner != "open" || p.InCart[0] != "Tar" || p.Web == "" {
		t.Errorf("got %+v", p)
	}
	if r.Header.Get("X-Shop-Version") != version || p.Version != version {
		t.Errorf("version %q, %q", r.Header.Get("X-Shop-Version"), p.Version)
	}
	rec := httptest.NewRecorder()
	s.Config.Handler.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if body := rec.Body.String(); !strings.Contains(body, "Shop "+version) || !strings.Contains(body, "cart-1") || strings.Contains(body, "<b>") {
		t.Errorf("got %s", body)
	}
}

func TestPageFailsWhenAPartFails(t *testing.T) {
	s := front(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	r, err := http.Get(s.URL + "/page")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusBadGateway || r.Header.Get("X-Shop-Version") != "" {
		t.Errorf("got %s", r.Status)
	}
}
