package fairness

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"karve/apiserver/fairness/queue"
)

// levelState is what is shown of a level.
type levelState struct {
	*level
	counts queue.Counts
	done   [4]uint64
	gone   bool
	flows  []flow
}

// state copies what is shown of every level. The parts of a copied level that its lock guards are not to be read.
func (f *Fairness) state() []levelState {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []levelState
	for _, l := range f.sorted() {
		s := levelState{level: l, gone: l.object == nil}
		l.mu.Lock()
		s.counts, s.done = l.set.Counts(), l.done
		for _, fl := range l.flows {
			s.flows = append(s.flows, *fl)
		}
		l.mu.Unlock()
		slices.SortFunc(s.flows, func(a, b flow) int { return compare(a.schema, b.schema) })
		out = append(out, s)
	}
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

type levelMetric struct {
	name, help string
	value      func(s *levelState) float64
}

// levelMetrics are the gauges of levels. Fairness.mu is held.
var levelMetrics = []levelMetric{
	{"nominal_limit_seats", "[BETA] Nominal number of execution seats configured for each priority level", func(s *levelState) float64 { return float64(s.bounds.Nominal) }},
	{"lower_limit_seats", "[ALPHA] Configured lower bound on number of execution seats available to each priority level", func(s *levelState) float64 { return float64(s.bounds.Min) }},
	{"upper_limit_seats", "[ALPHA] Configured upper bound on number of execution seats available to each priority level", func(s *levelState) float64 { return float64(s.bounds.Max) }},
	{"current_limit_seats", "[ALPHA] current derived number of execution seats available to each priority level", func(s *levelState) float64 { return float64(s.counts.Limit) }},
	{"demand_seats_high_watermark", "[ALPHA] High watermark, over last adjustment period, of demand_seats", func(s *levelState) float64 { return float64(s.reading.Peak) }},
	{"demand_seats_average", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats", func(s *levelState) float64 { return s.reading.Average }},
	{"demand_seats_stdev", "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats", func(s *levelState) float64 { return s.reading.Deviation }},
	{"demand_seats_smoothed", "[ALPHA] Smoothed seat demands", func(s *levelState) float64 { return s.smooth }},
}

type flowMetric struct {
	name, help string
	counter    bool
	value      func(f *flow) float64
}

var flowMetrics = []flowMetric{
	{"dispatched_requests_total", "[BETA] Number of requests executed by API Priority and Fairness subsystem", true, func(f *flow) float64 { return float64(f.dispatched) }},
	{"current_inqueue_requests", "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem", false, func(f *flow) float64 { return float64(f.waiting) }},
	{"current_executing_requests", "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", false, func(f *flow) float64 { return float64(f.running) }},
	{"current_executing_seats", "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", false, func(f *flow) float64 { return float64(f.seats) }},
}

type flowHistogram struct {
	name, help string
	// label tells apart the members of a pair.
	label string
	of    func(f *flow) []pairOf
}

type pairOf struct {
	value string
	h     *histogram
}

var flowHistograms = []flowHistogram{
	{"request_wait_duration_seconds", "[BETA] Length of time a request spent waiting in its queue", "execute", func(f *flow) []pairOf { return []pairOf{{"false", &f.waited[0]}, {"true", &f.waited[1]}} }},
	{"request_execution_seconds", "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", "type", func(f *flow) []pairOf { return []pairOf{{"regular", &f.ran[0]}, {"watch", &f.ran[1]}} }},
	{"request_queue_length_after_enqueue", "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued", "", func(f *flow) []pairOf { return []pairOf{{"", &f.length}} }},
	{"work_estimated_seats", "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", "", func(f *flow) []pairOf { return []pairOf{{"", &f.width}} }},
}

const prefix = "apiserver_flowcontrol_"

// WriteMetrics writes what is counted in the text exposition format.
func (f *Fairness) WriteMetrics(w io.Writer) {
	states := f.state()
	f.writeLevels(w, states)
	for _, m := range flowMetrics {
		kind := "gauge"
		if m.counter {
			kind = "counter"
		}
		head(w, m.name, m.help, kind)
		each(states, func(level string, f *flow) {
			fmt.Fprintf(w, "%s%s{flow_schema=%q,priority_level=%q} %s\n", prefix, m.name, f.schema, level, number(m.value(f)))
		})
	}
	head(w, "rejected_requests_total", "[BETA] Number of requests rejected by API Priority and Fairness subsystem", "counter")
	each(states, func(level string, f *flow) {
		for i, n := range f.rejected {
			if n > 0 {
				fmt.Fprintf(w, "%srejected_requests_total{flow_schema=%q,priority_level=%q,reason=%q} %d\n", prefix, f.schema, level, reasons[i], n)
			}
		}
	})
	for _, m := range flowHistograms {
		head(w, m.name, m.help, "histogram")
		each(states, func(level string, f *flow) {
			for _, p := range m.of(f) {
				labels := fmt.Sprintf("flow_schema=%q,priority_level=%q", f.schema, level)
				if m.label == "execute" {
					labels = fmt.Sprintf("%s=%q,", m.label, p.value) + labels
				} else if m.label != "" {
					labels += fmt.Sprintf(",%s=%q", m.label, p.value)
				}
				p.h.write(w, prefix+m.name, labels)
			}
		})
	}
}

func (f *Fairness) writeLevels(w io.Writer, states []levelState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range levelMetrics {
		head(w, m.name, m.help, "gauge")
		for i := range states {
			fmt.Fprintf(w, "%s%s{priority_level=%q} %s\n", prefix, m.name, states[i].name, number(m.value(&states[i])))
		}
	}
}

func head(w io.Writer, name, help, kind string) {
	fmt.Fprintf(w, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, kind)
}

func each(states []levelState, fn func(level string, f *flow)) {
	for i := range states {
		for j := range states[i].flows {
			fn(states[i].name, &states[i].flows[j])
		}
	}
}

// write writes a histogram that has seen anything.
func (h *histogram) write(w io.Writer, name, labels string) {
	if h.total == 0 {
		return
	}
	sum := uint64(0)
	for i, b := range h.bounds {
		sum += h.counts[i]
		fmt.Fprintf(w, "%s_bucket{%s,le=%q} %d\n", name, labels, number(b), sum)
	}
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %s\n%s_count{%s} %d\n", name, labels, h.total, name, labels, number(h.sum), name, labels, h.total)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
