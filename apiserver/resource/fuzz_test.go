package resource

import (
	"context"
	"log/slog"
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	rowfields "karve/api/fields"
	"karve/apiserver/authn"
	"karve/client"
	"karve/store"
	"karve/store/engine/mem"
)

// filled returns a door with a few Secrets of two namespaces behind it.
func filled(f *testing.F) *Door {
	f.Helper()
	st, err := store.Open(f.Context(), store.Options{Engine: mem.New(), Topic: Topic, Attach: Attach})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = st.Close() })
	d := New(st, slog.New(slog.DiscardHandler))
	secrets := client.Of[*corev1.Secret](&Local{Door: d, User: &authn.User{Name: "test"}, Manager: "test"})
	for _, o := range []struct {
		namespace, name string
		labels          map[string]string
		kind            corev1.SecretType
	}{
		{"a", "one", map[string]string{"app": "web", "tier": "front"}, ""}, {"a", "two", map[string]string{"app": "web"}, "example.com/x"},
		{"a", "three", nil, ""}, {"a-b", "one", map[string]string{"app": "db"}, ""}, {"a-b", "two", nil, "example.com/x"},
	} {
		if _, err := secrets.Create(f.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: o.name, Namespace: o.namespace, Labels: o.labels}, Type: o.kind}); err != nil {
			f.Fatal(err)
		}
	}
	return d
}

func secretsIn(namespace string) *Call {
	return &Call{Row: api.ByResource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}), Namespace: namespace, User: &authn.User{Name: "test"}}
}

func keys(p *Page) []string {
	out := []string{}
	for _, r := range p.Records {
		out = append(out, r.Key)
	}
	return out
}

// FuzzContinue hands in tokens: one that is taken is written back as it is, and leads to nothing outside of the collection
// that the request was allowed to see.
func FuzzContinue(f *testing.F) {
	d := filled(f)
	f.Add(continueToken{Version: tokenVersion, Revision: -1, Start: "one\x00"}.encode(), int64(0))
	f.Add(continueToken{Version: tokenVersion, Revision: -1, Start: "../a-b/one"}.encode(), int64(1))
	f.Add(continueToken{Version: tokenVersion, Revision: 3, Start: "two"}.encode(), int64(2))
	f.Add(continueToken{Version: "v0", Revision: 3, Start: "/"}.encode(), int64(2))
	f.Add("!", int64(1))
	f.Fuzz(func(t *testing.T, text string, limit int64) {
		token, err := decodeToken(text)
		if err == nil {
			if again, err := decodeToken(token.encode()); err != nil || again != token {
				t.Fatalf("%+v came back as %+v %v", token, again, err)
			}
			if at := path.Clean("/registry/secrets/a/" + token.Start); !strings.HasPrefix(at, "/registry/secrets/a") {
				t.Fatalf("%q leads to %s", token.Start, at)
			}
		}
		page, err := d.List(context.Background(), secretsIn("a"), &metav1.ListOptions{Continue: text, Limit: limit})
		if err != nil {
			return
		}
		for _, k := range keys(page) {
			if !strings.HasPrefix(k, "/registry/secrets/a/") {
				t.Fatalf("%q shows %s", text, k)
			}
		}
		if !slices.IsSorted(keys(page)) {
			t.Fatalf("%q: %v", text, keys(page))
		}
	})
}

// FuzzSelectors lists by selectors: what is taken finds exactly the objects that it finds when each is looked at by itself,
// whole and page by page, and means the same when it is written out and read again.
func FuzzSelectors(f *testing.F) {
	d := filled(f)
	for _, s := range []string{"", "app=web", "app in (web,db),tier notin (back)", "!app", "app", "x>1,y<2", "app==web,app!=db", "a/b=c", ",", "app=web,,"} {
		for _, by := range []string{"", "metadata.name=one", "metadata.namespace!=a,type=Opaque", "type=example.com/x", `metadata.name=a\,b`, "type==a=b", "metadata.name=one,metadata.name=two", "nope=1"} {
			f.Add(s, by, uint8(1))
		}
	}
	whole, err := d.List(context.Background(), secretsIn(""), &metav1.ListOptions{})
	if err != nil || len(whole.Records) != 5 {
		f.Fatalf("%v %v", whole, err)
	}
	f.Fuzz(func(t *testing.T, byLabel, byField string, limit uint8) {
		opts := &metav1.ListOptions{LabelSelector: byLabel, FieldSelector: byField}
		for _, namespace := range []string{"", "a"} {
			c := secretsIn(namespace)
			page, err := d.List(context.Background(), c, opts)
			byHand, wrong := pick(c, whole, byLabel, byField)
			if (err == nil) != (wrong == nil) {
				t.Fatalf("%q %q: error %v, by hand %v", byLabel, byField, err, wrong)
			}
			if err != nil {
				return
			}
			if !slices.Equal(keys(page), byHand) {
				t.Fatalf("%q %q finds %v, by hand %v", byLabel, byField, keys(page), byHand)
			}
			if got := paged(t, d, c, opts, int64(limit%4)+1); !slices.Equal(got, byHand) {
				t.Fatalf("%q %q finds %v by pages, by hand %v", byLabel, byField, got, byHand)
			}
		}
		again := *opts
		if s, err := labels.Parse(byLabel); err == nil {
			again.LabelSelector = s.String()
		}
		if s, err := fields.ParseSelector(byField); err == nil {
			again.FieldSelector = s.String()
		}
		c := secretsIn("")
		page, _ := d.List(context.Background(), c, opts)
		written, err := d.List(context.Background(), c, &again)
		if err != nil || !slices.Equal(keys(page), keys(written)) {
			t.Fatalf("%q %q finds %v, written as %q %q %v %v", byLabel, byField, keys(page), again.LabelSelector, again.FieldSelector, written, err)
		}
	})
}

// pick selects by hand: each term of a field selector against the value of its field.
func pick(c *Call, from *Page, byLabel, byField string) ([]string, error) {
	ls, err := labels.Parse(byLabel)
	if err != nil {
		return nil, err
	}
	fs, err := fields.ParseSelector(byField)
	if err != nil {
		return nil, err
	}
	for _, r := range fs.Requirements() {
		if _, _, err := rowfields.Convert(c.Row.GVK(), r.Field, r.Value); err != nil {
			return nil, err
		}
	}
	out := []string{}
	for _, rec := range from.Records {
		o := ObjectOf(rec).(*corev1.Secret)
		fits := (c.Namespace == "" || o.Namespace == c.Namespace) && ls.Matches(labels.Set(o.Labels))
		for _, r := range fs.Requirements() {
			value := map[string]string{"metadata.name": o.Name, "metadata.namespace": o.Namespace, "type": string(o.Type)}[r.Field]
			if (value == r.Value) == (r.Operator == "!=") {
				fits = false
			}
		}
		if fits {
			out = append(out, rec.Key)
		}
	}
	return out, nil
}

func paged(t *testing.T, d *Door, c *Call, opts *metav1.ListOptions, limit int64) []string {
	t.Helper()
	o := *opts
	o.Limit = limit
	out := []string{}
	for {
		p, err := d.List(context.Background(), c, &o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, keys(p)...)
		if int64(len(p.Records)) > limit {
			t.Fatalf("a page of %d, %d were asked for", len(p.Records), limit)
		}
		if o.Continue = p.Continue; o.Continue == "" {
			return out
		}
	}
}
