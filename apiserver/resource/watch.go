package resource

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"

	"karve/store"
)

// bookmarkEvery is how often a watch that allows bookmarks gets one without anything else having happened.
const bookmarkEvery = time.Minute

// lastBookmark is how long before its timeout a watch gets one more, so that its client goes on from where it is.
const lastBookmark = 2 * time.Second

// bookmarkAt returns when the next bookmark is due.
func bookmarkAt(ctx context.Context, now time.Time) time.Time {
	at := now.Add(bookmarkEvery)
	if end, ok := ctx.Deadline(); ok {
		if last := end.Add(-lastBookmark); last.After(now) && last.Before(at) {
			return last
		}
	}
	return at
}

// Change is one thing a watcher is told. Record carries the object; a Bookmark has only a Revision. InitialEnd marks the
// bookmark that ends the initial events.
type Change struct {
	Type       watch.EventType
	Record     *store.Record
	Revision   uint64
	InitialEnd bool
}

// Watch is an open watch. One goroutine may use it.
type Watch struct {
	door      *Door
	cursor    *store.Cursor
	sel       *Selector
	prefix    string
	initial   []Change
	bookmarks bool
	next      time.Time
}

// Watch opens a watch after the revision of opts, or with the present state as its first events when there is none.
func (d *Door) Watch(ctx context.Context, c *Call, opts *metav1.ListOptions) (*Watch, error) {
	sel, err := NewSelector(c.Row, opts)
	if err != nil {
		return nil, err
	}
	w := &Watch{door: d, sel: sel, prefix: Prefix(c.Row, c.Namespace), bookmarks: opts.AllowWatchBookmarks, next: bookmarkAt(ctx, time.Now())}
	if c.Name != "" {
		w.prefix += c.Name
		exact := w.prefix
		w.sel = &Selector{row: sel.row, labels: sel.labels, fields: sel.fields, get: sel.get}
		w.prefix = exact
	}
	rv := opts.ResourceVersion
	send := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	after := uint64(0)
	if rv != "" && rv != "0" {
		if after, err = strconv.ParseUint(rv, 10, 64); err != nil {
			return nil, field.Invalid(field.NewPath("resourceVersion"), rv, err.Error()) // upstream answers 500 with these words
		}
		if send {
			if err := d.reach(ctx, rv); err != nil {
				return nil, err
			}
		}
	}
	fromNow := rv == "" || rv == "0"
	if rv == "" {
		if err := d.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	if opts.SendInitialEvents != nil && !send && fromNow {
		after, fromNow = d.store.Revision(), false
	}
	if send || fromNow {
		view := d.store.View()
		after = view.Revision()
		view.Scan(w.prefix, "", func(r *store.Record) bool {
			if w.sel.Picks(r) {
				w.initial = append(w.initial, Change{Type: watch.Added, Record: r})
			}
			return true
		})
		if send && w.bookmarks {
			w.initial = append(w.initial, Change{Type: watch.Bookmark, Revision: after, InitialEnd: true})
		}
	}
	w.cursor, err = d.store.Watch(Root+c.Row.Hub().Prefix+"/", after)
	if errors.Is(err, store.ErrExpired) {
		return nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", after, d.store.Revision()))
	}
	return w, err
}

// Next waits for changes. It returns an error when ctx ends (ctx.Err()), when the watcher fell too far behind (410), or
// when the store closes.
func (w *Watch) Next(ctx context.Context) ([]Change, error) {
	if len(w.initial) > 0 {
		out := w.initial
		w.initial = nil
		return out, nil
	}
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if w.bookmarks {
			wait, cancel = context.WithDeadline(ctx, w.next)
		}
		events, _, err := w.cursor.Next(wait)
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			w.next = bookmarkAt(ctx, time.Now())
			return []Change{{Type: watch.Bookmark, Revision: w.cursor.Progress()}}, nil
		case errors.Is(err, store.ErrExpired):
			return nil, apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")
		case err != nil:
			return nil, err
		}
		if out := w.translate(events); len(out) > 0 {
			return out, nil
		}
	}
}

// Initial reports whether the next changes are the initial events.
func (w *Watch) Initial() bool { return len(w.initial) > 0 }

// Close lets the watch go.
func (w *Watch) Close() { w.cursor.Close() }

func (w *Watch) translate(events []store.Event) []Change {
	var out []Change
	for i := range events {
		ev := &events[i]
		key := ev.Record.Key
		if len(key) < len(w.prefix) || key[:len(w.prefix)] != w.prefix {
			continue
		}
		if w.prefix[len(w.prefix)-1] != '/' && len(key) != len(w.prefix) {
			continue // a watch of one name sees that name only
		}
		if c, ok := w.change(ev); ok {
			out = append(out, c)
		}
	}
	return out
}

// change turns an event of the log into what this watcher sees of it: an object that comes to match appears, one that
// stops matching goes.
func (w *Watch) change(ev *store.Event) (Change, bool) {
	now := !ev.Deleted && (w.sel.Everything() || w.sel.Picks(ev.Record))
	before := ev.Prev != nil && (w.sel.Everything() || w.sel.Picks(ev.Prev))
	switch {
	case now && before:
		return Change{Type: watch.Modified, Record: ev.Record}, true
	case now:
		return Change{Type: watch.Added, Record: ev.Record}, true
	case before && ev.Deleted:
		return Change{Type: watch.Deleted, Record: ev.Record}, true
	case before:
		return Change{Type: watch.Deleted, Record: ev.Prev, Revision: ev.Record.Revision}, true
	}
	return Change{}, false
}

// Version returns the resourceVersion of a change's object.
func (c *Change) Version() string {
	if c.Revision != 0 {
		return format(c.Revision)
	}
	return format(c.Record.Revision)
}

// Object returns the object a change is about, under the revision of the change; nil for a record that cannot be read.
func (c *Change) Object() Object {
	o := ObjectOf(c.Record)
	if c.Revision != 0 && o != nil {
		o = shallow(o)
		o.SetResourceVersion(format(c.Revision))
	}
	return o
}
