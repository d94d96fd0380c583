package rest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/api/codec"
	"karve/api/convert"
	"karve/api/printcolumns"
	"karve/apiserver/resource"
)

func (x *exchange) metaKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "meta.k8s.io", Version: x.acc.AsVersion, Kind: kind}
}

// transform turns one object into the form the client asked for, nil when that form is for lists only.
func (x *exchange) transform(o resource.Object) (runtime.Object, schema.GroupVersionKind) {
	switch x.acc.As {
	case "PartialObjectMetadata":
		return x.partial(o), x.metaKind("PartialObjectMetadata")
	case "Table":
		if x.acc.MediaType == codec.Protobuf {
			return nil, schema.GroupVersionKind{}
		}
		t := x.table([]resource.Object{o})
		t.ResourceVersion = o.GetResourceVersion()
		return t, x.metaKind("Table")
	}
	return nil, schema.GroupVersionKind{}
}

func (x *exchange) transformList(p *resource.Page) (runtime.Object, error) {
	objs := make([]resource.Object, len(p.Records))
	for i, r := range p.Records {
		objs[i] = resource.ObjectOf(r)
	}
	switch {
	case x.acc.As == "PartialObjectMetadataList":
		l := &metav1.PartialObjectMetadataList{ListMeta: p.ListMeta(), Items: make([]metav1.PartialObjectMetadata, len(objs))}
		l.SetGroupVersionKind(x.metaKind("PartialObjectMetadataList"))
		for i, o := range objs {
			l.Items[i] = *x.partial(o)
		}
		return l, nil
	case x.acc.As == "Table" && x.acc.MediaType != codec.Protobuf:
		t := x.table(objs)
		t.ListMeta = p.ListMeta()
		t.SetGroupVersionKind(x.metaKind("Table"))
		return t, nil
	}
	if strings.HasPrefix(x.acc.As, "PartialObjectMetadata") {
		return nil, notAcceptable(fmt.Sprintf("you requested PartialObjectMetadata, but the requested object is a list (%s)", goName(x.row, "List")))
	}
	return nil, NotAcceptable(x.r, true)
}

// goName is what errors call the type of a resource.
func goName(row *api.Row, suffix string) string {
	return "*" + family(row.Hub().Group) + "." + row.Kind + suffix
}

func (x *exchange) partial(o resource.Object) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{ObjectMeta: metaOf(o)}
	p.SetGroupVersionKind(x.metaKind("PartialObjectMetadata"))
	return p
}

// metaOf copies out the metadata of any object.
func metaOf(o resource.Object) metav1.ObjectMeta {
	if a, ok := o.(metav1.ObjectMetaAccessor); ok {
		if m, ok := a.GetObjectMeta().(*metav1.ObjectMeta); ok {
			out := *m
			out.Annotations = withoutStandIn(o, out.Annotations)
			return out
		}
	}
	return metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace()}
}

// columns returns what a table of the answers of this request shows: a Scale is no object of the row's own.
func (x *exchange) columns(objs []resource.Object) *printcolumns.Columns {
	if x.sub != nil && x.sub.Kind != "" && len(objs) > 0 {
		return printcolumns.For(kindOf(objs[0]))
	}
	return printcolumns.For(x.row.Hub().GVK())
}

// table renders objects as rows of the kind's columns; what each row carries of its object is the client's choice.
func (x *exchange) table(objs []resource.Object) *metav1.Table {
	cols := x.columns(objs)
	t := &metav1.Table{ColumnDefinitions: cols.Defs, Rows: make([]metav1.TableRow, 0, len(objs))}
	now := time.Now()
	shown := func(o resource.Object) runtime.Object { return o }
	if !x.row.Stored.Empty() {
		shown = func(o resource.Object) runtime.Object { return convert.To(o, x.row.Stored) }
	}
	if cols.Compare != nil {
		objs = slices.SortedStableFunc(slices.Values(objs), func(a, b resource.Object) int { return cols.Compare(shown(a), shown(b)) })
	}
	include := metav1.IncludeObjectPolicy(x.r.URL.Query().Get("includeObject"))
	for _, o := range objs {
		row := metav1.TableRow{Cells: cols.Row(shown(o), now)}
		switch include {
		case metav1.IncludeNone:
		case metav1.IncludeObject:
			row.Object.Object = x.view(o)
		default:
			row.Object.Object = x.partial(o)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (x *exchange) checkInclude() error {
	switch v := metav1.IncludeObjectPolicy(x.r.URL.Query().Get("includeObject")); v {
	case metav1.IncludeNone, metav1.IncludeObject, metav1.IncludeMetadata, "":
		return nil
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("unrecognized includeObject value: %q", v))
	}
}
