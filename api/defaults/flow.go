package defaults

import (
	flowv1 "k8s.io/api/flowcontrol/v1"
)

func addFlow(t table) {
	const g = "flowcontrol.apiserver.k8s.io"
	set(t, g, "v1", "FlowSchema", func(o *flowv1.FlowSchema) { zero(&o.Spec.MatchingPrecedence, 1000) })
	set(t, g, "v1", "PriorityLevelConfiguration", func(o *flowv1.PriorityLevelConfiguration) {
		if e := o.Spec.Exempt; e != nil {
			unset(&e.NominalConcurrencyShares, int32(0))
			unset(&e.LendablePercent, int32(0))
		}
		if l := o.Spec.Limited; l != nil {
			unset(&l.NominalConcurrencyShares, int32(30))
			unset(&l.LendablePercent, int32(0))
			if q := l.LimitResponse.Queuing; q != nil {
				zero(&q.Queues, 64)
				zero(&q.HandSize, 8)
				zero(&q.QueueLengthLimit, 50)
			}
		}
	})
}
