package resource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/store"
)

func format(revision uint64) string { return strconv.FormatUint(revision, 10) }

// Get returns the record of one object. A resourceVersion only has to be one this store has reached.
func (d *Door) Get(ctx context.Context, c *Call, resourceVersion string) (*store.Record, error) {
	if err := d.reach(ctx, resourceVersion); err != nil {
		return nil, err
	}
	rec := d.store.Get(c.key())
	if rec == nil {
		return nil, c.NotFound()
	}
	return rec, nil
}

// Page is the answer to a list: records in key order and the revision they are the truth of.
type Page struct {
	Records   []*store.Record
	Revision  uint64
	Continue  string
	Remaining *int64
}

// ListMeta returns the page's list metadata.
func (p *Page) ListMeta() metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: format(p.Revision), Continue: p.Continue, RemainingItemCount: p.Remaining}
}

// continueToken says where a list goes on, as upstream encodes it: Start is the first key below the list's prefix that may
// still come.
type continueToken struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	Start    string `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

func (t continueToken) encode() string {
	b, _ := json.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeToken(text string) (t continueToken, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	switch {
	case err != nil:
	case t.Version != tokenVersion:
		err = fmt.Errorf("server does not recognize this encoded version %s", t.Version)
	case t.Revision == 0:
		err = fmt.Errorf("incorrect encoded start resourceVersion (version %s)", tokenVersion)
	case t.Start == "":
		err = fmt.Errorf("encoded start key empty (version %s)", tokenVersion)
	case path.Clean("/"+t.Start) != "/"+strings.TrimPrefix(t.Start, "/"): // it must not climb out of the collection
		err = errors.New(t.Start)
	}
	if err != nil {
		err = apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + err.Error())
	}
	return t, err
}

// List reads a collection, or the next page of one.
func (d *Door) List(ctx context.Context, c *Call, opts *metav1.ListOptions) (*Page, error) {
	sel, err := NewSelector(c.Row, opts)
	if err != nil {
		return nil, err
	}
	view, after, err := d.viewFor(ctx, Prefix(c.Row, c.Namespace), opts)
	if err != nil {
		return nil, err
	}
	prefix := Prefix(c.Row, c.Namespace)
	if after != "" {
		after = prefix + after
	}
	limit := opts.Limit
	if opts.ResourceVersion == "0" { // upstream's cache answers this, and it knows no pages
		limit = 0
	}
	page := &Page{Revision: view.Revision(), Records: []*store.Record{}}
	last, more := "", false
	visit := func(r *store.Record) bool {
		if !sel.Picks(r) {
			return true
		}
		if limit > 0 && int64(len(page.Records)) >= limit {
			more = true
			return false
		}
		page.Records = append(page.Records, r)
		last = r.Key
		return true
	}
	if sel.name != "" && (c.Namespace != "" || !c.Row.Namespaced) && after == "" {
		if r := view.Get(prefix + sel.name); r != nil {
			visit(r)
		}
	} else {
		if cut, ok := strings.CutSuffix(after, "\x00"); ok {
			after = cut
		} else if r := view.Get(after); r != nil { // a token may name a key that is itself yet to come
			visit(r)
		}
		view.Scan(prefix, after, visit)
	}
	if more {
		page.Continue = continueToken{Version: tokenVersion, Revision: int64(view.Revision()), Start: strings.TrimPrefix(last, prefix) + "\x00"}.encode()
		if sel.Everything() {
			rest := int64(view.CountAfter(prefix, last))
			page.Remaining = &rest
		}
		d.views.hold(view, d.now())
	}
	return page, nil
}

func (d *Door) viewFor(ctx context.Context, prefix string, opts *metav1.ListOptions) (view *store.View, after string, err error) {
	rv, match := opts.ResourceVersion, opts.ResourceVersionMatch
	if opts.Continue != "" {
		t, err := decodeToken(opts.Continue)
		if err != nil {
			return nil, "", err
		}
		if rv != "" && rv != "0" {
			return nil, "", apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		if t.Revision < 0 { // the client chose to go on at the newest state
			return d.store.View(), t.Start, nil
		}
		view := d.past(ctx, prefix, uint64(t.Revision))
		if view == nil {
			return nil, "", d.expiredContinue(t)
		}
		return view, t.Start, nil
	}
	if err := d.reach(ctx, rv); err != nil {
		return nil, "", err
	}
	now := d.store.View()
	if match == metav1.ResourceVersionMatchExact && rv != format(now.Revision()) {
		n, _ := strconv.ParseUint(rv, 10, 64)
		if held := d.past(ctx, prefix, n); held != nil {
			return held, "", nil
		}
		return nil, "", apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	return now, "", nil
}

// past returns what was at a revision: as it was kept here for an unfinished list, perhaps begun at another server, or as the
// store's engine knows it; nil if neither does.
func (d *Door) past(ctx context.Context, prefix string, revision uint64) *store.View {
	if v := d.views.find(revision, prefix, d.now()); v != nil {
		return v
	}
	v, err := d.store.Past(ctx, prefix, revision)
	if err != nil {
		return nil
	}
	return v
}

// expiredContinue answers 410 with a token that goes on at the newest state, as upstream does.
func (d *Door) expiredContinue(t continueToken) error {
	t.Revision = -1
	e := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	e.ErrStatus.ListMeta.Continue = t.encode()
	return e
}

// reach waits up to three seconds for a revision the store has not come to yet. Without one, it waits for everything that
// other servers on the same store were told is written.
func (d *Door) reach(ctx context.Context, resourceVersion string) error {
	switch resourceVersion {
	case "":
		return d.catchUp(ctx)
	case "0":
		return nil
	}
	want, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil {
		return invalidVersion(resourceVersion, err)
	}
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	switch err := d.store.Reach(wait, want); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return apierrors.NewTimeoutError("the request was cancelled while waiting for its resourceVersion", 1)
	}
	return tooLarge(want, d.store.Revision())
}

// catchUp waits until what other servers on the same store have answered shows here. Alone, that is always so.
func (d *Door) catchUp(ctx context.Context) error {
	if err := d.store.Sync(ctx); err != nil {
		return apierrors.NewTimeoutError(fmt.Sprintf("the store cannot say what is newest: %v", err), 1)
	}
	return nil
}

// outdated reports whether rec (nil for none) is not what is at key anymore, which other servers on the same store may have
// known for a while. An answer that rests on it must be thought over then, as a conflict would make us do after a write.
func (d *Door) outdated(ctx context.Context, key string, rec *store.Record) bool {
	return d.catchUp(ctx) == nil && d.store.Get(key) != rec
}

// rests reports whether a call's end rests on what was read and nothing else: it was refused, or there was nothing to do.
// A failure of the store itself is none of that: the write may have happened.
func rests(err error, wrote bool) bool {
	if err == nil {
		return !wrote
	}
	switch apierrors.ReasonForError(err) {
	case metav1.StatusReasonUnknown, metav1.StatusReasonInternalError, metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout:
		return false
	}
	return true
}

func invalidVersion(rv string, err error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q: %v", rv, err))
}

func tooLarge(want, now uint64) error {
	e := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", want, now), 1)
	e.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return e
}

// heldViews keeps the snapshots that unfinished lists continue from, each for five minutes and 64 at most.
type heldViews struct {
	mu   sync.Mutex
	held []heldView
}

type heldView struct {
	view  *store.View
	until time.Time
}

func (h *heldViews) hold(v *store.View, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keep := h.held[:0]
	for _, x := range h.held {
		if x.until.After(now) && x.view != v {
			keep = append(keep, x)
		}
	}
	if len(keep) >= 64 {
		keep = append(keep[:0], keep[1:]...)
	}
	h.held = append(keep, heldView{v, now.Add(5 * time.Minute)})
}

func (h *heldViews) find(revision uint64, prefix string, now time.Time) *store.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.held {
		if x.view.Revision() == revision && x.view.Covers(prefix) && x.until.After(now) {
			return x.view
		}
	}
	return nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
