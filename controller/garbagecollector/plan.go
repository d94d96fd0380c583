package garbagecollector

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ownerState is what was found out about one owner of an object.
type ownerState int

const (
	solid   ownerState = iota // it exists and stays
	absent                    // it does not exist, or another object has its name
	waiting                   // it exists, and is deleted as soon as its dependents are
)

// action is what to do with an object, given the states of its owners.
type action struct {
	// Owners, when Patch is set, are the references to keep.
	Patch  bool
	Owners []metav1.OwnerReference
	// Delete with that policy; empty means no delete.
	Delete metav1.DeletionPropagation
}

// plan decides about an object. states holds one entry per owner reference; dependents is what names the object as owner.
func plan(o metav1.Object, states []ownerState, dependents []*node) action {
	owners := o.GetOwnerReferences()
	if len(owners) == 0 {
		return action{}
	}
	var keep []metav1.OwnerReference
	waits := false
	for i, s := range states {
		if s == solid {
			keep = append(keep, owners[i])
		}
		waits = waits || s == waiting
	}
	if len(keep) > 0 {
		return action{Patch: len(keep) < len(owners), Owners: keep}
	}
	if o.GetDeletionTimestamp() != nil {
		return action{}
	}
	if waits && len(dependents) > 0 {
		a := action{Delete: metav1.DeletePropagationForeground}
		for _, d := range dependents {
			if d.foreground { // a circle: let the owner go first
				a.Patch, a.Owners = true, unblocked(owners)
				break
			}
		}
		return a
	}
	switch f := o.GetFinalizers(); {
	case slices.Contains(f, metav1.FinalizerOrphanDependents):
		return action{Delete: metav1.DeletePropagationOrphan}
	case slices.Contains(f, metav1.FinalizerDeleteDependents):
		return action{Delete: metav1.DeletePropagationForeground}
	}
	return action{Delete: metav1.DeletePropagationBackground}
}

func unblocked(owners []metav1.OwnerReference) []metav1.OwnerReference {
	out := slices.Clone(owners)
	for i := range out {
		if blocks(&out[i]) {
			out[i].BlockOwnerDeletion = new(bool)
		}
	}
	return out
}

// without returns the references of owners to others than uid.
func without(owners []metav1.OwnerReference, uid string) []metav1.OwnerReference {
	return slices.DeleteFunc(slices.Clone(owners), func(o metav1.OwnerReference) bool { return string(o.UID) == uid })
}
