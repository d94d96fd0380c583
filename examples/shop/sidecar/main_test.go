package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSidecar(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banner")
	if err := write(path, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
	w := httptest.NewRecorder()
	handler("Ahoy").ServeHTTP(w, httptest.NewRequest("GET", "/greeting", nil))
	if !strings.Contains(w.Body.String(), `"greeting":"Ahoy"`) {
		t.Errorf("got %s", w.Body)
	}
}
