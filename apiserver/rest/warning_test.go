package rest

import (
	"net/http"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	var w warned
	h := http.Header{}
	for _, text := range []string{`unknown field "a\b"`, "two\nlines", "", "two\nlines", "grüße"} {
		w.add(h, text)
	}
	want := []string{`299 - "unknown field \"a\\b\""`, `299 - "two lines"`, `299 - "grüße"`}
	if got := h.Values("Warning"); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestManyWarnings(t *testing.T) {
	var w warned
	h := http.Header{}
	long := func(i int) string { return strings.Repeat(string(rune('a'+i)), 1500) }
	w.add(h, long(0))
	w.add(h, long(1))
	if got := h.Values("Warning"); len(got) != 2 || len(got[0]) < 1500 {
		t.Errorf("two long ones: %d", len(got))
	}
	for i := 2; i < 26; i++ {
		w.add(h, long(i))
	}
	total := 0
	for i, got := range h.Values("Warning") {
		if n := len(got); n != len(`299 - ""`)+shortWarning {
			t.Errorf("warning %d is %d long", i, n)
		}
		total += shortWarning
	}
	if total != warningRunes {
		t.Errorf("%d runes, want %d", total, warningRunes)
	}
}
