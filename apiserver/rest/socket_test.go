package rest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/apiserver/authn"
	"karve/apiserver/request"
)

// dial opens a watch as a WebSocket; the answer is there where it did not become one.
func (e *edge) dial(target string, header http.Header, subprotocols ...string) (*websocket.Conn, *http.Response) {
	e.t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.Serve(w, r, request.Parse(r), &authn.User{Name: "test"})
	}))
	e.t.Cleanup(server.Close)
	d := websocket.Dialer{Subprotocols: subprotocols}
	c, res, err := d.Dial("ws"+strings.TrimPrefix(server.URL, "http")+target, header)
	if err != nil {
		return nil, res
	}
	e.t.Cleanup(func() { c.Close() })
	return c, res
}

// message reads the next message.
func message(t *testing.T, c *websocket.Conn, kind int) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, b, err := c.ReadMessage()
	if err != nil || got != kind {
		t.Fatalf("message of kind %d: %v, want %d", got, err, kind)
	}
	return b
}

func TestSocket(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	c, res := e.dial(cms+"?watch=1", http.Header{"Origin": {"https://elsewhere.example"}}, "any.k8s.io")
	if c == nil {
		t.Fatalf("not a socket: %v", res)
	}
	if got := res.Header.Get("Sec-Websocket-Protocol"); got != "any.k8s.io" {
		t.Errorf("subprotocol %q", got)
	}
	type event struct {
		Type   string
		Object struct{ Metadata metav1.ObjectMeta }
	}
	next := func() string {
		t.Helper()
		var ev event
		b := message(t, c, websocket.TextMessage)
		if err := json.Unmarshal(b, &ev); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return ev.Type + " " + ev.Object.Metadata.Name
	}
	if got := next(); got != "ADDED a" {
		t.Error(got)
	}
	e.create("b")
	e.create("c")
	e.must(200, "DELETE", cms+"/a", "")
	for _, want := range []string{"ADDED b", "ADDED c", "DELETED a"} {
		if got := next(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	e.create("d")
	if got := next(); got != "ADDED d" {
		t.Errorf("after the client spoke: %s", got)
	}
}

func TestSocketEnds(t *testing.T) {
	e := newEdge(t)
	c, _ := e.dial(cms+"?watch=1&timeoutSeconds=1", nil)
	if c == nil {
		t.Fatal("not a socket")
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the timeout ends it with %v", err)
	}
}

func TestSocketProtobuf(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	e.create("b")
	c, res := e.dial(cms+"?watch=1", http.Header{"Accept": {proto}})
	if c == nil {
		t.Fatalf("not a socket: %v", res)
	}
	for _, want := range []string{"a", "b"} {
		b := message(t, c, websocket.BinaryMessage)
		var ev metav1.WatchEvent
		if err := ev.Unmarshal(b); err != nil || ev.Type != "ADDED" || !strings.Contains(string(ev.Object.Raw), want) {
			t.Errorf("event %q: %v", b, err)
		}
	}
}

func TestSocketRefused(t *testing.T) {
	e := newEdge(t)
	for _, c := range []struct {
		query  string
		header http.Header
		offer  []string
		code   int
		text   string
	}{
		{"?watch=1", http.Header{"Accept": {"application/yaml"}}, nil, 406, "only the following media types are accepted: application/json;stream=watch"},
		{"?watch=1&labelSelector=!!", nil, nil, 400, "requirement"},
		{"?watch=1", nil, []string{"a", "b"}, 400, "subprotocol"},
	} {
		conn, res := e.dial(cms+c.query, c.header, c.offer...)
		if conn != nil || res == nil {
			t.Errorf("%s %v became a socket", c.query, c.offer)
			continue
		}
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != c.code || !strings.Contains(string(b), c.text) {
			t.Errorf("%s: %d %s", c.query, res.StatusCode, b)
		}
	}
}

func TestListed(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	told := make(chan string, 2)
	e.Listed = func(i *request.Info, _ time.Duration) { told <- i.Resource }
	_, body, end := e.watch(cms+"?watch=1", "application/json")
	events(t, json.NewDecoder(body), 1)
	end()
	_, body, end = e.watch(cms+"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", "application/json")
	events(t, json.NewDecoder(body), 2)
	if got := <-told; got != "configmaps" {
		t.Errorf("told of %s", got)
	}
	end()
	if len(told) > 0 {
		t.Error("a watch that asked for no list is told of")
	}
}

// TestLastBookmark checks that a watch gets a bookmark shortly before its timeout ends it.
func TestLastBookmark(t *testing.T) {
	e := newEdge(t)
	_, body, end := e.watch(cms+"?watch=1&timeoutSeconds=3&allowWatchBookmarks=true", "application/json")
	defer end()
	d := json.NewDecoder(body)
	if got := events(t, d, 1); got != "BOOKMARK ConfigMap" {
		t.Errorf("the last event: %s", got)
	}
	var more any
	if err := d.Decode(&more); err != io.EOF {
		t.Errorf("then %v, %v", more, err)
	}
}
