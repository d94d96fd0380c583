package fairness

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"karve/apiserver/authn"
	"karve/apiserver/request"
	"karve/client"
)

// nowhere is a transport that must not be used.
type nowhere struct{}

func (nowhere) Do(context.Context, *client.Request) (runtime.Object, error) {
	return nil, errors.New("no server")
}

func (nowhere) Watch(context.Context, *client.Request) (watch.Interface, error) {
	return nil, errors.New("no server")
}

func alone(t testing.TB, seats int, change func(*Options)) *Fairness {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	o := Options{Caches: client.NewCaches(nowhere{}, log), Write: nowhere{}, Seats: seats, Patience: time.Minute, Log: log}
	if change != nil {
		change(&o)
	}
	return New(o)
}

var (
	admin = &authn.User{Name: "admin", Groups: []string{"system:masters", "system:authenticated"}}
	node  = &authn.User{Name: "system:node:a", Groups: []string{"system:nodes", "system:authenticated"}}
	jane  = &authn.User{Name: "jane", Groups: []string{"system:authenticated"}}
	bot   = &authn.User{Name: "system:serviceaccount:shop:bot", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	kube  = &authn.User{Name: "system:serviceaccount:kube-system:dns", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
)

func ask(method, url string) (*http.Request, *request.Info) {
	r := httptest.NewRequest(method, url, nil)
	return r, request.Parse(r)
}

func admit(t testing.TB, f *Fairness, u *authn.User, method, url string) *Ticket {
	t.Helper()
	r, i := ask(method, url)
	ticket, err := f.Admit(httptest.NewRecorder(), r, i, u)
	if err != nil {
		t.Fatalf("%s %s by %s: %v", method, url, u.Name, err)
	}
	return ticket
}

func TestDefaultsClassify(t *testing.T) {
	f := alone(t, 600, nil)
	user := func(name string) *authn.User {
		return &authn.User{Name: name, Groups: []string{"system:authenticated"}}
	}
	tests := []struct {
		user          *authn.User
		method, url   string
		schema, level string
	}{
		{admin, "GET", "/api/v1/pods", "exempt", "exempt"},
		{jane, "GET", "/livez", "probes", "exempt"},
		{jane, "GET", "/livez/ping", "global-default", "global-default"},
		{node, "GET", "/readyz", "probes", "exempt"},
		{node, "PATCH", "/api/v1/nodes/a/status", "system-node-high", "node-high"},
		{node, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a", "system-node-high", "node-high"},
		{node, "GET", "/api/v1/pods", "system-nodes", "system"},
		{kube, "PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x", "system-leader-election", "leader-election"},
		{kube, "PUT", "/api/v1/namespaces/kube-system/configmaps/x", "workload-leader-election", "leader-election"},
		{kube, "DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x", "kube-system-service-accounts", "workload-high"},
		{user("system:kube-controller-manager"), "PUT", "/api/v1/namespaces/a/endpoints/x", "endpoint-controller", "workload-high"},
		{user("system:kube-controller-manager"), "GET", "/api/v1/pods", "kube-controller-manager", "workload-high"},
		{user("system:kube-scheduler"), "GET", "/api/v1/pods", "kube-scheduler", "workload-high"},
		{bot, "GET", "/api/v1/pods", "service-accounts", "workload-low"},
		{jane, "GET", "/api/v1/pods", "global-default", "global-default"},
		{&authn.User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}, "GET", "/version", "global-default", "global-default"},
		{&authn.User{Name: "nobody"}, "GET", "/version", "catch-all", "catch-all"},
	}
	for _, tt := range tests {
		ticket := admit(t, f, tt.user, tt.method, tt.url)
		if s, l := ticket.route.schema.Name, ticket.route.level.name; s != tt.schema || l != tt.level {
			t.Errorf("%s %s by %s: %s at %s, want %s at %s", tt.method, tt.url, tt.user.Name, s, l, tt.schema, tt.level)
		}
		ticket.Done()
	}
}

// narrow puts everything but the mandatory in one level of the given number of queues.
func narrow(t testing.TB, f *Fairness, queues, length int32) {
	t.Helper()
	shares, all := int32(100), int32(0)
	l := limited("narrow", shares, 0, queues, min(queues, 2))
	if queues > 0 {
		l.Spec.Limited.LimitResponse.Queuing.QueueLengthLimit = length
	}
	l.UID = "level-uid"
	s := schema("narrow", "narrow", 500, flowv1.FlowDistinguisherMethodByUserType, everything(groups("system:authenticated")))
	s.UID = "schema-uid"
	closed := levels()[1] // no seats are left to catch-all
	closed.Spec.Limited.NominalConcurrencyShares = &all
	f.digest([]*flowv1.PriorityLevelConfiguration{l, levels()[0], closed}, []*flowv1.FlowSchema{s})
}

func metric(t testing.TB, f *Fairness, line string) {
	t.Helper()
	var b strings.Builder
	f.WriteMetrics(&b)
	if !strings.Contains(b.String(), "\n"+line+"\n") {
		name, _, _ := strings.Cut(line, "{")
		for l := range strings.Lines(b.String()) {
			if strings.HasPrefix(l, name) {
				t.Log(l)
			}
		}
		t.Errorf("no metric %s", line)
	}
}

func TestRejects(t *testing.T) {
	f := alone(t, 1, nil)
	narrow(t, f, 0, 0)
	first := admit(t, f, jane, "GET", "/api/v1/pods")
	r, i := ask("GET", "/api/v1/pods")
	w := httptest.NewRecorder()
	_, err := f.Admit(w, r, i, jane)
	if !apierrors.IsTooManyRequests(err) {
		t.Fatalf("got %v", err)
	}
	if wait, ok := apierrors.SuggestsClientDelay(err); !ok || wait != 1 || err.Error() != "Too many requests, please try again later." {
		t.Errorf("%v, again after %d s", err, wait)
	}
	if s, l := w.Header().Get("X-Kubernetes-PF-FlowSchema-UID"), w.Header().Get("X-Kubernetes-PF-PriorityLevel-UID"); s != "schema-uid" || l != "level-uid" {
		t.Errorf("headers %q and %q", s, l)
	}
	metric(t, f, `apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="concurrency-limit"} 1`)
	metric(t, f, `apiserver_flowcontrol_current_executing_requests{flow_schema="narrow",priority_level="narrow"} 1`)
	admit(t, f, admin, "GET", "/api/v1/pods").Done() // others are not concerned
	first.Done()
	first.Done()
	metric(t, f, `apiserver_flowcontrol_current_executing_requests{flow_schema="narrow",priority_level="narrow"} 0`)
	admit(t, f, jane, "GET", "/api/v1/pods").Done()
	metric(t, f, `apiserver_flowcontrol_dispatched_requests_total{flow_schema="narrow",priority_level="narrow"} 2`)
	metric(t, f, `apiserver_flowcontrol_nominal_limit_seats{priority_level="narrow"} 1`)
}

// pending starts a request that has to wait, and returns once it does.
func pending(t *testing.T, f *Fairness, ctx context.Context, u *authn.User) <-chan error {
	t.Helper()
	r, i := ask("GET", "/api/v1/pods")
	before, out := waiting(f), make(chan error, 1)
	go func() {
		ticket, err := f.Admit(httptest.NewRecorder(), r.WithContext(ctx), i, u)
		if err == nil {
			ticket.Done()
		}
		out <- err
	}()
	for waiting(f) == before {
		select {
		case err := <-out:
			t.Fatalf("did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	return out
}

func waiting(f *Fairness) (n int) {
	for _, s := range f.state() {
		n += s.counts.Waiting
	}
	return n
}

func TestWaits(t *testing.T) {
	f := alone(t, 1, nil)
	narrow(t, f, 2, 5)
	first := admit(t, f, jane, "GET", "/api/v1/pods")
	gone, leave := context.WithCancel(t.Context())
	quits := pending(t, f, gone, jane)
	stays := pending(t, f, t.Context(), jane)
	hasty, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	times := pending(t, f, hasty, bot)
	metric(t, f, `apiserver_flowcontrol_current_inqueue_requests{flow_schema="narrow",priority_level="narrow"} 3`)
	leave()
	if err := <-quits; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left got %v", err)
	}
	if err := <-times; !apierrors.IsTooManyRequests(err) {
		t.Errorf("one with little time got %v", err)
	}
	first.Done()
	if err := <-stays; err != nil {
		t.Error(err)
	}
	for _, reason := range []string{"cancelled", "time-out"} {
		metric(t, f, `apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="`+reason+`"} 1`)
	}
	metric(t, f, `apiserver_flowcontrol_request_wait_duration_seconds_count{execute="true",flow_schema="narrow",priority_level="narrow"} 1`)
	metric(t, f, `apiserver_flowcontrol_request_wait_duration_seconds_count{execute="false",flow_schema="narrow",priority_level="narrow"} 2`)
	metric(t, f, `apiserver_flowcontrol_current_inqueue_requests{flow_schema="narrow",priority_level="narrow"} 0`)
}

func TestQueueFull(t *testing.T) {
	f := alone(t, 1, nil)
	narrow(t, f, 1, 1)
	first := admit(t, f, jane, "GET", "/api/v1/pods")
	next := pending(t, f, t.Context(), jane)
	r, i := ask("GET", "/api/v1/pods")
	if _, err := f.Admit(httptest.NewRecorder(), r, i, jane); !apierrors.IsTooManyRequests(err) {
		t.Errorf("got %v", err)
	}
	metric(t, f, `apiserver_flowcontrol_rejected_requests_total{flow_schema="narrow",priority_level="narrow",reason="queue-full"} 1`)
	first.Done()
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// What waits at a level that becomes exempt runs; a level whose object goes lives on until it is empty.
func TestChangeOfConfiguration(t *testing.T) {
	f := alone(t, 1, nil)
	narrow(t, f, 2, 5)
	first := admit(t, f, jane, "GET", "/api/v1/pods")
	held := pending(t, f, t.Context(), jane)
	f.digest([]*flowv1.PriorityLevelConfiguration{}, []*flowv1.FlowSchema{})
	if s := first.route.level; s.object != nil || f.levels["narrow"] != s {
		t.Error("a busy level was dropped")
	}
	r, i := ask("GET", "/api/v1/pods")
	if ticket, err := f.Admit(httptest.NewRecorder(), r, i, jane); err != nil || ticket.route.schema.Name != catchAll {
		t.Errorf("without configuration: %v, %v", ticket, err)
	}
	first.Done()
	if err := <-held; err != nil {
		t.Error(err)
	}
	f.adjust()
	if f.levels["narrow"] != nil {
		t.Error("an empty level was kept")
	}
	narrow(t, f, 2, 5)
	first = admit(t, f, jane, "GET", "/api/v1/pods")
	held = pending(t, f, t.Context(), jane)
	open := plc("narrow", levels()[0].Spec)
	f.digest([]*flowv1.PriorityLevelConfiguration{open}, []*flowv1.FlowSchema{first.route.schema})
	if err := <-held; err != nil {
		t.Error(err)
	}
	first.Done()
}

func TestWidth(t *testing.T) {
	f := alone(t, 600, func(o *Options) { o.Count = func(*request.Info) int { return 730 } })
	tests := []struct {
		user  *authn.User
		verb  string
		url   string
		seats int
	}{
		{bot, "GET", "/api/v1/pods", 8},
		{bot, "GET", "/api/v1/pods?limit=250", 3},
		{bot, "GET", "/api/v1/pods?limit=250&labelSelector=a%3Db", 8},
		{bot, "GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx", 1},
		{bot, "GET", "/api/v1/namespaces/a/pods/x", 1},
		{bot, "POST", "/api/v1/namespaces/a/pods", 1},
		{bot, "GET", "/api/v1/pods?watch=1", 8},
		{bot, "GET", "/api/v1/pods?watch=1&resourceVersion=7", 1},
		{bot, "GET", "/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true", 8},
		{kube, "GET", "/apis/coordination.k8s.io/v1/leases", 8},
		{node, "GET", "/api/v1/pods", 8},
	}
	for _, tt := range tests {
		ticket := admit(t, f, tt.user, tt.verb, tt.url)
		if n := ticket.request.Work.Seats; n != tt.seats {
			t.Errorf("%s %s: %d seats, want %d", tt.verb, tt.url, n, tt.seats)
		}
		ticket.Done()
	}
	small := alone(t, 60, func(o *Options) { o.Count = func(*request.Info) int { return 730 } })
	if n := admit(t, small, jane, "GET", "/api/v1/pods").request.Work.Seats; n != 1 {
		t.Errorf("%d seats at a level of 5 with hands of 6", n)
	}
}

func TestWritesThatManyWatchAreWider(t *testing.T) {
	f := alone(t, 600, nil)
	var open []*Ticket
	for range 35 {
		ticket := admit(t, f, bot, "GET", "/api/v1/namespaces/a/pods?watch=1&resourceVersion=1")
		Begun(With(t.Context(), ticket))
		open = append(open, ticket)
	}
	metric(t, f, `apiserver_flowcontrol_current_executing_requests{flow_schema="service-accounts",priority_level="workload-low"} 0`)
	wide := admit(t, f, bot, "POST", "/api/v1/namespaces/a/pods")
	if w := wide.request.Work; w.Seats != 1 || w.FinalSeats != 4 || w.Extra != eventTime {
		t.Errorf("work %+v", w)
	}
	wide.Done()
	if w := admit(t, f, bot, "POST", "/api/v1/namespaces/b/pods").request.Work; w.FinalSeats != 0 {
		t.Errorf("in another namespace: %+v", w)
	}
	for _, ticket := range open {
		ticket.Done()
	}
	if w := admit(t, f, bot, "POST", "/api/v1/namespaces/a/pods").request.Work; w.FinalSeats != 0 {
		t.Errorf("with nobody watching: %+v", w)
	}
	if len(f.watch.open) != 0 {
		t.Errorf("counted still: %v", f.watch.open)
	}
	if seats, extra := spread(320, 10); seats != 10 || extra != 16*time.Millisecond {
		t.Errorf("320 watchers: %d seats for %v", seats, extra)
	}
}

func TestDumps(t *testing.T) {
	f := alone(t, 1, nil)
	narrow(t, f, 2, 5)
	first := admit(t, f, jane, "GET", "/apis/apps/v1/namespaces/a/deployments/x")
	held := pending(t, f, t.Context(), jane)
	for name, want := range map[string][]string{
		"dump_priority_levels": {"PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests,", "narrow,            "},
		"dump_queues":          {"PriorityLevelName, Index,  PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR,", "0.00300000ss"},
		"dump_requests?includeRequestDetails=1": {"FlowDistingsher,", "UserName,", "0001-01-01T00:00:00Z,",
			"jane,     get,    /apis/apps/v1/namespaces/a/deployments/x, a,         x,      apps/v1,    deployments, \n"},
	} {
		w := httptest.NewRecorder()
		if !f.Serve(w, httptest.NewRequest("GET", Debug+name, nil)) {
			t.Fatalf("%s is not served", name)
		}
		b, _ := io.ReadAll(w.Body)
		for _, s := range want {
			if !strings.Contains(string(b), s) {
				t.Errorf("%s lacks %q:\n%s", name, s, b)
			}
		}
	}
	if f.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", Debug+"dump_secrets", nil)) {
		t.Error("an unknown dump is served")
	}
	first.Done()
	if err := <-held; err != nil {
		t.Error(err)
	}
}

// Many at once, for the race detector: nobody is lost, and in the end nothing is left.
func TestConcurrent(t *testing.T) {
	f := alone(t, 4, nil)
	narrow(t, f, 8, 100)
	var wg sync.WaitGroup
	for _, u := range []*authn.User{jane, bot, node, kube} {
		for range 8 {
			wg.Go(func() {
				for range 50 {
					r, i := ask("GET", "/api/v1/pods")
					ticket, err := f.Admit(httptest.NewRecorder(), r, i, u)
					if err != nil {
						t.Error(err)
						return
					}
					ticket.Done()
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for {
		select {
		case <-done:
			metric(t, f, `apiserver_flowcontrol_dispatched_requests_total{flow_schema="narrow",priority_level="narrow"} 1600`)
			for _, s := range f.state() {
				if s.counts.Running+s.counts.Waiting+s.counts.Seats != 0 {
					t.Errorf("%s: left over %+v", s.name, s.counts)
				}
			}
			return
		case <-time.After(time.Millisecond):
			f.adjust()
			narrow(t, f, 8, 100)
		}
	}
}

func TestDangling(t *testing.T) {
	then, now := metav1.NewTime(time.Unix(1000, 0)), time.Unix(2000, 0)
	s := schema("s", "p", 5, "", flowv1.PolicyRulesWithSubjects{})
	c, changed := dangling(s, false, now)
	if !changed || c.Status != flowv1.ConditionTrue || c.Reason != "NotFound" || c.Message != `This FlowSchema references the PriorityLevelConfiguration object named "p" but there is no such object` {
		t.Errorf("%+v", c)
	}
	c.LastTransitionTime = then
	s.Status.Conditions = []flowv1.FlowSchemaCondition{c}
	if _, changed := dangling(s, false, now); changed {
		t.Error("changed with nothing new")
	}
	s.Spec.PriorityLevelConfiguration.Name = "q"
	if c, changed := dangling(s, false, now); !changed || c.LastTransitionTime != then {
		t.Errorf("another level: %+v, %v", c, changed)
	}
	c, changed = dangling(s, true, now)
	if !changed || c.Status != flowv1.ConditionFalse || c.Reason != "Found" || !c.LastTransitionTime.Time.Equal(now) ||
		c.Message != `This FlowSchema references the PriorityLevelConfiguration object named "q" and it exists` {
		t.Errorf("found: %+v", c)
	}
}

func TestKept(t *testing.T) {
	tests := []struct {
		name       string
		object     string
		annotation string
		generation int64
		edited     bool
		wantSpec   bool // the server's
		annotated  string
	}{
		{"untouched", "system-nodes", "true", 1, false, true, "true"},
		{"edited under the server's rule", "system-nodes", "true", 2, true, true, "true"},
		{"taken over", "system-nodes", "false", 2, true, false, "false"},
		{"old, never edited", "system-nodes", "", 1, true, true, "true"},
		{"old, edited", "system-nodes", "", 2, true, false, "false"},
		{"mandatory", catchAll, "false", 2, true, true, "true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want *flowv1.FlowSchema
			for _, s := range schemas() {
				if s.Name == tt.object {
					want = s
				}
			}
			old := want.DeepCopy()
			old.Generation = tt.generation
			old.Annotations = map[string]string{"mine": "1"}
			if tt.annotation != "" {
				old.Annotations[autoUpdate] = tt.annotation
			}
			if tt.edited {
				old.Spec.MatchingPrecedence = 77
			}
			next, changed := kept(old, want, func(old, want *flowv1.FlowSchema) *flowv1.FlowSchema {
				next := old.DeepCopy()
				next.Spec = want.Spec
				return next
			})
			if (next.Spec.MatchingPrecedence == want.Spec.MatchingPrecedence) != tt.wantSpec || next.Annotations[autoUpdate] != tt.annotated || next.Annotations["mine"] != "1" {
				t.Errorf("precedence %d, annotations %v", next.Spec.MatchingPrecedence, next.Annotations)
			}
			if wantChange := tt.edited && tt.wantSpec || tt.annotation != tt.annotated; changed != wantChange {
				t.Errorf("changed %v", changed)
			}
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	for _, tt := range []struct {
		name        string
		user        *authn.User
		method, url string
	}{
		{"exempt", admin, "GET", "/api/v1/namespaces/a/pods/x"},
		{"node", node, "PATCH", "/api/v1/nodes/a/status"},
		{"account", bot, "GET", "/api/v1/namespaces/a/pods/x"},
		{"default", jane, "GET", "/api/v1/namespaces/a/pods/x"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			f := alone(b, 600, nil)
			r, i := ask(tt.method, tt.url)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				ticket, err := f.Admit(w, r, i, tt.user)
				if err != nil {
					b.Fatal(err)
				}
				ticket.Done()
			}
		})
	}
}
