package metrics

import (
	"strconv"
	"time"
)

// WriteTo adds what was counted of requests to a page.
func (m *Requests) WriteTo(p *Page) {
	m.mu.RLock()
	keys := sorted(m.series, key.compare)
	all := make([]*series, len(keys))
	for i, k := range keys {
		all[i] = m.series[k]
	}
	m.mu.RUnlock()
	// What system_client is to say is not documented; a label without a value is the same as none.
	p.Family("apiserver_request_total", "counter", Stable,
		"Requests answered, by what they asked for and by HTTP status.")
	for i, k := range keys {
		for _, c := range *all[i].codes.Load() {
			p.Sample(float64(c.count.Load()), k.total(c.status)...)
		}
	}
	p.Family("apiserver_request_duration_seconds", "histogram", Stable,
		"Seconds from a request to its answer, by what it asked for.")
	for i, k := range keys {
		p.histogram(&all[i].latency, latencies, k.labels(true)...)
	}
	p.Family("apiserver_request_sli_duration_seconds", "histogram", Alpha,
		"Seconds from a request to its answer without those it waited for its turn, by what it asked for.")
	for i, k := range keys {
		p.histogram(&all[i].own, promised, k.labels(false)...)
	}
	p.Family("apiserver_response_sizes", "histogram", Stable, "Bytes of answers, by what was asked for.")
	for i, k := range keys {
		p.histogram(&all[i].size, sizes, k.labels(false)...)
	}
	p.Family("apiserver_longrunning_requests", "gauge", Stable, "Watches and streams that are open, by what they asked for.")
	for i, k := range keys {
		if k.verb == "WATCH" || k.verb == "CONNECT" {
			p.Sample(float64(all[i].running.Load()), k.labels(false)...)
		}
	}
	m.writeDeprecated(p, keys, all)
	p.Family("apiserver_current_inflight_requests", "gauge", Stable, "Most requests at a time within the last second, by kind (readOnly or mutating).")
	second := int64(time.Since(m.start) / time.Second)
	for i, kind := range []string{"readOnly", "mutating"} {
		p.Sample(m.inflight[i].read(second), "request_kind", kind)
	}
	m.writeLists(p)
}

func (m *Requests) writeDeprecated(p *Page, keys []key, all []*series) {
	p.Family("apiserver_requested_deprecated_apis", "gauge", Stable,
		"Deprecated APIs somebody has used since the start, with the release that will not have them.")
	last := key{}
	for i, k := range keys {
		k.verb, k.scope, k.dryRun = "", "", ""
		if all[i].deprecated && k != last && len(*all[i].codes.Load()) > 0 {
			p.Sample(1, "group", k.group, "removed_release", "", "resource", k.resource, "subresource", k.subresource, "version", k.version)
			last = k
		}
	}
}

func (m *Requests) writeLists(p *Page) {
	m.mu.RLock()
	keys := sorted(m.lists, func(a, b listKey) int {
		return before(a.group, b.group, a.resource, b.resource, a.version, b.version, a.scope, b.scope)
	})
	all := make([]*histogram, len(keys))
	for i, k := range keys {
		all[i] = m.lists[k]
	}
	m.mu.RUnlock()
	p.Family("apiserver_watch_list_duration_seconds", "histogram", Beta, "Seconds until a watch had sent its initial events, by what it asked for.")
	for i, k := range keys {
		p.histogram(all[i], listTimes, "group", k.group, "resource", k.resource, "scope", k.scope, "version", k.version)
	}
}

// total returns the labels of apiserver_request_total in alphabetical order.
func (k key) total(status int) []string {
	return []string{"code", strconv.Itoa(status), "component", "apiserver", "dry_run", k.dryRun, "group", k.group, "resource", k.resource, "scope", k.scope,
		"subresource", k.subresource, "system_client", "", "verb", k.verb, "version", k.version}
}

// labels returns the labels of the other metrics in alphabetical order, trial telling whether dry runs count on their own.
func (k key) labels(trial bool) []string {
	out := append(make([]string, 0, 16), "component", "apiserver")
	if trial {
		out = append(out, "dry_run", k.dryRun)
	}
	return append(out, "group", k.group, "resource", k.resource, "scope", k.scope, "subresource", k.subresource, "verb", k.verb, "version", k.version)
}
