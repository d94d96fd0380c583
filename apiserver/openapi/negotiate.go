package openapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"strconv"
	"strings"
)

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxInMemory))
}

// accepted returns the offer that an Accept header prefers, in the header's order of quality, or "".
func accepted(header string, offers []string) string {
	if header == "" {
		return offers[0]
	}
	best, quality := "", 0.0
	for _, clause := range strings.Split(header, ",") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(clause), ";")
		kind = strings.TrimSpace(kind)
		q := 1.0
		for _, p := range strings.Split(rest, ";") {
			if v, found := strings.CutPrefix(strings.TrimSpace(p), "q="); found {
				q, _ = strconv.ParseFloat(v, 64)
			}
		}
		for _, o := range offers {
			if q > quality && (kind == o || kind == "*/*" || kind == "application/*") {
				best, quality = o, q
				break
			}
		}
	}
	return best
}

func takesGzip(header string) bool {
	for _, e := range strings.Split(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
		if name == "gzip" || name == "*" {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}
