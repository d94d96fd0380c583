package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/fields"

	"karve/apiserver/authn"
	"karve/client"
)

const (
	nodeUserPrefix  = "system:node:"
	leaseNamespace  = "kube-node-lease"
	podsByNode      = "spec.nodeName"
	mirrorPodMarker = "kubernetes.io/config.mirror"
)

// NodeName returns the name of the node a user is, and whether it is one.
func NodeName(u *authn.User) (string, bool) {
	if u == nil || !strings.HasPrefix(u.Name, nodeUserPrefix) || !u.InGroup(authn.GroupNodes) {
		return "", false
	}
	return u.Name[len(nodeUserPrefix):], true
}

// Node allows nodes what they need for the pods bound to them, and no more: the Secrets, ConfigMaps, claims, volumes and
// service accounts those refer to, and the objects that describe the node itself. It keeps no graph: a question is
// answered by looking at the node's pods, of which there are few.
type Node struct {
	pods        *client.Cache[*corev1.Pod]
	claims      *client.Cache[*corev1.PersistentVolumeClaim]
	volumes     *client.Cache[*corev1.PersistentVolume]
	attachments *client.Cache[*storagev1.VolumeAttachment]
	slices      *client.Cache[*resourcev1.ResourceSlice]
	rules       []rbacv1.PolicyRule
}

// NewNode returns an authorizer over the shared caches. Call it before they run.
func NewNode(c *client.Caches) *Node {
	n := &Node{pods: client.CacheOf[*corev1.Pod](c), claims: client.CacheOf[*corev1.PersistentVolumeClaim](c),
		volumes: client.CacheOf[*corev1.PersistentVolume](c), attachments: client.CacheOf[*storagev1.VolumeAttachment](c),
		slices: client.CacheOf[*resourcev1.ResourceSlice](c)}
	n.pods.Index(podsByNode, func(p *corev1.Pod) []string {
		if p.Spec.NodeName == "" {
			return nil
		}
		return []string{p.Spec.NodeName}
	})
	for i := range clusterRoleRows {
		if clusterRoleRows[i].name == "system:node" {
			n.rules = parseRules(clusterRoleRows[i].rules)
		}
	}
	return n
}

// Authorize implements Authorizer.
func (n *Node) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	node, ok := NodeName(a.User)
	if !ok {
		return NoOpinion, "", nil
	}
	if node == "" {
		return NoOpinion, fmt.Sprintf("unknown node for user %q", a.User.Name), nil
	}
	if a.ResourceRequest {
		if fn := nodeResources[a.Group+"/"+a.Resource]; fn != nil {
			if ok, reason := fn(n, node, a); !ok {
				return NoOpinion, reason, nil
			}
			return Allow, "", nil
		}
	}
	if rulesAllow(n.rules, a) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// nodeResources holds the resources of which a node gets only a part. The functions return whether to
// allow a request, or why not; the general rules are not asked as well.
var nodeResources = map[string]func(n *Node, node string, a *Attributes) (bool, string){
	"/secrets":                       func(n *Node, node string, a *Attributes) (bool, string) { return n.read(node, a, n.usesSecret) },
	"/configmaps":                    func(n *Node, node string, a *Attributes) (bool, string) { return n.read(node, a, n.usesConfigMap) },
	"/persistentvolumeclaims":        (*Node).claim,
	"/persistentvolumes":             func(n *Node, node string, a *Attributes) (bool, string) { return n.get(node, a, n.usesVolume) },
	"/serviceaccounts":               (*Node).serviceAccount,
	"/nodes":                         (*Node).node,
	"/pods":                          (*Node).pod,
	"coordination.k8s.io/leases":     (*Node).lease,
	"storage.k8s.io/csinodes":        (*Node).csiNode,
	"resource.k8s.io/resourceclaims": func(n *Node, node string, a *Attributes) (bool, string) { return n.get(node, a, n.usesResourceClaim) },
	"resource.k8s.io/resourceslices": (*Node).resourceSlice,
	"storage.k8s.io/volumeattachments": func(n *Node, node string, a *Attributes) (bool, string) {
		return n.get(node, a, func(node, _, name string) bool {
			va, ok := n.attachments.Get("", name)
			return ok && va.Spec.NodeName == node
		})
	},
}

type uses func(node, namespace, name string) bool

func related(node string, a *Attributes, has uses) (bool, string) {
	if a.Name == "" {
		return false, "No Object name found"
	}
	if !has(node, a.Namespace, a.Name) {
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func (n *Node) read(node string, a *Attributes, has uses) (bool, string) {
	switch {
	case a.Verb != "get" && a.Verb != "list" && a.Verb != "watch":
		return false, "can only read resources of this type"
	case a.Subresource != "":
		return false, "cannot read subresource"
	case a.Namespace == "":
		return false, "can only read namespaced object of this type"
	}
	return related(node, a, has)
}

func (n *Node) get(node string, a *Attributes, has uses) (bool, string) {
	switch {
	case a.Verb != "get":
		return false, "can only get individual resources of this type"
	case a.Subresource != "":
		return false, "cannot get subresource"
	}
	return related(node, a, has)
}

func (n *Node) claim(node string, a *Attributes) (bool, string) {
	if a.Subresource != "status" {
		return n.get(node, a, n.usesClaim)
	}
	if a.Verb != "get" && a.Verb != "update" && a.Verb != "patch" {
		return false, "can only get/update/patch this type"
	}
	return related(node, a, n.usesClaim)
}

func (n *Node) serviceAccount(node string, a *Attributes) (bool, string) {
	switch {
	case a.Subresource == "":
		return n.get(node, a, n.usesServiceAccount)
	case a.Subresource != "token":
		return false, "can only create token subresource of serviceaccount"
	case a.Verb != "create" || a.Name == "":
		return false, "can only create tokens for individual service accounts"
	}
	return related(node, a, n.usesServiceAccount)
}

// node: which node may be written, admission decides (NodeRestriction); reading is limited to the node's own here.
func (n *Node) node(node string, a *Attributes) (bool, string) {
	switch {
	case a.Subresource == "status" && (a.Verb == "update" || a.Verb == "patch"),
		a.Subresource == "" && (a.Verb == "create" || a.Verb == "update" || a.Verb == "patch"):
		return true, ""
	case a.Verb == "get" || a.Verb == "list" || a.Verb == "watch":
		if a.Subresource != "" && a.Subresource != "status" {
			return false, fmt.Sprintf("node '%s' cannot read subresource '%s' of nodes", node, a.Subresource)
		}
		if a.Name == node || a.Name == "" && a.Verb != "get" && selects(a.FieldSelector, "metadata.name", node) {
			return true, ""
		}
		if a.Name == "" {
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.Name)
	}
	return n.general(a)
}

func (n *Node) pod(node string, a *Attributes) (bool, string) {
	if a.Subresource != "" {
		return n.general(a)
	}
	switch a.Verb {
	case "get":
		return related(node, a, func(node, ns, name string) bool {
			p, ok := n.pods.Get(ns, name)
			return ok && p.Spec.NodeName == node
		})
	case "list", "watch":
		if selects(a.FieldSelector, "spec.nodeName", node) {
			return true, ""
		}
		if a.Name != "" {
			return n.pod(node, &Attributes{User: a.User, Verb: "get", Namespace: a.Namespace, Name: a.Name, Resource: a.Resource, ResourceRequest: true})
		}
		return false, "can only list/watch pods with spec.nodeName field selector"
	}
	return n.general(a)
}

func (n *Node) lease(node string, a *Attributes) (bool, string) {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, a.Verb):
		return false, "can only get, create, update, patch, or delete a node lease"
	case a.Namespace != leaseNamespace:
		return false, fmt.Sprintf("can only access leases in the %q system namespace", leaseNamespace)
	case a.Subresource != "":
		return false, "cannot access subresources of node leases"
	case a.Verb != "create" && a.Name != node: // the body of a create is admission's to check
		return false, "can only access node lease with the same name as the requesting node"
	}
	return true, ""
}

func (n *Node) csiNode(node string, a *Attributes) (bool, string) {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, a.Verb):
		return false, "can only get, create, update, patch, or delete a CSINode"
	case a.Subresource != "":
		return false, "cannot authorize CSINode subresources"
	case a.Verb != "create" && a.Name != node:
		return false, "can only access CSINode with the same name as the requesting node"
	}
	return true, ""
}

func (n *Node) resourceSlice(node string, a *Attributes) (bool, string) {
	if a.Subresource != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch a.Verb {
	case "create": // whose slice it is, admission checks
		return true, ""
	case "get", "update", "patch", "delete":
		return related(node, a, func(node, _, name string) bool {
			s, ok := n.slices.Get("", name)
			return ok && s.Spec.NodeName != nil && *s.Spec.NodeName == node
		})
	case "list", "watch", "deletecollection":
		if selects(a.FieldSelector, "spec.nodeName", node) {
			return true, ""
		}
		return false, "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: create, get, update, patch, delete, list, watch, deletecollection"
}

// general applies the role system:node. Its refusals have no reason of their own.
func (n *Node) general(a *Attributes) (bool, string) {
	if rulesAllow(n.rules, a) {
		return true, ""
	}
	return false, ""
}

// selects reports whether a field selector admits nothing but field=value.
func selects(selector, field, value string) bool {
	if selector == "" {
		return false
	}
	s, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	v, exact := s.RequiresExactMatch(field)
	return exact && v == value
}
