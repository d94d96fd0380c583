package serve

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

func get(url string) (int, string, error) {
	r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// A request under way when the program is told to stop, and one that arrives after, are both answered.
func TestStopLosesNothing(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s := &Server{Addr: "127.0.0.1:0", Drain: 300 * time.Millisecond, Finish: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-release
		}
		io.WriteString(w, "done")
	})}
	ctx, cancel := context.WithCancel(t.Context())
	addr, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(a string) { addr <- a }) }()
	url := "http://" + <-addr
	if code, _, err := get(url + "/readyz"); code != 200 {
		t.Errorf("ready: %d, %v", code, err)
	}
	type answer struct {
		body string
		err  error
	}
	slow := make(chan answer, 1)
	go func() { _, b, err := get(url + "/slow"); slow <- answer{b, err} }()
	<-started
	cancel()
	for { // until the news has arrived
		code, _, err := get(url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if code == http.StatusServiceUnavailable {
			break
		}
	}
	if code, body, err := get(url + "/late"); code != 200 || body != "done" {
		t.Errorf("late request: %d %q %v", code, body, err)
	}
	close(release)
	if a := <-slow; a.body != "done" {
		t.Errorf("slow request: %q %v", a.body, a.err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := get(url + "/late"); err == nil {
		t.Error("it still answers")
	}
}
