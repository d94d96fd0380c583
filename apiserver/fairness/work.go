package fairness

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"karve/apiserver/fairness/queue"
	"karve/apiserver/request"
)

const (
	// objectsPerSeat is how many objects a list reads for each of its seats.
	objectsPerSeat = 100
	// watchersPerSeat is how many watchers an event is sent to for each seat that its write occupies for eventTime after it
	// was answered.
	watchersPerSeat = 10
	eventTime       = 5 * time.Millisecond
	// A request loads the processors by readLoad for each of its seats, but only by writeLoad if it also waits for the disk,
	// which costs the less the more of them wait at a time.
	readLoad, writeLoad = 2, 1
)

// work estimates what a request costs.
func (f *Fairness) work(rt *route, r *http.Request, i *request.Info) queue.Work {
	w := queue.Work{Seats: 1, Load: readLoad}
	if !i.IsResource {
		return w
	}
	switch i.Verb {
	case "list":
		w.Seats = f.width(rt, i, r.URL.RawQuery)
		w.Load = w.Seats * readLoad
	case "watch":
		if initial(r.URL.RawQuery) {
			w.Seats = f.width(rt, i, r.URL.RawQuery)
			w.Load = w.Seats * readLoad
		}
	case "create", "update", "patch", "delete":
		w.Load = writeLoad
		if n := f.watch.count(keyOf(i)); n > watchersPerSeat && !rt.exempt && i.Subresource != "token" {
			w.FinalSeats, w.Extra = spread(n, rt.maxSeats)
		}
	}
	return w
}

// spread is the work of telling watchers: when there are more than seats for them it takes longer.
func spread(watchers, most int) (int, time.Duration) {
	seats := (watchers + watchersPerSeat - 1) / watchersPerSeat
	if seats <= most {
		return seats, eventTime
	}
	return most, eventTime * time.Duration(seats) / time.Duration(most)
}

// width is how many seats reading a collection takes.
func (f *Fairness) width(rt *route, i *request.Info, query string) int {
	if f.opts.Count == nil || rt.maxSeats <= 1 || i.Name != "" || i.Subresource != "" {
		return 1
	}
	objects := f.opts.Count(i)
	if objects <= objectsPerSeat {
		return 1
	}
	if query != "" {
		q, _ := url.ParseQuery(query)
		fields := q.Get("fieldSelector")
		if strings.Contains(fields, "metadata.name=") && !strings.Contains(fields, "metadata.name=,") {
			return 1
		}
		// What a selector leaves out has to be read too.
		if limit, err := strconv.Atoi(q.Get("limit")); err == nil && limit > 0 && fields == "" && q.Get("labelSelector") == "" {
			objects = min(objects, limit)
		}
	}
	return min(rt.maxSeats, (objects+objectsPerSeat-1)/objectsPerSeat)
}

// initial reports whether a watch begins with what there is.
func initial(query string) bool {
	q, _ := url.ParseQuery(query)
	if q.Has("sendInitialEvents") {
		return request.Flag(q, "sendInitialEvents")
	}
	rv := q.Get("resourceVersion")
	return rv == "" || rv == "0"
}

// watchers counts the watches that are open, by resource and namespace.
type watchers struct {
	mu   sync.RWMutex
	open map[watchKey]int
}

type watchKey struct{ group, resource, namespace string }

func keyOf(i *request.Info) watchKey { return watchKey{i.Group, i.Resource, i.Namespace} }

func (w *watchers) add(k watchKey, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[watchKey]int{}
	}
	if w.open[k] += n; w.open[k] == 0 {
		delete(w.open, k)
	}
}

// count returns how many watchers are told of a write.
func (w *watchers) count(k watchKey) int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	n := w.open[k]
	if k.namespace != "" {
		k.namespace = ""
		n += w.open[k]
	}
	return n
}
