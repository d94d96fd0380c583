package apiserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// as returns an HTTP/2 client of another user, with connections of its own.
func (r *running) as(user string, groups ...string) *http.Client {
	r.t.Helper()
	cert, key, err := r.opts.PKI.Client(user, groups, time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		r.t.Fatal(err)
	}
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: r.opts.PKI.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// ask sends one request and returns its answer, which must be HTTP/2.
func (r *running) ask(c *http.Client, method, path, body string, headers ...string) answer {
	r.t.Helper()
	res, err := c.Do(r.request(r.t.Context(), method, path, body, headers...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.ProtoMajor != 2 {
		r.t.Fatalf("%s %s: %s, %v", method, path, res.Proto, err)
	}
	return answer{res, b}
}

// allow makes a user an administrator by rules, not by group: only the group is exempt.
func (r *running) allow(user string) {
	r.t.Helper()
	r.must(http.StatusCreated, nil, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", fmt.Sprintf(
		`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%[1]q}]}`, user))
	for r.ask(r.as(user), "GET", "/api/v1/namespaces/default/configmaps", "").StatusCode == http.StatusForbidden {
		time.Sleep(time.Millisecond) // the rules are read from a cache
	}
}

// counted returns the sum of a flow control metric over the series that have the labels.
func (r *running) counted(name, labels string) (sum int) {
	r.t.Helper()
	b := r.must(http.StatusOK, nil, "GET", "/metrics", "").body
	for _, m := range regexp.MustCompile(`(?m)^apiserver_flowcontrol_`+name+`\{([^}]*)\} (\S+)$`).FindAllSubmatch(b, -1) {
		if strings.Contains(string(m[1]), labels) {
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				r.t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

const greedyFlow = `flow_schema="global-default"`

// A thousand requests of one user are in flight, on several connections: some run and do not end, some wait, the rest is
// turned away. Requests of a node and of an administrator are answered all the same, while the others still wait.
func TestGreedyClientStarvesNobody(t *testing.T) {
	r := start(t)
	r.allow("greedy")
	r.must(http.StatusCreated, nil, "POST", "/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}`)
	const all = 1000
	clients := make([]*http.Client, 8)
	for i := range clients {
		clients[i] = r.as("greedy")
		r.ask(clients[i], "GET", "/version", "") // or each of the requests that come would begin a connection of its own
	}
	var wg sync.WaitGroup
	var created, refused, other atomic.Int64
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer func() { release(); wg.Wait() }()
	for i := range all {
		wg.Go(func() {
			body, write := io.Pipe()
			go func() { // the request is not complete before it is let go
				<-hold
				_, _ = io.WriteString(write, configMap(fmt.Sprintf("c%d", i)))
				_ = write.Close()
			}()
			req := r.request(context.Background(), "POST", "/api/v1/namespaces/default/configmaps", "", "Content-Type: application/json")
			req.Body = body
			res, err := clients[i%len(clients)].Do(req)
			if err != nil {
				other.Add(1)
				return
			}
			defer res.Body.Close()
			var st metav1.Status
			b, _ := io.ReadAll(res.Body)
			_ = json.Unmarshal(b, &st)
			switch {
			case res.StatusCode == http.StatusCreated:
				created.Add(1)
			case res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "1" && st.Reason == metav1.StatusReasonTooManyRequests:
				refused.Add(1)
			default:
				t.Logf("%s: %s", res.Status, b)
				other.Add(1)
			}
		})
	}
	running := func() int { return r.counted("current_executing_requests", greedyFlow) }
	waiting := func() int { return r.counted("current_inqueue_requests", greedyFlow) }
	for running()+waiting()+r.counted("rejected_requests_total", greedyFlow) < all {
		time.Sleep(10 * time.Millisecond)
	}
	ran, waited := running(), waiting()
	if ran == 0 || waited == 0 || ran+waited == all {
		t.Errorf("of %d requests %d run and %d wait", all, ran, waited)
	}
	node, admin := r.as("system:node:n1", "system:nodes"), r.as("boss", "system:masters")
	before := r.counted("dispatched_requests_total", `flow_schema="system-node`)
	for range 20 {
		for _, a := range []answer{
			r.ask(node, "GET", "/api/v1/nodes/n1", ""),
			r.ask(node, "PATCH", "/api/v1/nodes/n1/status", `{"status":{"phase":"Running"}}`, "Content-Type: application/merge-patch+json"),
			r.ask(node, "GET", "/api/v1/services", ""),
			r.ask(admin, "GET", "/api/v1/namespaces/default/configmaps", ""),
			r.ask(admin, "GET", "/healthz", ""),
		} {
			if a.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", a.Status, a.body)
			}
		}
	}
	if n := r.counted("dispatched_requests_total", `flow_schema="system-node`) - before; n != 60 {
		t.Errorf("%d of the node's 60 requests are counted", n)
	}
	if waiting() == 0 || running() < ran {
		t.Errorf("the greedy requests did not last: %d wait, %d run", waiting(), running())
	}
	release()
	wg.Wait()
	if other.Load() > 0 || created.Load() < int64(ran) || refused.Load() == 0 || created.Load()+refused.Load() != all {
		t.Errorf("%d created, %d refused, %d else, with %d running and %d waiting before", created.Load(), refused.Load(), other.Load(), ran, waited)
	}
}

// A watch occupies a seat until its initial events are sent: there can be more watches than seats.
func TestWatchesLeaveTheirSeats(t *testing.T) {
	r := start(t)
	r.allow("greedy")
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces/default/configmaps", configMap("c"))
	greedy := r.as("greedy")
	seats := r.counted("current_limit_seats", `priority_level="global-default"`)
	for i := range seats + 20 {
		query := "?watch=1"
		if i%2 == 0 {
			query += "&resourceVersion=1000000" // nothing is sent, now or ever
		}
		res, err := greedy.Do(r.request(t.Context(), "GET", "/api/v1/namespaces/default/configmaps"+query, ""))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("watch %d of %d: %s", i, seats, res.Status)
		}
	}
	for r.counted("current_executing_requests", greedyFlow) > 0 { // the last answer began before its seat was free
		time.Sleep(time.Millisecond)
	}
}

func (r *running) condition(name string) flowv1.FlowSchemaCondition {
	r.t.Helper()
	var s flowv1.FlowSchema
	r.must(http.StatusOK, &s, "GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/"+name, "")
	if len(s.Status.Conditions) != 1 {
		r.t.Fatalf("flow schema %s has conditions %v", name, s.Status.Conditions)
	}
	return s.Status.Conditions[0]
}

// What is written is in effect when the answer arrives, and so is the condition that says whether it can be.
func TestFlowSchemasTakeEffect(t *testing.T) {
	r := start(t)
	r.allow("greedy")
	const schemas, levels = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"
	var schema flowv1.FlowSchema
	r.must(http.StatusCreated, &schema, "POST", schemas, `{"metadata":{"name":"jail"},"spec":{"matchingPrecedence":2,"priorityLevelConfiguration":{"name":"jail"},
		"rules":[{"subjects":[{"kind":"User","user":{"name":"greedy"}}],"resourceRules":[{"verbs":["*"],"apiGroups":[""],"resources":["configmaps"],"namespaces":["default"]}]}]}}`)
	if c := r.condition("jail"); c.Type != flowv1.FlowSchemaConditionDangling || c.Status != flowv1.ConditionTrue {
		t.Errorf("without its level: %+v", c)
	}
	greedy := r.as("greedy")
	if a := r.ask(greedy, "GET", "/api/v1/namespaces/default/configmaps", ""); a.StatusCode != http.StatusOK {
		t.Errorf("a schema without its level counts: %s", a.Status)
	}
	var level flowv1.PriorityLevelConfiguration
	r.must(http.StatusCreated, &level, "POST", levels, `{"metadata":{"name":"jail"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":0,"borrowingLimitPercent":0,"limitResponse":{"type":"Reject"}}}}`)
	if c := r.condition("jail"); c.Status != flowv1.ConditionFalse {
		t.Errorf("with its level: %+v", c)
	}
	a := r.ask(greedy, "GET", "/api/v1/namespaces/default/configmaps", "")
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("X-Kubernetes-PF-FlowSchema-UID") != string(schema.UID) || a.Header.Get("X-Kubernetes-PF-PriorityLevel-UID") != string(level.UID) {
		t.Errorf("%s, %v", a.Status, a.Header)
	}
	if a := r.ask(greedy, "GET", "/api/v1/namespaces/kube-system/configmaps", ""); a.StatusCode != http.StatusOK {
		t.Errorf("in another namespace: %s", a.Status)
	}
	r.must(http.StatusOK, nil, "DELETE", levels+"/jail", "")
	if c := r.condition("jail"); c.Status != flowv1.ConditionTrue {
		t.Errorf("its level gone again: %+v", c)
	}
	if a := r.ask(greedy, "GET", "/api/v1/namespaces/default/configmaps", ""); a.StatusCode != http.StatusOK {
		t.Errorf("its level gone again: %s", a.Status)
	}
}

// Objects every cluster has come back when they are gone or changed, unless somebody took them over.
func TestFlowControlObjectsAreKept(t *testing.T) {
	r := start(t)
	const schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/"
	patch := func(name, body string) {
		r.must(http.StatusOK, nil, "PATCH", schemas+name, body, "Content-Type: application/merge-patch+json")
	}
	r.must(http.StatusOK, nil, "DELETE", schemas+"probes", "")
	patch("service-accounts", `{"spec":{"matchingPrecedence":8000}}`)
	patch("global-default", `{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}},"spec":{"matchingPrecedence":9000}}`)
	r.must(http.StatusCreated, nil, "POST", strings.TrimSuffix(schemas, "/"), `{"metadata":{"name":"old","annotations":{"apf.kubernetes.io/autoupdate-spec":"true"}},"spec":{"priorityLevelConfiguration":{"name":"system"}}}`)
	if err := r.fair.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int32{"probes": 2, "service-accounts": 9000, "global-default": 9000} {
		var s flowv1.FlowSchema
		r.must(http.StatusOK, &s, "GET", schemas+name, "")
		if s.Spec.MatchingPrecedence != want {
			t.Errorf("%s has precedence %d, want %d", name, s.Spec.MatchingPrecedence, want)
		}
	}
	r.must(http.StatusNotFound, nil, "GET", schemas+"old", "")
}
