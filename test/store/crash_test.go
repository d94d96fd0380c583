package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"karve/store"
	"karve/store/engine/pebble"
	"karve/store/storetest"
)

const (
	crashWriters  = 6
	keysPerWriter = 8
	crashWatchers = 2
)

// TestKill kills a process that writes to a store from many goroutines and watches it, again and again in one data
// directory: no acknowledged write is lost, no revision is given out twice, and watchers go on without a gap or are told.
func TestKill(t *testing.T) {
	seed := storetest.Seed(t)
	rounds := 20
	if storetest.Long() {
		rounds = 200
	}
	r := rand.New(rand.NewPCG(seed, 0))
	c := &crashes{T: t, dir: t.TempDir(), history: map[uint64]string{}, acked: map[string]lastWrite{}, seen: make([]uint64, crashWatchers)}
	for round := range rounds {
		c.round(round, r)
		if t.Failed() {
			t.Fatalf("round %d of %d", round, rounds)
		}
	}
	t.Logf("%d rounds: %d writes acknowledged and there, %d more had no answer (%d of them happened), %d events seen, %d resumed watches, %d told to read anew",
		rounds, c.count, c.doubtful, c.happened, c.events, c.resumed, c.anew)
	if c.count < 100*rounds/20 {
		t.Errorf("only %d writes were acknowledged: nothing was tried", c.count)
	}
}

// lastWrite is the newest acknowledged write of a key; tag is "-" for a deletion.
type lastWrite struct {
	revision uint64
	tag      string
}

// crashes is what is known of the directory over all rounds.
type crashes struct {
	*testing.T
	dir     string
	history map[uint64]string // revision: key and tag
	acked   map[string]lastWrite
	seen    []uint64 // the last revision each watcher saw
	last    uint64   // revision of the store after the last crash

	count, doubtful, happened, events, resumed, anew int
}

func (c *crashes) round(round int, r *rand.Rand) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$", "-test.count=1")
	from := make([]string, len(c.seen))
	for i := range from {
		from[i] = fmt.Sprint(c.seen[i])
	}
	cmd.Env = append(os.Environ(), "STORE_CHILD_DIR="+c.dir, fmt.Sprintf("STORE_CHILD_ROUND=%d", round),
		fmt.Sprintf("STORE_CHILD_SEED=%d", r.Uint64()), "STORE_CHILD_FROM="+strings.Join(from, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	// Most are killed while they write, some while they still open what the last one left.
	after, wait := 1+r.IntN(400), time.Duration(r.IntN(3000))*time.Microsecond
	if r.IntN(8) == 0 {
		after, wait = 0, time.Duration(r.IntN(40))*time.Millisecond
	}
	var once sync.Once
	kill := func() { once.Do(func() { time.AfterFunc(wait, func() { _ = cmd.Process.Kill() }) }) }
	if after == 0 {
		kill()
	}
	tried := map[string]string{}
	acks := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 {
			c.Errorf("the process says %q", lines.Text())
			continue
		}
		revision, _ := strconv.ParseUint(f[1], 10, 64)
		switch f[0] {
		case "try": // try 0 key tag
			tried[f[2]] = f[3]
		case "ack": // ack revision key tag
			delete(tried, f[2])
			c.note(revision, f[2], f[3])
			if revision <= c.last {
				c.Errorf("revision %d was given out, though %d was there before", revision, c.last)
			}
			c.acked[f[2]] = lastWrite{revision, f[3]}
			c.count++
			if acks++; acks == after {
				kill()
			}
		case "see": // see revision key tag watcher
			w, _ := strconv.Atoi(f[4])
			c.note(revision, f[2], f[3])
			if revision != c.seen[w]+1 {
				c.Errorf("watcher %d saw revision %d after %d", w, revision, c.seen[w])
			}
			c.seen[w] = revision
			c.events++
		case "resume": // resume revision - - watcher
			if revision != c.last {
				c.Errorf("a watch after %d was taken up, though the process began at %d", revision, c.last)
			}
			c.resumed++
		case "anew": // anew revision - - watcher
			w, _ := strconv.Atoi(f[4])
			c.seen[w] = revision
			c.anew++
		default:
			c.Errorf("the process says %q", lines.Text())
		}
	}
	kill()
	_ = cmd.Wait()
	c.check(tried)
}

// note checks that a revision stands for one write only.
func (c *crashes) note(revision uint64, key, tag string) {
	text := key + " " + tag
	if was, ok := c.history[revision]; ok && was != text {
		c.Errorf("revision %d was %s, and is %s", revision, was, text)
	}
	c.history[revision] = text
}

// check opens what the process left.
func (c *crashes) check(tried map[string]string) {
	s := openDir(c.T, c.dir)
	defer s.Close()
	now := s.Revision()
	if now < c.last {
		c.Errorf("the revision went back from %d to %d", c.last, now)
	}
	c.last = now
	for w, seen := range c.seen {
		if seen > now {
			c.Errorf("watcher %d was shown revision %d, but the store ends at %d", w, seen, now)
		}
	}
	for revision := range c.history {
		if revision > now {
			c.Errorf("revision %d was acknowledged or shown, but the store ends at %d", revision, now)
		}
	}
	for w := range crashWriters {
		for k := range keysPerWriter {
			key := fmt.Sprintf("k/%d-%d", w, k)
			got := lastWrite{0, "-"}
			if r := s.Get(key); r != nil {
				tag, _, _ := strings.Cut(string(r.Value), " ")
				got = lastWrite{r.Revision, tag}
				if string(r.Value) != value(tag) {
					c.Errorf("%s is not whole", key)
				}
			}
			want, ok := c.acked[key]
			if !ok {
				want.tag = "-"
			}
			unanswered, doubtful := tried[key]
			if doubtful {
				c.doubtful++
			}
			switch {
			case got.tag == want.tag && (got.tag == "-" || got.revision == want.revision):
			case doubtful && got.tag == unanswered:
				c.happened++
				if got.tag != "-" {
					c.note(got.revision, key, got.tag)
				}
				c.acked[key] = got
			default:
				c.Errorf("%s is %s at %d; acknowledged was %s at %d, without an answer was %q", key, got.tag, got.revision,
					want.tag, want.revision, unanswered)
			}
		}
	}
}

func openDir(t testing.TB, dir string) *store.Store {
	t.Helper()
	e, err := pebble.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(context.Background(), store.Options{Engine: e, Topic: func(key string) string {
		topic, _, _ := strings.Cut(key, "/")
		return topic
	}})
	if err != nil {
		e.Close()
		t.Fatal(err)
	}
	return s
}

// value is what a tag stands for: some bytes or many.
func value(tag string) string {
	n := 0
	for _, b := range []byte(tag) {
		n = n*31 + int(b)
	}
	size := n % 600
	if n%9 == 0 {
		size = n % 30_000
	}
	return tag + " " + strings.Repeat("v", size)
}

// TestKillChild is the process that TestKill kills.
func TestKillChild(t *testing.T) {
	dir := os.Getenv("STORE_CHILD_DIR")
	if dir == "" {
		t.Skip("only run by TestKill")
	}
	seed, _ := strconv.ParseUint(os.Getenv("STORE_CHILD_SEED"), 10, 64)
	s := openDir(t, dir)
	var wg sync.WaitGroup
	for w, from := range strings.Split(os.Getenv("STORE_CHILD_FROM"), ",") {
		after, _ := strconv.ParseUint(from, 10, 64)
		wg.Go(func() { childWatch(t, s, w, after) })
	}
	for w := range crashWriters {
		r := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() { childWrite(t, s, w, r) })
	}
	wg.Wait()
}

// say writes a line at once: what was said is known even if the next instruction is never reached.
func say(format string, args ...any) { _, _ = os.Stdout.Write(fmt.Appendf(nil, format+"\n", args...)) }

func childWatch(t *testing.T, s *store.Store, w int, after uint64) {
	c, err := s.Watch("k", after)
	switch {
	case errors.Is(err, store.ErrExpired):
		after = s.Revision()
		if c, err = s.Watch("k", after); err != nil {
			t.Error(err)
			return
		}
		say("anew %d - - %d", after, w)
	case err != nil:
		t.Error(err)
		return
	default:
		say("resume %d - - %d", after, w)
	}
	for {
		events, _, err := c.Next(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range events {
			tag, _, _ := strings.Cut(string(e.Record.Value), " ")
			if e.Deleted {
				tag = "-"
			}
			say("see %d %s %s %d", e.Record.Revision, e.Record.Key, tag, w)
		}
	}
}

func childWrite(t *testing.T, s *store.Store, w int, r *rand.Rand) {
	for n := 0; ; n++ {
		key := fmt.Sprintf("k/%d-%d", w, r.IntN(keysPerWriter))
		write := store.Write{Key: key}
		if now := s.Get(key); now != nil {
			write.Expect = now.Revision
		}
		tag := fmt.Sprintf("%s.%d.%d", os.Getenv("STORE_CHILD_ROUND"), w, n)
		if write.Expect != 0 && r.IntN(6) == 0 {
			tag = "-"
		} else {
			write.Value = []byte(value(tag))
		}
		say("try 0 %s %s", key, tag)
		record, err := s.Commit(context.Background(), write)
		if err != nil {
			t.Errorf("commit: %v", err)
			return
		}
		say("ack %d %s %s", record.Revision, key, tag)
	}
}
