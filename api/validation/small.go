package validation

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	nodev1 "k8s.io/api/node/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func addSmall(t table) {
	rule(t, "coordination.k8s.io", "v1", "Lease", true, subdomain, lease, nil)
	rule(t, "node.k8s.io", "v1", "RuntimeClass", false, subdomain, runtimeClass, func(o, old *nodev1.RuntimeClass) errors {
		return immutable(field.NewPath("handler"), o.Handler, old.Handler)
	})
	rule(t, "scheduling.k8s.io", "v1", "PriorityClass", false, subdomain, priorityClass, nil, ownUpdate(func(o, old *schedv1.PriorityClass) errors {
		var errs errors
		if o.Value != old.Value {
			errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
		}
		return append(errs, immutable(field.NewPath("preemptionPolicy"), o.PreemptionPolicy, old.PreemptionPolicy)...)
	}))
	rule(t, "certificates.k8s.io", "v1", "CertificateSigningRequest", false, anyName, csr, nil,
		onSub("status", csrStatus), onSub("approval", csrApproval))
	rule(t, "apiregistration.k8s.io", "v1", "APIService", false, segment, apiService, nil, foreign)
}

func lease(o *coordv1.Lease) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if n := s.LeaseDurationSeconds; n != nil && *n <= 0 {
		errs = append(errs, field.Invalid(p.Child("leaseDurationSeconds"), *n, "must be greater than 0"))
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(p.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	return errs
}

func runtimeClass(o *nodev1.RuntimeClass) errors {
	var errs errors
	if o.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, dnsLabel(field.NewPath("handler"), o.Handler)...)
	}
	if o.Overhead != nil {
		errs = append(errs, requirements(o.Overhead.PodFixed, nil, containerResourceName, field.NewPath("overhead", "podFixed"))...)
	}
	if o.Scheduling != nil {
		p := field.NewPath("scheduling")
		errs = append(errs, labels(p.Child("nodeSelector"), o.Scheduling.NodeSelector)...)
		errs = append(errs, tolerations(o.Scheduling.Tolerations, p.Child("tolerations"))...)
		for i, t := range o.Scheduling.Tolerations {
			for j := range i {
				if equality.Semantic.DeepEqual(o.Scheduling.Tolerations[j], t) {
					errs = append(errs, field.Duplicate(p.Child("tolerations").Index(i), t))
					break
				}
			}
		}
	}
	return errs
}

const maxUserPriority = 1000000000

func priorityClass(o *schedv1.PriorityClass) errors {
	var errs errors
	if strings.HasPrefix(o.Name, "system-") {
		known := map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
		if v, ok := known[o.Name]; !ok || v != o.Value {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with 'system-' prefix are reserved for system use only. error: "+o.Name+" is not a known system priority class"))
		}
	} else if o.Value > maxUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", maxUserPriority)))
	}
	if p := o.PreemptionPolicy; p != nil {
		errs = append(errs, preemption(*p, field.NewPath("preemptionPolicy"))...)
	}
	return errs
}

func preemption(v corev1.PreemptionPolicy, p *field.Path) errors {
	return oneOfRequired(p, v, corev1.PreemptLowerPriority, corev1.PreemptNever)
}

var keyUsages = []certv1.KeyUsage{certv1.UsageAny, certv1.UsageCertSign, certv1.UsageClientAuth, certv1.UsageCodeSigning, certv1.UsageContentCommitment, certv1.UsageCRLSign,
	certv1.UsageDataEncipherment, certv1.UsageDecipherOnly, certv1.UsageDigitalSignature, certv1.UsageEmailProtection, certv1.UsageEncipherOnly, certv1.UsageIPsecEndSystem,
	certv1.UsageIPsecTunnel, certv1.UsageIPsecUser, certv1.UsageKeyAgreement, certv1.UsageKeyEncipherment, certv1.UsageMicrosoftSGC, certv1.UsageNetscapeSGC, certv1.UsageOCSPSigning,
	certv1.UsageSMIME, certv1.UsageServerAuth, certv1.UsageSigning, certv1.UsageTimestamping}

func csr(o *certv1.CertificateSigningRequest) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if err := parseRequest(s.Request); err != nil {
		errs = append(errs, field.Invalid(p.Child("request"), s.Request, err.Error()))
	}
	if len(s.Usages) == 0 {
		errs = append(errs, field.Required(p.Child("usages"), ""))
	}
	seen := sets.New[certv1.KeyUsage]()
	for i, u := range s.Usages {
		at := p.Child("usages").Index(i)
		errs = append(errs, oneOf(at, u, keyUsages...)...)
		if seen.Has(u) {
			errs = append(errs, field.Duplicate(at, u))
		}
		seen.Insert(u)
	}
	errs = append(errs, signerName(s.SignerName, p.Child("signerName"))...)
	if n := s.ExpirationSeconds; n != nil && *n < 600 {
		errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *n, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

// csrStatus judges a write of the status: the certificate may be set once, and the decision is not the writer's.
func csrStatus(o, old *certv1.CertificateSigningRequest) errors {
	errs := append(csr(o), csrConditions(o, old)...)
	conditions := field.NewPath("status", "conditions")
	for _, t := range []certv1.RequestConditionType{certv1.CertificateApproved, certv1.CertificateDenied} {
		if countConditions(o, t) > countConditions(old, t) {
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not add a condition of type %q", t)))
		}
	}
	if bytes.Equal(o.Status.Certificate, old.Status.Certificate) {
		return errs
	}
	p := field.NewPath("status", "certificate")
	if len(old.Status.Certificate) > 0 {
		errs = append(errs, field.Forbidden(p, "updates may not modify existing certificate content"))
	}
	if len(o.Status.Certificate) > 0 {
		if err := parseCertificates(o.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(p, "<certificate data>", err.Error()))
		}
	}
	return errs
}

// csrApproval judges a decision on a request.
func csrApproval(o, old *certv1.CertificateSigningRequest) errors {
	errs := append(csr(o), csrConditions(o, old)...)
	if !bytes.Equal(o.Status.Certificate, old.Status.Certificate) {
		errs = append(errs, field.Forbidden(field.NewPath("status", "certificate"), "updates may not set certificate content"))
	}
	return errs
}

func countConditions(o *certv1.CertificateSigningRequest, t certv1.RequestConditionType) int {
	n := 0
	for _, c := range o.Status.Conditions {
		if c.Type == t {
			n++
		}
	}
	return n
}

// csrConditions checks the conditions themselves, and that no verdict is taken back.
func csrConditions(o, old *certv1.CertificateSigningRequest) errors {
	var errs errors
	p := field.NewPath("status", "conditions")
	verdicts := []certv1.RequestConditionType{certv1.CertificateApproved, certv1.CertificateDenied, certv1.CertificateFailed}
	seen := sets.New[certv1.RequestConditionType]()
	for i, c := range o.Status.Conditions {
		at := p.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(at.Child("type"), ""))
		}
		if slices.Contains(verdicts, c.Type) {
			errs = append(errs, oneOfRequired(at.Child("status"), c.Status, corev1.ConditionTrue)...)
		} else {
			errs = append(errs, oneOfRequired(at.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
		if seen.Has(c.Type) {
			errs = append(errs, field.Duplicate(at.Child("type"), c.Type))
		}
		if c.Type == certv1.CertificateApproved && seen.Has(certv1.CertificateDenied) || c.Type == certv1.CertificateDenied && seen.Has(certv1.CertificateApproved) {
			errs = append(errs, field.Invalid(p, c.Type, "Approved and Denied conditions are mutually exclusive"))
		}
		seen.Insert(c.Type)
	}
	for _, t := range verdicts {
		if countConditions(o, t) < countConditions(old, t) {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		}
	}
	return errs
}

// parseCertificates says why what a signer hands out is no list of certificates.
func parseCertificates(b []byte) error {
	blocks := 0
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		blocks++
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return fmt.Errorf("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		switch {
		case err != nil:
			return err
		case len(certs) == 0:
			return fmt.Errorf("found CERTIFICATE PEM block containing 0 certificates")
		case len(certs) > 1:
			return fmt.Errorf("found CERTIFICATE PEM block containing more than 1 certificate")
		}
	}
	if blocks == 0 {
		return fmt.Errorf("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

func parseRequest(b []byte) error {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return fmt.Errorf("PEM block type must be CERTIFICATE REQUEST")
	}
	_, err := x509.ParseCertificateRequest(block.Bytes)
	return err
}

func signerName(s string, p *field.Path) errors {
	if s == "" {
		return errors{field.Required(p, "")}
	}
	domain, path, ok := strings.Cut(s, "/")
	if !ok || strings.Contains(path, "/") {
		return errors{field.Invalid(p, s, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs errors
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		errs = append(errs, field.Invalid(p, s, "should be a domain with at least two segments separated by dots"))
	}
	for _, l := range labels {
		for _, m := range validation.IsDNS1123Label(l) {
			errs = append(errs, field.Invalid(p, s, fmt.Sprintf("validating label %q: %s", l, m)))
		}
	}
	for _, l := range strings.Split(path, ".") {
		for _, m := range validation.IsDNS1123Subdomain(l) {
			errs = append(errs, field.Invalid(p, s, fmt.Sprintf("validating label %q: %s", l, m)))
		}
	}
	return errs
}

func apiService(o *apiregv1.APIService) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if want := s.Version + "." + s.Group; o.Name != "" && o.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), o.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)))
	}
	if s.Group == "" {
		if s.Version != "v1" {
			errs = append(errs, field.Required(p.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
		}
	} else {
		errs = append(errs, dnsSubdomain(p.Child("group"), s.Group)...)
	}
	errs = append(errs, invalid(p.Child("version"), s.Version, validation.IsDNS1035Label(s.Version))...)
	if s.GroupPriorityMinimum <= 0 || s.GroupPriorityMinimum > 20000 {
		errs = append(errs, field.Invalid(p.Child("groupPriorityMinimum"), s.GroupPriorityMinimum, "must be positive and less than 20000"))
	}
	if s.VersionPriority <= 0 || s.VersionPriority > 1000 {
		errs = append(errs, field.Invalid(p.Child("versionPriority"), s.VersionPriority, "must be positive and less than 1000"))
	}
	if s.Service == nil {
		if len(s.CABundle) > 0 {
			errs = append(errs, field.Invalid(p.Child("caBundle"), fmt.Sprintf("%d bytes", len(s.CABundle)), "local APIServices may not have a caBundle"))
		}
		if s.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(p.Child("insecureSkipTLSVerify"), s.InsecureSkipTLSVerify, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	at := p.Child("service")
	errs = append(errs, need(at.Child("namespace"), s.Service.Namespace, "")...)
	errs = append(errs, need(at.Child("name"), s.Service.Name, "")...)
	if n := deref(s.Service.Port, 0); len(validation.IsValidPortNum(int(n))) > 0 {
		errs = append(errs, field.Invalid(at.Child("port"), n, "port is not valid: "+strings.Join(validation.IsValidPortNum(int(n)), ", ")))
	}
	if s.InsecureSkipTLSVerify && len(s.CABundle) > 0 {
		errs = append(errs, field.Invalid(p.Child("insecureSkipTLSVerify"), s.InsecureSkipTLSVerify, "may not be true if caBundle is present"))
	}
	return errs
}

func addEvents(t table) {
	rule(t, "", "v1", "Event", true, subdomain, func(o *corev1.Event) errors {
		if o.EventTime.IsZero() {
			return involved(o.Namespace, o.InvolvedObject.Namespace)
		}
		return append(placed(o.Namespace, o.InvolvedObject.Namespace), newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Message, "reportingComponent")...)
	}, nil)
	rule(t, "events.k8s.io", "v1", "Event", true, subdomain, newEvent, nil, ownUpdate(newEventUpdate))
}

// involved checks that an event lives beside the object it is about; that of a cluster-wide object lives in default.
func involved(eventNS, objectNS string) errors {
	p := field.NewPath("involvedObject", "namespace")
	if objectNS == "" {
		if eventNS != "" && eventNS != "default" {
			return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
		}
		return nil
	}
	if eventNS != objectNS {
		return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
	}
	return nil
}

// placed is the rule for events that carry their time: those of cluster-wide objects may live in kube-system, too.
func placed(eventNS, objectNS string) errors {
	if objectNS == "" && eventNS != "default" && eventNS != "kube-system" {
		return errors{field.Invalid(field.NewPath("involvedObject", "namespace"), objectNS, "does not match event.namespace")}
	}
	return nil
}

// newStyle is not asked of an event without a time, which is one of the old kind.
func newStyle(controller, instance, action, reason, message, controllerName string) errors {
	var errs errors
	if controller == "" {
		errs = append(errs, field.Required(field.NewPath(controllerName), ""))
	}
	errs = append(errs, qualifiedName(field.NewPath(controllerName), controller)...)
	for _, f := range []struct {
		name, value string
		max         int
	}{{"reportingInstance", instance, 128}, {"action", action, 128}, {"reason", reason, 128}} {
		if f.value == "" {
			errs = append(errs, field.Required(field.NewPath(f.name), ""))
		}
		if len(f.value) > f.max {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", "can have at most 128 characters"))
		}
	}
	if len(message) > 1024 {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", "can have at most 1024 characters"))
	}
	return errs
}

func newEvent(o *eventsv1.Event) errors {
	errs := reported(o)
	if o.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if o.Type != corev1.EventTypeNormal && o.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+o.Type))
	}
	return append(errs, eventSeries(o)...)
}

// reported checks where an event lives and who reports it.
func reported(o *eventsv1.Event) errors {
	if o.EventTime.IsZero() {
		return involved(o.Namespace, o.Regarding.Namespace)
	}
	return append(placed(o.Namespace, o.Regarding.Namespace), newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Note, "reportingController")...)
}

func eventSeries(o *eventsv1.Event) errors {
	if o.Series == nil {
		return nil
	}
	var errs errors
	if o.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if o.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// newEventUpdate lets only the series and what labels an event carries change.
func newEventUpdate(o, old *eventsv1.Event) errors {
	errs := reported(o)
	for _, f := range []struct {
		name   string
		v, old any
	}{
		{"involvedObject", o.Regarding, old.Regarding}, {"reason", o.Reason, old.Reason}, {"reason", o.Reason, old.Reason}, {"message", o.Note, old.Note}, {"source", o.DeprecatedSource, old.DeprecatedSource},
		{"firstTimestamp", o.DeprecatedFirstTimestamp, old.DeprecatedFirstTimestamp}, {"lastTimestamp", o.DeprecatedLastTimestamp, old.DeprecatedLastTimestamp},
		{"count", o.DeprecatedCount, old.DeprecatedCount}, {"type", o.Type, old.Type},
	} {
		errs = append(errs, immutable(field.NewPath(f.name), f.v, f.old)...)
	}
	if !o.EventTime.Equal(&old.EventTime) {
		errs = append(errs, field.Invalid(field.NewPath("eventTime"), o.EventTime, "field is immutable").WithOrigin("immutable"))
	}
	for _, f := range []struct {
		name   string
		v, old any
	}{
		{"action", o.Action, old.Action}, {"related", o.Related, old.Related}, {"reportingController", o.ReportingController, old.ReportingController}, {"reportingInstance", o.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, immutable(field.NewPath(f.name), f.v, f.old)...)
	}
	return append(errs, eventSeries(o)...)
}
