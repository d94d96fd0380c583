// Package clusterrole fills aggregated ClusterRoles: the rules of one with an aggregationRule are the union of the rules of
// the roles it selects. It is run by package controller.
package clusterrole

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "clusterrole-aggregation-controller"

// plan returns the rules that role should have, each once, in the order of the roles' names.
func plan(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("selector of cluster role %s: %w", role.Name, err)
		}
		for _, r := range all {
			if r.Name == role.Name || !sel.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(x rbacv1.PolicyRule) bool { return apiequality.Semantic.DeepEqual(x, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	q := loop.NewQueue()
	roles := client.CacheOf[*rbacv1.ClusterRole](env.Caches)
	roles.Handle(func(_, _ *rbacv1.ClusterRole) {
		for _, r := range roles.List() {
			if r.AggregationRule != nil {
				q.Add(r.Name)
			}
		}
	})
	return &loop.Controller{Name: Name, Queue: q, Workers: 1, Sync: func(ctx context.Context, name string) error {
		role, ok := roles.Get("", name)
		if !ok || role.AggregationRule == nil {
			return nil
		}
		rules, err := plan(role, roles.List())
		if err != nil {
			return err
		}
		if apiequality.Semantic.DeepEqual(rules, role.Rules) {
			return nil
		}
		c := *role
		c.Rules = rules
		got, err := client.Of[*rbacv1.ClusterRole](env.T()).Update(ctx, &c)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("update cluster role %s: %w", name, err)
		}
		return loop.See(ctx, roles, got)
	}}
}
