package rest

import (
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// warningRunes is how much text the warnings of one answer may have before each is cut to shortWarning.
	warningRunes = 4 << 10
	shortWarning = 256
)

// warned are the warnings of one answer.
type warned struct {
	texts []string
	runes int
	short bool
}

// add puts a warning that is new into the header. Clients bound headers, so that many or long ones are cut.
func (w *warned) add(h http.Header, text string) {
	if text == "" || slices.Contains(w.texts, text) || w.short && w.runes >= warningRunes {
		return
	}
	w.texts = append(w.texts, text)
	if w.short {
		w.write(h, text)
		return
	}
	if n := utf8.RuneCountInString(text); w.runes+n <= warningRunes {
		w.write(h, text)
		return
	}
	w.short, w.runes = true, 0
	h.Del("Warning")
	for _, text := range w.texts {
		w.write(h, text)
	}
}

func (w *warned) write(h http.Header, text string) {
	if w.short && utf8.RuneCountInString(text) > shortWarning {
		text = string([]rune(text)[:shortWarning])
	}
	w.runes += utf8.RuneCountInString(text)
	h.Add("Warning", `299 - "`+quotedWarning(text)+`"`)
}

// quotedWarning is text as it may stand between quotes in a header.
func quotedWarning(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsControl(r):
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
