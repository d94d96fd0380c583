package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestEveryAnswerIsCounted(t *testing.T) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1, 2:
			w.Header().Set("X-Shop-Version", "v1")
		case 3:
			w.Header().Set("X-Shop-Version", "v2")
		case 4:
			w.WriteHeader(502)
		}
	}))
	l := newLoad(s.URL)
	for range 5 { // the fifth has no version
		l.one(t.Context())
	}
	s.Close()
	l.one(t.Context())
	got := l.totals()
	if got.Requests != 6 || got.Failed != 3 || got.Versions["v1"] != 2 || got.Versions["v2"] != 1 || got.LastError == "" {
		t.Errorf("got %+v", got)
	}
	if s := line(stats{Requests: 1, Versions: map[string]int{"v1": 1}}, got); !strings.HasPrefix(s, "requests 5, failed 3, v1 1, v2 1, last error: ") {
		t.Errorf("got %q", s)
	}
}

func TestRunAsksUntilStopped(t *testing.T) {
	asked := make(chan struct{}, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Shop-Version", "v1")
		asked <- struct{}{}
	}))
	defer s.Close()
	l := newLoad(s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.run(ctx, time.Millisecond); close(done) }()
	for range 5 {
		<-asked
	}
	cancel()
	<-done
	if got := l.totals(); got.Failed != 0 {
		t.Errorf("got %+v", got)
	}
}
