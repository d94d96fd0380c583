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
	p.Family("apiserver_request_total", "counter", Stable,
		"Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.")
	for i, k := range keys {
		for _, c := range *all[i].codes.Load() {
			p.Sample(float64(c.count.Load()), k.labels("code", strconv.Itoa(c.status), "dry_run", k.dryRun)...)
		}
	}
	p.Family("apiserver_request_duration_seconds", "histogram", Stable,
		"Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.")
	for i, k := range keys {
		p.histogram(&all[i].latency, latencies, k.labels("", "", "dry_run", k.dryRun)...)
	}
	p.Family("apiserver_request_sli_duration_seconds", "histogram", Alpha,
		"Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.")
	for i, k := range keys {
		p.histogram(&all[i].own, promised, k.labels("", "", "", "")...)
	}
	p.Family("apiserver_response_sizes", "histogram", Stable, "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.")
	for i, k := range keys {
		p.histogram(&all[i].size, sizes, k.labels("", "", "", "")...)
	}
	p.Family("apiserver_longrunning_requests", "gauge", Stable, "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.")
	for i, k := range keys {
		if k.verb == "WATCH" || k.verb == "CONNECT" {
			p.Sample(float64(all[i].running.Load()), k.labels("", "", "", "")...)
		}
	}
	m.writeDeprecated(p, keys, all)
	p.Family("apiserver_current_inflight_requests", "gauge", Stable, "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.")
	second := int64(time.Since(m.start) / time.Second)
	for i, kind := range []string{"readOnly", "mutating"} {
		p.Sample(m.inflight[i].read(second), "request_kind", kind)
	}
	m.writeLists(p)
}

func (m *Requests) writeDeprecated(p *Page, keys []key, all []*series) {
	p.Family("apiserver_requested_deprecated_apis", "gauge", Stable,
		"Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.")
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
	p.Family("apiserver_watch_list_duration_seconds", "histogram", Beta, "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.")
	for i, k := range keys {
		p.histogram(all[i], listTimes, "group", k.group, "resource", k.resource, "scope", k.scope, "version", k.version)
	}
}

// labels returns a key's labels in alphabetical order, with the two that not all metrics have where they are named.
func (k key) labels(code, codeValue, dryRun, dryRunValue string) []string {
	out := make([]string, 0, 20)
	if code != "" {
		out = append(out, code, codeValue)
	}
	out = append(out, "component", "apiserver")
	if dryRun != "" {
		out = append(out, dryRun, dryRunValue)
	}
	return append(out, "group", k.group, "resource", k.resource, "scope", k.scope, "subresource", k.subresource, "verb", k.verb, "version", k.version)
}
