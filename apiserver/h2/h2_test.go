package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// start serves h over HTTP/2 and returns its address and a client that trusts it.
func start(t testing.TB, h http.Handler) (*httptest.Server, *Server) {
	t.Helper()
	ts := httptest.NewUnstartedServer(h)
	ts.EnableHTTP2 = true
	ts.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	ts.Config.IdleTimeout = time.Minute
	s := Attach(ts.Config, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ts.StartTLS()
	t.Cleanup(ts.Close)
	return ts, s
}

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

func TestAnswers(t *testing.T) {
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/small":
			w.Header().Set("X-Thing", "a")
			w.Header().Add("X-Thing", "b")
			w.Header().Set("Connection", "close") // means nothing here
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL.RawQuery, r.Header.Get("X-Ask"))
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/nothing":
		case "/large":
			for range 100 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 30_000))
			}
		case "/echo":
			w.Header().Set("Content-Type", "text/x")
			_, _ = io.Copy(w, r.Body)
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	c := ts.Client()
	r, body := get(t, c, ts.URL+"/small?a=b")
	if r.ProtoMajor != 2 || r.StatusCode != 200 || r.ContentLength != int64(len(body)) || strings.Join(r.Header["X-Thing"], " ") != "a b" ||
		r.Header.Get("Date") == "" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || r.Header.Get("Connection") != "" {
		t.Errorf("%v %v %q", r, r.Header, body)
	}
	if want := "GET " + strings.TrimPrefix(ts.URL, "https://") + " a=b "; body != want {
		t.Errorf("%q, want %q", body, want)
	}
	if r, body := get(t, c, ts.URL+"/none"); r.StatusCode != 204 || body != "" {
		t.Errorf("%v %q", r.Status, body)
	}
	if r, body := get(t, c, ts.URL+"/nothing"); r.StatusCode != 200 || body != "" || r.ContentLength != 0 {
		t.Errorf("%v %q %d", r.Status, body, r.ContentLength)
	}
	if _, body := get(t, c, ts.URL+"/large"); len(body) != 3_000_000 {
		t.Errorf("%d bytes", len(body))
	}
	r, err := c.Head(ts.URL + "/small")
	if err != nil || r.ContentLength <= 0 {
		t.Errorf("HEAD: %v, %v", r, err)
	}
	for _, size := range []int{0, 1, 100, 5000, 3 << 20} {
		for _, known := range []bool{true, false} {
			var in io.Reader = bytes.NewReader(bytes.Repeat([]byte("y"), size))
			if !known {
				in = io.MultiReader(in)
			}
			r, err := c.Post(ts.URL+"/echo", "text/x", in)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if err != nil || len(b) != size || r.Header.Get("Content-Type") != "text/x" {
				t.Errorf("echo of %d: %d, %v", size, len(b), err)
			}
		}
	}
	if r, err := c.Get(ts.URL + "/panic"); err == nil {
		t.Errorf("a handler that aborts is answered %v", r.Status)
	}
	r, err = c.Post(ts.URL+"/early", "text/x", bytes.NewReader(make([]byte, 8<<20)))
	if err != nil || r.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("an answer before the body: %v, %v", r, err)
	}
	if r, body := get(t, c, ts.URL+"/small"); r.StatusCode != 200 || body == "" {
		t.Errorf("the connection is not usable any more: %v", r.Status)
	}
}

func TestManyAtOnce(t *testing.T) {
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			want := strings.Repeat(fmt.Sprint(i), i%700)
			r, err := ts.Client().Post(ts.URL, "text/x", strings.NewReader(want))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != want {
				t.Errorf("request %d: %d bytes, %v", i, len(b), err)
			}
		}()
	}
	wg.Wait()
}

func TestStreamsAndCancels(t *testing.T) {
	ended := make(chan struct{}, 10)
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := 0; ; i++ {
			if _, err := fmt.Fprintln(w, i); err != nil {
				break
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				break
			}
			select {
			case <-r.Context().Done():
				ended <- struct{}{}
				return
			case <-time.After(time.Millisecond):
			}
		}
		ended <- struct{}{}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", ts.URL, nil)
	r, err := ts.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 2)
	if _, err := io.ReadFull(r.Body, line); err != nil || string(line) != "0\n" {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	<-ended
}

// TestASlowReaderHoldsUpNobodyElse has one stream of a connection, and one connection, that nobody reads.
func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	var wrote atomic.Int64
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ok" {
			_, _ = io.WriteString(w, "ok")
			return
		}
		block := make([]byte, 1<<16)
		for {
			n, err := w.Write(block)
			wrote.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	c := ts.Client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		req, _ := http.NewRequestWithContext(ctx, "GET", ts.URL+"/flood", nil)
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
	}
	for range 20 {
		if r, body := get(t, c, ts.URL+"/ok"); r.StatusCode != 200 || body != "ok" {
			t.Fatal(r.Status, body)
		}
	}
	// The client's windows bound what is sent to it: 4 MiB a stream, and what the server keeps.
	if n := wrote.Load(); n > 20<<20 {
		t.Errorf("%d bytes were taken for a client that reads nothing", n)
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(in)
		<-out
		_, _ = io.WriteString(w, "done")
	}))
	got := make(chan string, 1)
	go func() {
		r, err := ts.Client().Get(ts.URL)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	}()
	<-in
	down := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { down <- ts.Config.Shutdown(ctx) }()
	time.Sleep(20 * time.Millisecond)
	close(out)
	if s := <-got; s != "done" {
		t.Errorf("the request that was under way got %q", s)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// raw is a client that may break every rule.
type raw struct {
	t  *testing.T
	nc *tls.Conn
	fr *http2.Framer
}

func dial(t *testing.T, ts *httptest.Server, preface string) *raw {
	t.Helper()
	nc, err := tls.Dial("tcp", ts.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(nc, preface); err != nil {
		t.Fatal(err)
	}
	return &raw{t, nc, http2.NewFramer(nc, nc)}
}

func (r *raw) open(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

var good = []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "x"}

// until reads frames until one ends the stream or the connection and says how.
func (r *raw) until() string {
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				return "nothing for 20 s"
			}
			return "closed"
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return "goaway " + f.ErrCode.String()
		case *http2.RSTStreamFrame:
			return "reset " + f.ErrCode.String()
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return "answer"
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return "answer"
			}
		}
	}
}

func TestBrokenClients(t *testing.T) {
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Early") == "" {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		_, _ = io.WriteString(w, "x")
	}))
	with := func(more ...string) []string { return append(append([]string{}, good...), more...) }
	for _, c := range []struct {
		name string
		do   func(r *raw)
		want string
	}{
		{"as it should be", func(r *raw) { r.open(1, true, good...) }, "answer"},
		{"no settings first", func(r *raw) { _ = r.fr.WritePing(false, [8]byte{}) }, "goaway PROTOCOL_ERROR"},
		{"an even stream", func(r *raw) { r.open(2, true, good...) }, "goaway PROTOCOL_ERROR"},
		{"a stream again", func(r *raw) { r.open(3, true, good...); r.until(); r.open(1, true, good...) }, "goaway STREAM_CLOSED"},
		{"no path", func(r *raw) { r.open(1, true, ":method", "GET", ":scheme", "https") }, "reset PROTOCOL_ERROR"},
		{"a connection header", func(r *raw) { r.open(1, true, with("connection", "close")...) }, "reset PROTOCOL_ERROR"},
		{"an upper case header", func(r *raw) { r.open(1, true, with("Accept", "x")...) }, "reset PROTOCOL_ERROR"},
		{"a line break in a header", func(r *raw) { r.open(1, true, with("accept", "x\ny")...) }, "reset PROTOCOL_ERROR"},
		{"CONNECT", func(r *raw) { r.open(1, true, ":method", "CONNECT", ":authority", "x") }, "reset PROTOCOL_ERROR"},
		{"less than declared", func(r *raw) {
			r.open(1, false, with("content-length", "10")...)
			_ = r.fr.WriteData(1, true, []byte("x"))
		}, "reset PROTOCOL_ERROR"},
		{"more than declared", func(r *raw) {
			r.open(1, false, with("content-length", "1")...)
			_ = r.fr.WriteData(1, false, []byte("xyz"))
		}, "reset PROTOCOL_ERROR"},
		{"data after the end", func(r *raw) {
			r.open(1, true, good...)
			r.until()
			_ = r.fr.WriteData(1, true, []byte("x"))
		}, "reset STREAM_CLOSED"},
		{"data after our end", func(r *raw) {
			r.open(1, false, with("early", "1")...)
			if got := r.until(); got != "answer" {
				r.t.Errorf("got %s", got)
			}
			_ = r.fr.WriteData(1, false, []byte("x"))
			r.open(3, true, good...)
			if got := r.until(); got != "reset NO_ERROR" { // which was on its way
				r.t.Errorf("got %s", got)
			}
		}, "answer"},
		{"data of no stream", func(r *raw) { _ = r.fr.WriteData(5, true, []byte("x")) }, "goaway PROTOCOL_ERROR"},
		{"reset of no stream", func(r *raw) { _ = r.fr.WriteRSTStream(5, http2.ErrCodeCancel) }, "goaway PROTOCOL_ERROR"},
		{"a window too large", func(r *raw) { _ = r.fr.WriteWindowUpdate(0, 1<<31-1) }, "goaway FLOW_CONTROL_ERROR"},
		{"a frame too large", func(r *raw) { r.open(1, false, good...); _ = r.fr.WriteData(1, true, make([]byte, 20_000)) }, "goaway FRAME_SIZE_ERROR"},
		{"a push", func(r *raw) {
			_ = r.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, "goaway PROTOCOL_ERROR"},
		{"a bad setting", func(r *raw) { _ = r.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, "goaway PROTOCOL_ERROR"},
		{"trailers", func(r *raw) {
			r.open(1, false, good...)
			_ = r.fr.WriteData(1, false, []byte("x"))
			r.open(1, true, "x-sum", "1")
		}, "answer"},
		{"a flood of pings", func(r *raw) {
			for range 1_000_000 {
				if r.fr.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
			r.t.Error("the server took a million pings of a client that reads no answer")
		}, "closed"},
		{"a flood of resets", func(r *raw) {
			for i := range uint32(200_000) {
				r.open(2*i+1, false, good...)
				if r.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
					return
				}
			}
			_ = r.fr.WritePing(false, [8]byte{})
		}, "any"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dial(t, ts, http2.ClientPreface)
			if c.name != "no settings first" {
				_ = r.fr.WriteSettings()
			}
			if c.want == "closed" { // does not read what it asks for
				c.do(r)
				return
			}
			c.do(r)
			if c.want == "any" {
				return
			}
			if got := r.until(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if r, _ := get(t, ts.Client(), ts.URL); r.StatusCode != 200 {
		t.Errorf("after all that: %v", r.Status)
	}
	r := dial(t, ts, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := r.until(); got != "closed" {
		t.Errorf("HTTP/1.1 where HTTP/2 was agreed on: %s", got)
	}
}

func TestContinue(t *testing.T) {
	ts, _ := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	c := ts.Client()
	c.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	req, _ := http.NewRequest("POST", ts.URL, strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != "body" {
		t.Errorf("%q, %v", b, err)
	}
}

// BenchmarkGet compares a small answer through this package and through net/http.
func BenchmarkGet(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 1500)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		_, _ = w.Write(answer)
	})
	for _, which := range []string{"h2", "net"} {
		b.Run(which, func(b *testing.B) {
			ts := httptest.NewUnstartedServer(h)
			ts.EnableHTTP2 = true
			if which == "h2" {
				ts.TLS = &tls.Config{NextProtos: []string{"h2"}}
				Attach(ts.Config, slog.New(slog.DiscardHandler))
			}
			ts.StartTLS()
			defer ts.Close()
			c := ts.Client()
			get(b, c, ts.URL)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					get(b, c, ts.URL)
				}
			})
		})
	}
}
