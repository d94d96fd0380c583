package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"karve/store/storetest"
)

const configMaps = "/api/v1/namespaces/default/configmaps"

// TestKillServer kills `karve apiserver` under load, again and again: whatever was answered with success over HTTP is
// there, no resourceVersion stands for two writes, and watches are taken up without a gap, or are told to begin anew.
func TestKillServer(t *testing.T) {
	program(t)
	seed := storetest.Seed(t)
	rounds := 5
	if storetest.Long() {
		rounds = 60
	}
	r := rand.New(rand.NewPCG(seed, 7))
	c := &serverCrashes{server: newServer(t, filepath.Join(t.TempDir(), "data")), state: map[string]written{}, versions: map[uint64]string{},
		replica: map[string]string{}}
	c.begin()
	c.ready()
	c.relist()
	for range rounds {
		c.round(r)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d rounds: %d writes acknowledged and there, %d had no answer, %d events seen, %d watches resumed, %d told to read anew",
		rounds, c.count.Load(), c.doubtful, c.events, c.resumed, c.anew)
	if c.count.Load() < int64(20*rounds) || c.events == 0 {
		t.Errorf("%d writes, %d events: nothing was tried", c.count.Load(), c.events)
	}
}

// written is what the only writer of a ConfigMap knows of it: the tag ("" for none) and version that were acknowledged, and the tag
// of a write that has no answer.
type written struct {
	tag, version string
	asked        bool
	unanswered   string
}

type serverCrashes struct {
	*server
	mu       sync.Mutex
	state    map[string]written
	versions map[uint64]string // of acknowledged and watched writes: name and tag
	highest  uint64            // the greatest version anybody was told

	replica map[string]string // what the watcher knows: name and tag
	at      string            // and up to where

	count, counter   atomic.Int64
	doubtful, events int
	resumed, anew    int
}

func (c *serverCrashes) round(r *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var writers, watcher sync.WaitGroup
	client := c.http
	watcher.Go(func() { c.watch(ctx, client) })
	goal := c.count.Load() + int64(20+r.IntN(300))
	for w := range crashWriters {
		rnd := rand.New(rand.NewPCG(r.Uint64(), 9))
		writers.Go(func() { c.write(ctx, client, w, rnd) })
	}
	for c.count.Load() < goal && !c.Failed() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
	c.end(syscall.SIGKILL)
	writers.Wait()
	watcher.Wait() // its connection is gone
	c.begin()
	c.ready()
	c.judge()
}

// write writes ConfigMaps of its own until the connection breaks.
func (c *serverCrashes) write(ctx context.Context, client *http.Client, w int, r *rand.Rand) {
	for {
		name := fmt.Sprintf("c-%d-%d", w, r.IntN(5))
		c.mu.Lock()
		was := c.state[name]
		c.mu.Unlock()
		o := &object{Data: map[string]string{"tag": fmt.Sprint(c.counter.Add(1))}}
		o.Metadata.Name, o.Metadata.ResourceVersion = name, was.version
		method, path := http.MethodPut, configMaps+"/"+name
		switch {
		case was.tag == "":
			method, path = http.MethodPost, configMaps
		case r.IntN(6) == 0:
			method, o = http.MethodDelete, nil
		}
		next := written{asked: true, tag: was.tag, version: was.version}
		if o != nil {
			next.unanswered = o.Data["tag"]
		}
		c.mu.Lock()
		c.state[name] = next
		c.mu.Unlock()
		got, code, err := c.send(ctx, client, method, path, o)
		if err != nil {
			return
		}
		if code >= 300 {
			c.Errorf("%s %s: %d %s", method, path, code, got.Message)
			return
		}
		c.mu.Lock()
		done := written{}
		if o != nil {
			done = written{tag: o.Data["tag"], version: got.Metadata.ResourceVersion}
			c.note(done.version, name+" "+done.tag)
		}
		c.state[name] = done
		c.mu.Unlock()
		c.count.Add(1)
	}
}

// note checks that a version stands for one write. c.mu is held.
func (c *serverCrashes) note(version, text string) {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		c.Errorf("resourceVersion %q", version)
	}
	if was, ok := c.versions[n]; ok && was != text {
		c.Errorf("resourceVersion %d was %s, and is %s", n, was, text)
	}
	c.versions[n] = text
	c.highest = max(c.highest, n)
}

// watch keeps the replica until the connection breaks.
func (c *serverCrashes) watch(ctx context.Context, client *http.Client) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.listen+configMaps+"?watch=1&resourceVersion="+c.at, nil)
	if err != nil {
		c.Error(err)
		return
	}
	res, err := client.Do(req)
	if err != nil {
		return // killed before the watch began
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		c.Errorf("watch after %s: %s", c.at, res.Status)
		return
	}
	d := json.NewDecoder(res.Body)
	for {
		var e struct {
			Type   string
			Object object
		}
		if err := d.Decode(&e); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF) {
				c.Errorf("watch: %v", err)
			}
			return
		}
		if e.Type == "ERROR" {
			c.Errorf("watch after %s: %d %s", c.at, e.Object.Code, e.Object.Message)
			return
		}
		c.apply(e.Type, &e.Object)
	}
}

func (c *serverCrashes) apply(kind string, o *object) {
	before, _ := strconv.ParseUint(c.at, 10, 64)
	now, _ := strconv.ParseUint(o.Metadata.ResourceVersion, 10, 64)
	if now <= before {
		c.Errorf("an event of %d follows that of %d", now, before)
	}
	c.at = o.Metadata.ResourceVersion
	c.events++
	c.mu.Lock()
	defer c.mu.Unlock()
	c.highest = max(c.highest, now)
	if kind == "DELETED" {
		delete(c.replica, o.Metadata.Name)
		return
	}
	c.note(c.at, o.Metadata.Name+" "+o.Data["tag"])
	c.replica[o.Metadata.Name] = o.Data["tag"]
}

func (c *serverCrashes) list() object {
	l, code, err := c.send(context.Background(), c.http, http.MethodGet, configMaps, nil)
	if err != nil || code != http.StatusOK {
		c.Fatalf("list: %d %v", code, err)
	}
	return l
}

func (c *serverCrashes) relist() object {
	l := c.list()
	clear(c.replica)
	for _, o := range l.Items {
		c.replica[o.Metadata.Name] = o.Data["tag"]
	}
	c.at = l.Metadata.ResourceVersion
	return l
}

// judge compares what is there after the crash with what was acknowledged.
func (c *serverCrashes) judge() {
	l := c.list()
	version, _ := strconv.ParseUint(l.Metadata.ResourceVersion, 10, 64)
	if version < c.highest {
		c.Errorf("the list is at %d, but %d was told before", version, c.highest)
	}
	there := map[string]object{}
	for _, o := range l.Items {
		there[o.Metadata.Name] = o
		c.note(o.Metadata.ResourceVersion, o.Metadata.Name+" "+o.Data["tag"])
	}
	for name, was := range c.state {
		got := there[name]
		tag := got.Data["tag"]
		switch {
		case was.asked:
			c.doubtful++
			if tag != was.tag && tag != was.unanswered {
				c.Errorf("%s is %q; acknowledged was %q, without an answer was %q", name, tag, was.tag, was.unanswered)
			}
		case tag != was.tag || tag != "" && got.Metadata.ResourceVersion != was.version:
			c.Errorf("%s is %q at %s; acknowledged was %q at %s", name, tag, got.Metadata.ResourceVersion, was.tag, was.version)
		}
		c.state[name] = written{tag: tag, version: got.Metadata.ResourceVersion}
	}
	c.resume(l)
}

// resume takes the watch up where it ended. If the server lets it, it must come to what the list holds.
func (c *serverCrashes) resume(l object) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := fmt.Sprintf("%s?watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=%s", configMaps, c.at)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.listen+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	expired := res.StatusCode == http.StatusGone
	for d := json.NewDecoder(res.Body); !expired; {
		var e struct {
			Type   string
			Object object
		}
		if d.Decode(&e) != nil {
			break
		}
		switch {
		case e.Type == "ERROR" && e.Object.Code == http.StatusGone:
			expired = true
		case e.Type == "BOOKMARK":
		case e.Type == "ERROR":
			c.Errorf("watch after %s: %d %s", c.at, e.Object.Code, e.Object.Message)
		default:
			c.apply(e.Type, &e.Object)
		}
	}
	if expired {
		c.anew++
		c.relist()
		return
	}
	c.resumed++
	for _, o := range l.Items {
		if c.replica[o.Metadata.Name] != o.Data["tag"] {
			c.Errorf("a watch that was taken up has %s at %q, the list at %q", o.Metadata.Name, c.replica[o.Metadata.Name], o.Data["tag"])
		}
	}
	if len(c.replica) != len(l.Items) {
		c.Errorf("a watch that was taken up has %d objects, the list %d", len(c.replica), len(l.Items))
	}
}
