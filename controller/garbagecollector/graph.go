package garbagecollector

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// ref is where an object is found.
type ref struct {
	resource        schema.GroupVersionResource
	namespace, name string
}

// node is all that is kept of an object. Nodes are replaced, never changed.
type node struct {
	ref
	uid    types.UID
	owners []metav1.OwnerReference
	// foreground: being deleted once its dependents are. orphaning: being deleted once they no longer name it.
	foreground, orphaning bool
}

func (n *node) owner(uid types.UID) *metav1.OwnerReference {
	for i := range n.owners {
		if n.owners[i].UID == uid {
			return &n.owners[i]
		}
	}
	return nil
}

// graph is who owns whom, by uid. An owner need not be in it: whoever names it is found all the same. Objects with neither
// owners nor dependents cost one map entry. Safe for concurrent use.
type graph struct {
	mu         sync.Mutex
	nodes      map[types.UID]*node
	dependents map[types.UID]map[types.UID]bool // owner → who names it
}

func newGraph() *graph {
	return &graph{nodes: map[types.UID]*node{}, dependents: map[types.UID]map[types.UID]bool{}}
}

func fromObject(r schema.GroupVersionResource, o metav1.Object) *node {
	n := &node{ref: ref{r, o.GetNamespace(), o.GetName()}, uid: o.GetUID()}
	if list := o.GetOwnerReferences(); len(list) > 0 {
		n.owners = slices.Clone(list)
	}
	if o.GetDeletionTimestamp() != nil {
		n.foreground = slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
		n.orphaning = slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	}
	return n
}

// put records n and returns the uids to look at: n itself if it may have lost an owner or waits for dependents, and what
// must react to its change.
func (g *graph) put(n *node) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.nodes[n.uid]
	if old != nil {
		g.unlink(old)
	}
	g.nodes[n.uid] = n
	for _, o := range n.owners {
		if g.dependents[o.UID] == nil {
			g.dependents[o.UID] = map[types.UID]bool{}
		}
		g.dependents[o.UID][n.uid] = true
	}
	if n.foreground || n.orphaning {
		look = append(look, n.uid)
	}
	if n.foreground && (old == nil || !old.foreground) {
		for d := range g.dependents[n.uid] {
			look = append(look, d)
		}
	}
	owners := n.owners
	if old != nil && slices.EqualFunc(old.owners, n.owners, sameRef) {
		owners = nil
	} else if old != nil { // an owner that waits for this dependent may be free now
		for _, o := range old.owners {
			if p := g.nodes[o.UID]; p != nil && (p.foreground || p.orphaning) {
				look = append(look, o.UID)
			}
		}
	}
	for _, o := range owners {
		if p := g.nodes[o.UID]; p == nil || p.foreground || p.orphaning || !matches(p, &o, n.namespace) {
			look = append(look, n.uid)
			if p != nil && (p.foreground || p.orphaning) {
				look = append(look, o.UID)
			}
		}
	}
	return look
}

// drop forgets uid and returns the uids to look at: its dependents, and owners that waited for it.
func (g *graph) drop(uid types.UID) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	delete(g.nodes, uid)
	g.unlink(n)
	for d := range g.dependents[uid] {
		look = append(look, d)
	}
	for _, o := range n.owners {
		if p := g.nodes[o.UID]; p != nil && p.foreground {
			look = append(look, o.UID)
		}
	}
	return look
}

func (g *graph) unlink(n *node) {
	for _, o := range n.owners {
		delete(g.dependents[o.UID], n.uid)
		if len(g.dependents[o.UID]) == 0 {
			delete(g.dependents, o.UID)
		}
	}
}

func sameRef(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && blocks(&a) == blocks(&b)
}

func blocks(r *metav1.OwnerReference) bool {
	return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
}

// matches reports whether p is what a dependent in namespace may own by o: the named object, of its own namespace or of none.
func matches(p *node, o *metav1.OwnerReference, namespace string) bool {
	return p.name == o.Name && (p.namespace == "" || p.namespace == namespace)
}

func (g *graph) get(uid types.UID) *node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[uid]
}

// ownedBy returns the nodes that name uid as owner.
func (g *graph) ownedBy(uid types.UID) (out []*node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for d := range g.dependents[uid] {
		if n := g.nodes[d]; n != nil {
			out = append(out, n)
		}
	}
	return out
}

// of lists the uids of a resource.
func (g *graph) of(r schema.GroupVersionResource) (out []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for uid, n := range g.nodes {
		if n.resource == r {
			out = append(out, uid)
		}
	}
	return out
}
