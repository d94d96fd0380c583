package main

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestCartOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cart.json")
	ask := func(method, url, token string) *httptest.ResponseRecorder {
		c := &cart{path: path, token: "t"} // a new process each time
		r := httptest.NewRequest(method, url, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		c.handler().ServeHTTP(w, r)
		return w
	}
	if w := ask("GET", "/items", "t"); w.Code != 200 || !strings.Contains(w.Body.String(), `"items":[]`) {
		t.Errorf("empty: %d %s", w.Code, w.Body)
	}
	ask("POST", "/add?item=Oar", "t")
	ask("POST", "/add?item=Tar", "t")
	if w := ask("GET", "/items", "t"); !strings.Contains(w.Body.String(), `"items":["Oar","Tar"]`) {
		t.Errorf("full: %s", w.Body)
	}
	if w := ask("POST", "/add?item=x", "wrong"); w.Code != 401 {
		t.Errorf("a stranger got %d", w.Code)
	}
}
