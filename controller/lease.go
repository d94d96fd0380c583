package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

// The lease of the election, and its times: a leader renews every leaseRetry and stops after leaseDeadline without success,
// before others may take over after leaseDuration.
const (
	leaseNamespace = metav1.NamespaceSystem
	leaseName      = "karve-controllers"
	leaseDuration  = 15 * time.Second
	leaseDeadline  = 10 * time.Second
	leaseRetry     = 2 * time.Second
)

type election struct {
	t        client.Transport
	log      *slog.Logger
	identity string
	lease    string // its name
	now      func() time.Time

	// seen is the last lease read and when it was seen to change, by this process's clock: clocks of others do not matter.
	seen    string
	changed time.Time
}

// claim returns the lease to write so that identity holds it, or nil when another holds it and was seen alive less than
// its duration ago. have is nil when there is none.
func claim(name string, have *coordv1.Lease, identity string, seenChange, now time.Time) *coordv1.Lease {
	seconds := int32(leaseDuration / time.Second)
	stamp := metav1.NewMicroTime(now)
	if have == nil {
		return &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: name},
			Spec: coordv1.LeaseSpec{HolderIdentity: &identity, LeaseDurationSeconds: &seconds, AcquireTime: &stamp, RenewTime: &stamp, LeaseTransitions: new(int32)}}
	}
	want := have.DeepCopy()
	holder := ""
	if have.Spec.HolderIdentity != nil {
		holder = *have.Spec.HolderIdentity
	}
	if holder != identity {
		valid := leaseDuration
		if s := have.Spec.LeaseDurationSeconds; s != nil {
			valid = time.Duration(*s) * time.Second
		}
		if holder != "" && now.Before(seenChange.Add(valid)) {
			return nil
		}
		n := int32(1)
		if have.Spec.LeaseTransitions != nil {
			n += *have.Spec.LeaseTransitions
		}
		want.Spec.LeaseTransitions, want.Spec.AcquireTime = &n, &stamp
	}
	want.Spec.HolderIdentity, want.Spec.LeaseDurationSeconds, want.Spec.RenewTime = &identity, &seconds, &stamp
	return want
}

// try reads the lease and claims or renews it if it may.
func (e *election) try(ctx context.Context) (bool, error) {
	res := client.Of[*coordv1.Lease](e.t)
	have, err := res.Get(ctx, leaseNamespace, e.lease)
	if apierrors.IsNotFound(err) {
		_, err = res.Create(ctx, claim(e.lease, nil, e.identity, time.Time{}, e.now()))
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if have.ResourceVersion != e.seen {
		e.seen, e.changed = have.ResourceVersion, e.now()
	}
	want := claim(e.lease, have, e.identity, e.changed, e.now())
	if want == nil {
		return false, nil
	}
	_, err = res.Update(ctx, want) // a conflict means that someone else was faster
	return err == nil, err
}

// Lead runs fn while this process, known as identity, holds a lease of kube-system, which of all processes that ask for it one
// does. It returns when ctx ends, when fn does, or with an error when the lease is lost, which has ended fn's context then.
func Lead(ctx context.Context, t client.Transport, log *slog.Logger, lease, identity string, fn func(context.Context) error) error {
	e := election{t: t, log: log, identity: identity, lease: lease, now: time.Now}
	return e.lead(ctx, fn)
}

// lead waits to become leader, runs fn, and stops it when the lease is lost.
func (e *election) lead(ctx context.Context, fn func(context.Context) error) error {
	for {
		ok, err := e.try(ctx)
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			e.log.Warn("election attempt failed, will retry", "lease", leaseNamespace+"/"+e.lease, "err", err)
		}
		if ok {
			break
		}
		if !sleep(ctx, leaseRetry) {
			return nil
		}
	}
	e.log.Info("became leader", "lease", leaseNamespace+"/"+e.lease, "identity", e.identity)
	inner, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- fn(inner) }()
	lost := e.renew(inner)
	cancel()
	err := <-done
	e.release(context.WithoutCancel(ctx))
	if lost && ctx.Err() == nil {
		return fmt.Errorf("lost the lease %s/%s", leaseNamespace, e.lease)
	}
	return err
}

// renew keeps the lease until ctx ends (false) or the deadline passes without success (true).
func (e *election) renew(ctx context.Context) (lost bool) {
	last := e.now()
	for sleep(ctx, leaseRetry) {
		attempt, cancel := context.WithTimeout(ctx, leaseDeadline)
		ok, err := e.try(attempt)
		cancel()
		switch {
		case ok:
			last = e.now()
		case ctx.Err() != nil:
			return false
		case err == nil || e.now().Sub(last) > leaseDeadline:
			return true
		}
	}
	return false
}

// release gives the lease up at a clean stop, so that the next leader need not wait for it to run out.
// ctx has to outlive the one whose end stopped the leader.
func (e *election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaseRetry)
	defer cancel()
	res := client.Of[*coordv1.Lease](e.t)
	have, err := res.Get(ctx, leaseNamespace, e.lease)
	if err != nil || have.Spec.HolderIdentity == nil || *have.Spec.HolderIdentity != e.identity {
		return
	}
	c := have.DeepCopy()
	c.Spec.HolderIdentity = nil
	if _, err := res.Update(ctx, c); err != nil {
		e.log.Warn("lease not released", "err", err)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
