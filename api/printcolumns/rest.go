package printcolumns

import (
	"cmp"
	"fmt"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	flowv1 "k8s.io/api/flowcontrol/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	apiregv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func addRest(t table) {
	addFlow(t)
	addDevices(t)
	add(t, "coordination.k8s.io", "v1", "Lease", func(o *coordv1.Lease, now time.Time) []any {
		holder := ""
		if o.Spec.HolderIdentity != nil {
			holder = *o.Spec.HolderIdentity
		}
		return []any{o.Name, holder, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Holder", doc(coordv1.LeaseSpec{}, "holderIdentity")), ageColumn()}
	})
	add(t, "node.k8s.io", "v1", "RuntimeClass", func(o *nodev1.RuntimeClass, now time.Time) []any {
		return []any{o.Name, o.Handler, age(o.CreationTimestamp, now)}
	}, func() columns { return columns{nameColumn(), text("Handler", ""), ageColumn()} })
	add(t, "scheduling.k8s.io", "v1", "PriorityClass", func(o *schedv1.PriorityClass, now time.Time) []any {
		preemption := string(corev1.PreemptLowerPriority)
		if o.PreemptionPolicy != nil {
			preemption = string(*o.PreemptionPolicy)
		}
		return []any{o.Name, int64(o.Value), o.GlobalDefault, age(o.CreationTimestamp, now), preemption}
	}, func() columns {
		s := schedv1.PriorityClass{}
		return columns{nameColumn(), number("Value", doc(s, "value")), boolean("Global-Default", doc(s, "globalDefault")), ageColumn(), text("PreemptionPolicy", doc(s, "preemptionPolicy"))}
	})
	add(t, "apiregistration.k8s.io", "v1", "APIService", func(o *apiregv1.APIService, now time.Time) []any {
		service := "Local"
		if s := o.Spec.Service; s != nil {
			service = s.Namespace + "/" + s.Name
		}
		available := "Unknown"
		for _, c := range o.Status.Conditions {
			if c.Type == apiregv1.Available {
				available = string(c.Status)
				if c.Status != apiregv1.ConditionTrue {
					available = fmt.Sprintf("%s (%s)", c.Status, c.Reason)
				}
			}
		}
		return []any{o.Name, service, available, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Service", "The reference to the service that hosts this API endpoint."), text("Available", "Whether this service is available."), ageColumn()}
	})
	add(t, "certificates.k8s.io", "v1", "CertificateSigningRequest", csrRow, func() columns {
		return columns{nameColumn(), ageColumn(), text("SignerName", signerDoc), text("Requestor", "Base64-encoded PKCS#10 CSR data"),
			text("RequestedDuration", doc(certv1.CertificateSigningRequestSpec{}, "expirationSeconds")), text("Condition", "Conditions applied to the request, such as approval or denial.")}
	})
}

// signerDoc is the one description that no served type carries: it is the field's of a version no longer served.
const signerDoc = "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n" +
	" 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n" +
	" 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n" +
	" 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\n" +
	"Distribution of trust for signers happens out of band. You can select on this field using `spec.signerName`."

func csrRow(o *certv1.CertificateSigningRequest, now time.Time) []any {
	var approved, denied, failed bool
	for _, c := range o.Status.Conditions {
		approved = approved || c.Type == certv1.CertificateApproved
		denied = denied || c.Type == certv1.CertificateDenied
		failed = failed || c.Type == certv1.CertificateFailed
	}
	status := "Pending"
	if denied {
		status = "Denied"
	} else if approved {
		status = "Approved"
	}
	if failed {
		status += ",Failed"
	}
	if len(o.Status.Certificate) > 0 {
		status += ",Issued"
	}
	lifetime := "<none>"
	if s := o.Spec.ExpirationSeconds; s != nil {
		lifetime = duration.HumanDuration(time.Duration(*s) * time.Second)
	}
	return []any{o.Name, age(o.CreationTimestamp, now), orNone(o.Spec.SignerName), o.Spec.Username, lifetime, status}
}

func addFlow(t table) {
	const g = "flowcontrol.apiserver.k8s.io"
	add(t, g, "v1", "FlowSchema", func(o *flowv1.FlowSchema, now time.Time) []any {
		method, dangling := "<none>", "?"
		if o.Spec.DistinguisherMethod != nil {
			method = string(o.Spec.DistinguisherMethod.Type)
		}
		for _, c := range o.Status.Conditions {
			if c.Type == flowv1.FlowSchemaConditionDangling {
				dangling = string(c.Status)
			}
		}
		return []any{o.Name, o.Spec.PriorityLevelConfiguration.Name, int64(o.Spec.MatchingPrecedence), method, age(o.CreationTimestamp, now), dangling}
	}, func() columns {
		s := flowv1.FlowSchemaSpec{}
		return columns{nameColumn(), text("PriorityLevel", doc(flowv1.PriorityLevelConfigurationReference{}, "name")), text("MatchingPrecedence", doc(s, "matchingPrecedence")),
			text("DistinguisherMethod", doc(s, "distinguisherMethod")), ageColumn(), text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration")}
	})
	// as they are tried
	inOrder(t, g, "v1", "FlowSchema", func(a, b *flowv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	add(t, g, "v1", "PriorityLevelConfiguration", func(o *flowv1.PriorityLevelConfiguration, now time.Time) []any {
		var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
		if o.Spec.Type == flowv1.PriorityLevelEnablementExempt {
			if e := o.Spec.Exempt; e != nil && e.NominalConcurrencyShares != nil {
				shares = *e.NominalConcurrencyShares
			}
		}
		if l := o.Spec.Limited; l != nil {
			shares = deref(l.NominalConcurrencyShares)
			if q := l.LimitResponse.Queuing; q != nil {
				queues, hand, length = q.Queues, q.HandSize, q.QueueLengthLimit
			}
		}
		return []any{o.Name, string(o.Spec.Type), shares, queues, hand, length, age(o.CreationTimestamp, now)}
	}, func() columns {
		q := flowv1.QueuingConfiguration{}
		return columns{nameColumn(), text("Type", doc(flowv1.PriorityLevelConfigurationSpec{}, "type")), text("NominalConcurrencyShares", doc(flowv1.LimitedPriorityLevelConfiguration{}, "nominalConcurrencyShares")),
			text("Queues", doc(q, "queues")), text("HandSize", doc(q, "handSize")), text("QueueLengthLimit", doc(q, "queueLengthLimit")), ageColumn()}
	})
}

func addDevices(t table) {
	const g = "resource.k8s.io"
	nameAndAge := func() columns { return columns{nameColumn(), ageColumn()} }
	add(t, g, "v1", "DeviceClass", func(o *resourcev1.DeviceClass, now time.Time) []any {
		return []any{o.Name, age(o.CreationTimestamp, now)}
	}, nameAndAge)
	add(t, g, "v1", "ResourceClaimTemplate", func(o *resourcev1.ResourceClaimTemplate, now time.Time) []any {
		return []any{o.Name, age(o.CreationTimestamp, now)}
	}, nameAndAge)
	add(t, g, "v1", "ResourceClaim", func(o *resourcev1.ResourceClaim, now time.Time) []any {
		state := "pending"
		if o.DeletionTimestamp != nil {
			state = "deleted"
		}
		if o.Status.Allocation != nil {
			if o.DeletionTimestamp == nil {
				state = "allocated"
			} else {
				state += ",allocated"
			}
			if len(o.Status.ReservedFor) > 0 {
				state += ",reserved"
			}
		}
		return []any{o.Name, state, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("State", "A summary of the current state (allocated, pending, reserved, etc.)."), ageColumn()}
	})
	add(t, g, "v1", "ResourceSlice", func(o *resourcev1.ResourceSlice, now time.Time) []any {
		node := ""
		if o.Spec.NodeName != nil {
			node = *o.Spec.NodeName
		}
		return []any{o.Name, node, o.Spec.Driver, o.Spec.Pool.Name, age(o.CreationTimestamp, now)}
	}, func() columns {
		s := resourcev1.ResourceSliceSpec{}
		return columns{nameColumn(), text("Node", doc(s, "nodeName")), text("Driver", doc(s, "driver")), text("Pool", doc(resourcev1.ResourcePool{}, "name")), ageColumn()}
	})
}
