package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestItemsFollowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "items")
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		handler(path).ServeHTTP(w, httptest.NewRequest("GET", "/items", nil))
		return w
	}
	if w := ask(); w.Code != 500 {
		t.Errorf("no file: %d", w.Code)
	}
	for text, want := range map[string]string{"a\n\n b \n": `"items":["a","b"]`, "": `"items":[]`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if w := ask(); !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q: %s", text, w.Body)
		}
	}
}
