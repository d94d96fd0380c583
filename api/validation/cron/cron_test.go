package cron

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for s, want := range map[string]string{
		"*/5 * * * *": "", "0 0 1 JAN mon-fri": "", "@hourly": "", "@every 1h": "",
		"* * * *": "expected exactly 5 fields, found 4", "60 * * * *": "above maximum", "@sometimes": "unrecognized descriptor", "*/0 * * * *": "positive number", "5-1 * * * *": "beyond end",
	} {
		err := Check(s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%q) = %v, want %q", s, err, want)
		}
	}
}
