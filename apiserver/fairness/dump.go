package fairness

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"karve/apiserver/fairness/queue"
	"karve/apiserver/request"
)

// Debug is where people look into the queues; the last word is one of the tables below.
const Debug = "/debug/api_priority_and_fairness/"

var dumps = map[string]func(f *Fairness, w io.Writer, r *http.Request){
	"dump_priority_levels": (*Fairness).dumpLevels, "dump_queues": (*Fairness).dumpQueues, "dump_requests": (*Fairness).dumpRequests,
}

// Serve answers what is asked below Debug. It returns false for a path it does not know.
func (f *Fairness) Serve(w http.ResponseWriter, r *http.Request) bool {
	name, below := strings.CutPrefix(r.URL.Path, Debug)
	dump := dumps[name]
	if !below || dump == nil {
		return false
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	tab := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
	dump(f, tab, r)
	_ = tab.Flush()
	return true
}

// row writes the cells of a line, each but the last with a comma behind it.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i < len(cells)-1 {
			fmt.Fprintf(w, "%v,\t", c)
		} else {
			fmt.Fprintf(w, "%v\n", c)
		}
	}
}

func (f *Fairness) dumpLevels(w io.Writer, _ *http.Request) {
	row(w, "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests", "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests")
	for _, s := range f.state() {
		c := s.counts
		row(w, s.name, c.Active, c.Running+c.Waiting == 0, s.gone, c.Waiting, c.Running, s.done[0], s.done[1], s.done[2], s.done[3])
	}
}

func (f *Fairness) dumpQueues(w io.Writer, _ *http.Request) {
	row(w, "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR", "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum")
	for _, l := range f.config.Load().levels {
		l.mu.Lock()
		lines := l.set.Lines()
		l.mu.Unlock()
		for i, q := range lines {
			row(w, l.name, i, q.Waiting, q.Running, q.Seats, seatSeconds(q.Next), q.InitialSeats, q.MaxSeats, seatSeconds(q.Work))
		}
	}
}

func seatSeconds(v float64) string { return fmt.Sprintf("%.8fss", v) }

func (f *Fairness) dumpRequests(w io.Writer, r *http.Request) {
	head := []any{"PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime", "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime"}
	details := request.Flag(r.URL.Query(), "includeRequestDetails")
	if details {
		head = append(head, "UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
	}
	row(w, head...)
	for _, l := range f.config.Load().levels {
		l.mu.Lock()
		l.set.Each(func(q *queue.Request, at int) {
			t := q.Of.(*Ticket)
			cells := []any{l.name, t.route.schema.Name, q.Line, at, t.flow, f.at(q.Arrived), q.Work.Seats, q.Work.FinalSeats, q.Work.Extra, f.started(q)}
			if details {
				i := t.info
				version := i.Version
				if i.Group != "" {
					version = i.Group + "/" + i.Version
				}
				cells = append(cells, t.user.Name, i.Verb, i.Path, i.Namespace, i.Name, version, i.Resource, i.Subresource)
			}
			row(w, cells...)
		})
		l.mu.Unlock()
	}
}

func (f *Fairness) at(since time.Duration) string {
	return f.epoch.Add(since).UTC().Format(time.RFC3339Nano)
}

func (f *Fairness) started(q *queue.Request) string {
	if q.State == queue.Waiting {
		return time.Time{}.Format(time.RFC3339Nano)
	}
	return f.at(q.Started)
}
