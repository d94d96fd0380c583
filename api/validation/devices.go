package validation

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/validation/expression"
)

const deviceGroup = "resource.k8s.io"

// addDevices adds the kinds that claim devices.
func addDevices(t table) {
	rule(t, deviceGroup, "v1", "ResourceClaim", true, subdomain, func(o *resourcev1.ResourceClaim) errors {
		return deviceClaim(&o.Spec.Devices, field.NewPath("spec", "devices"))
	}, nil, ownUpdate(func(o, old *resourcev1.ResourceClaim) errors {
		return immutable(field.NewPath("spec"), o.Spec, old.Spec)
	}), onSub("status", deviceClaimStatus))
	rule(t, deviceGroup, "v1", "ResourceClaimTemplate", true, subdomain, func(o *resourcev1.ResourceClaimTemplate) errors {
		p := field.NewPath("spec")
		errs := labels(p.Child("metadata", "labels"), o.Spec.Labels)
		errs = append(errs, annotations(p.Child("metadata", "annotations"), o.Spec.Annotations)...)
		return append(errs, deviceClaim(&o.Spec.Spec.Devices, p.Child("spec", "devices"))...)
	}, func(o, old *resourcev1.ResourceClaimTemplate) errors {
		return immutable(field.NewPath("spec"), o.Spec, old.Spec)
	})
	rule(t, deviceGroup, "v1", "DeviceClass", false, subdomain, deviceClass, nil)
	rule(t, deviceGroup, "v1", "ResourceSlice", false, subdomain, resourceSlice, resourceSliceUpdate)
}

func deviceClass(o *resourcev1.DeviceClass) errors {
	p := field.NewPath("spec")
	errs := selectors(o.Spec.Selectors, p.Child("selectors"))
	errs = append(errs, few(o.Spec.Config, resourcev1.DeviceConfigMaxSize, p.Child("config"), func(i int, p *field.Path) errors {
		return deviceConfig(&o.Spec.Config[i].DeviceConfiguration, p)
	})...)
	if n := o.Spec.ExtendedResourceName; n != nil && !extended(corev1.ResourceName(*n)) {
		errs = append(errs, field.Invalid(p.Child("extendedResourceName"), *n, "must be a valid extended resource name"))
	}
	return errs
}

// few refuses a list that is longer than it may be; the entries of such a list are not looked at.
func few[T any](list []T, most int, p *field.Path, each func(i int, p *field.Path) errors) errors {
	if len(list) > most {
		return errors{field.TooMany(p, len(list), most)}
	}
	var errs errors
	for i := range list {
		errs = append(errs, each(i, p.Index(i))...)
	}
	return errs
}

// distinct is few for a list whose entries differ in their keys.
func distinct[T any, K comparable](list []T, most int, p *field.Path, key func(T) K, each func(i int, p *field.Path) errors) errors {
	errs := few(list, most, p, each)
	if len(list) > most {
		return errs
	}
	seen := map[K]bool{}
	for i := range list {
		k := key(list[i])
		if seen[k] {
			errs = append(errs, field.Duplicate(p.Index(i), k))
		}
		seen[k] = true
	}
	return errs
}

func itself(s string) string { return s }

func selectors(list []resourcev1.DeviceSelector, p *field.Path) errors {
	return few(list, resourcev1.DeviceSelectorsMaxSize, p, func(i int, p *field.Path) errors {
		at := p.Child("cel")
		if list[i].CEL == nil {
			return errors{field.Required(at, "")}
		}
		text := list[i].CEL.Expression
		if len(text) > resourcev1.CELSelectorExpressionMaxLength {
			return errors{field.TooLong(at.Child("expression"), "", resourcev1.CELSelectorExpressionMaxLength)}
		}
		return expression.Device(text, at.Child("expression"))
	})
}

// driver checks the name of a driver of devices.
func driver(name string, p *field.Path) errors {
	if name == "" {
		return errors{field.Required(p, "")}
	}
	var errs errors
	if len(name) > 63 {
		errs = append(errs, field.TooLong(p, name, 63))
	}
	return append(errs, dnsSubdomain(p, name)...)
}

func deviceConfig(c *resourcev1.DeviceConfiguration, p *field.Path) errors {
	if c.Opaque == nil {
		return errors{field.Required(p.Child("opaque"), "")}
	}
	at := p.Child("opaque")
	return append(driver(c.Opaque.Driver, at.Child("driver")), rawObject(c.Opaque.Parameters.Raw, resourcev1.OpaqueParametersMaxLength, at.Child("parameters"))...)
}

// rawObject checks that an extension holds a JSON object of no more than this many bytes.
func rawObject(raw []byte, most int, p *field.Path) errors {
	if len(raw) == 0 {
		return errors{field.Required(p, "")}
	}
	if len(raw) > most {
		return errors{field.TooLong(p, "", most)}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return errors{field.Invalid(p, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	switch v.(type) {
	case nil:
		return errors{field.Required(p, "")}
	case map[string]any:
		return nil
	}
	return errors{field.Invalid(p, "<value omitted>", "must be a valid JSON object")}
}

// requestSet holds the names under which a claim's requests can be meant.
func requestSet(c *resourcev1.DeviceClaim) sets.Set[string] {
	known := sets.New[string]()
	for i := range c.Requests {
		r := &c.Requests[i]
		known.Insert(r.Name)
		for _, f := range r.FirstAvailable {
			known.Insert(r.Name + "/" + f.Name)
		}
	}
	return known
}

func deviceClaim(c *resourcev1.DeviceClaim, p *field.Path) errors {
	known := requestSet(c)
	errs := distinct(c.Requests, resourcev1.DeviceRequestsMaxSize, p.Child("requests"), func(r resourcev1.DeviceRequest) string { return r.Name }, func(i int, p *field.Path) errors {
		return deviceRequest(&c.Requests[i], p)
	})
	errs = append(errs, few(c.Constraints, resourcev1.DeviceConstraintsMaxSize, p.Child("constraints"), func(i int, at *field.Path) errors {
		n := &c.Constraints[i]
		errs := requestNames(n.Requests, known, at.Child("requests"))
		switch {
		case n.MatchAttribute != nil:
			errs = append(errs, fullyQualified(string(*n.MatchAttribute), at.Child("matchAttribute"))...)
			if n.DistinctAttribute != nil {
				errs = append(errs, field.Required(at, oneAttribute))
			}
		case n.DistinctAttribute != nil:
			errs = append(errs, fullyQualified(string(*n.DistinctAttribute), at.Child("distinctAttribute"))...)
		default:
			errs = append(errs, field.Required(at, oneAttribute))
		}
		return errs
	})...)
	return append(errs, few(c.Config, resourcev1.DeviceConfigMaxSize, p.Child("config"), func(i int, at *field.Path) errors {
		n := &c.Config[i]
		return append(requestNames(n.Requests, known, at.Child("requests")), deviceConfig(&n.DeviceConfiguration, at)...)
	})...)
}

const oneAttribute = `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`

func requestNames(list []string, known sets.Set[string], p *field.Path) errors {
	return distinct(list, resourcev1.DeviceRequestsMaxSize, p, itself, func(i int, p *field.Path) errors { return requestName(list[i], known, p) })
}

// requestName checks the name of a request, or of a request and one of its alternatives.
func requestName(n string, known sets.Set[string], p *field.Path) errors {
	unknown := field.Invalid(p, n, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")
	parts := strings.Split(n, "/")
	if len(parts) > 2 {
		return errors{unknown}
	}
	var errs errors
	for _, part := range parts {
		errs = append(errs, dnsLabel(p, part)...)
	}
	if !known.Has(n) {
		errs = append(errs, unknown)
	}
	return errs
}

// fullyQualified checks domain/identifier.
func fullyQualified(name string, p *field.Path) errors {
	domain, id, ok := strings.Cut(name, "/")
	if !ok {
		return append(qualifiedID(name, p), field.Invalid(p, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	if domain == "" {
		return append(errors{field.Required(p, "the domain must not be empty")}, cIdentifier(id, p)...)
	}
	errs := dnsSubdomain(p, domain)
	if len(domain) > 63 {
		errs = append(errs, field.TooLong(p, domain, 63))
	}
	return append(errs, cIdentifier(id, p)...)
}

// qualifiedID is an identifier that may have a domain in front.
func qualifiedID(name string, p *field.Path) errors {
	domain, id, ok := strings.Cut(name, "/")
	if !ok {
		return cIdentifier(name, p)
	}
	var errs errors
	if domain == "" {
		errs = append(errs, field.Required(p, "the domain must not be empty"))
	} else {
		errs = append(errs, dnsSubdomain(p, domain)...)
	}
	if id == "" {
		return append(errs, field.Required(p, "the name must not be empty"))
	}
	return append(errs, cIdentifier(id, p)...)
}

func cIdentifier(id string, p *field.Path) errors {
	var errs errors
	if len(id) > 32 {
		errs = append(errs, field.TooLong(p, id, 32))
	}
	if !celIdentifier.MatchString(id) {
		errs = append(errs, field.Invalid(p, id, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"))
	}
	return errs
}

func deviceRequest(r *resourcev1.DeviceRequest, p *field.Path) errors {
	errs := dnsLabel(p.Child("name"), r.Name)
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		errs = append(errs, field.Required(p, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		errs = append(errs, field.Invalid(p, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	}
	if e := r.Exactly; e != nil {
		at := p.Child("exactly")
		errs = append(errs, deviceAsk(e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, at)...)
	}
	return append(errs, distinct(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, p.Child("firstAvailable"), func(f resourcev1.DeviceSubRequest) string { return f.Name }, func(i int, at *field.Path) errors {
		f := &r.FirstAvailable[i]
		return append(dnsLabel(at.Child("name"), f.Name), deviceAsk(f.DeviceClassName, f.Selectors, f.AllocationMode, f.Count, f.Tolerations, at)...)
	})...)
}

func requiredLabel(name string, p *field.Path) errors {
	if name == "" {
		return errors{field.Required(p, "")}
	}
	return dnsLabel(p, name)
}

func deviceAsk(class string, list []resourcev1.DeviceSelector, mode resourcev1.DeviceAllocationMode, count int64, tolerations []resourcev1.DeviceToleration, p *field.Path) errors {
	var errs errors
	if class == "" {
		errs = append(errs, field.Required(p.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, invalid(p.Child("deviceClassName"), class, subdomain(class, false))...)
	}
	errs = append(errs, selectors(list, p.Child("selectors"))...)
	switch mode {
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(p.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(p.Child("count"), count, "must be greater than zero"))
		}
	default:
		errs = append(errs, oneOf(p.Child("allocationMode"), mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	}
	return append(errs, deviceTolerations(tolerations, p.Child("tolerations"))...)
}

func deviceTolerations(list []resourcev1.DeviceToleration, p *field.Path) errors {
	return few(list, resourcev1.DeviceTolerationsMaxLength, p, func(i int, at *field.Path) errors {
		t := &list[i]
		var errs errors
		if t.Key != "" {
			errs = append(errs, labelName(at.Child("key"), t.Key)...)
		}
		switch t.Operator {
		case resourcev1.DeviceTolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("value"), t.Value, "must be empty for operator `Exists`"))
			}
		case resourcev1.DeviceTolerationOpEqual:
			errs = append(errs, invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		default:
			errs = append(errs, oneOfRequired(at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
		}
		if t.Effect != "" {
			errs = append(errs, oneOf(at.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
		}
		return errs
	})
}

// allocated names one device, or a share of one.
type allocated struct{ driver, pool, device, share string }

func (a allocated) String() string {
	s := a.driver + "/" + a.pool + "/" + a.device
	if a.share != "" {
		s += "/" + a.share
	}
	return s
}

// deviceClaimStatus judges what the scheduler allocates, who uses it, and what drivers report of it.
func deviceClaimStatus(o, old *resourcev1.ResourceClaim) errors {
	s, p := &o.Status, field.NewPath("status")
	errs := distinct(s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize, p.Child("reservedFor"), func(r resourcev1.ResourceClaimConsumerReference) types.UID { return r.UID },
		func(i int, at *field.Path) errors {
			r := &s.ReservedFor[i]
			errs := need(at.Child("resource"), r.Resource, "")
			errs = append(errs, need(at.Child("name"), r.Name, "")...)
			return append(errs, need(at.Child("uid"), string(r.UID), "")...)
		})
	held := sets.New[allocated]()
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			held.Insert(allocated{r.Driver, r.Pool, r.Device, string(deref(r.ShareID, ""))})
		}
	}
	of := func(d resourcev1.AllocatedDeviceStatus) allocated {
		return allocated{d.Driver, d.Pool, d.Device, deref(d.ShareID, "")}
	}
	errs = append(errs, distinct(s.Devices, len(s.Devices), p.Child("devices"), of, func(i int, at *field.Path) errors {
		errs := allocatedDevice(&s.Devices[i], at)
		if id := of(s.Devices[i]); !held.Has(id) {
			errs = append(errs, field.Invalid(at, id.String(), "must be an allocated device in the claim"))
		}
		return errs
	})...)
	if len(s.ReservedFor) > 0 && s.Allocation == nil {
		errs = append(errs, field.Forbidden(p.Child("reservedFor"), "may not be specified when `allocated` is not set"))
	} else if o.DeletionTimestamp != nil && len(sets.New(s.ReservedFor...).Difference(sets.New(old.Status.ReservedFor...))) > 0 {
		errs = append(errs, field.Forbidden(p.Child("reservedFor"), "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	switch {
	case s.Allocation != nil && old.Status.Allocation != nil:
		errs = append(errs, immutable(p.Child("allocation"), s.Allocation, old.Status.Allocation)...)
	case s.Allocation != nil:
		errs = append(errs, allocation(s.Allocation, requestSet(&o.Spec.Devices), p.Child("allocation"))...)
	}
	return errs
}

func allocatedDevice(d *resourcev1.AllocatedDeviceStatus, p *field.Path) errors {
	errs := driver(d.Driver, p.Child("driver"))
	errs = append(errs, poolName(d.Pool, p.Child("pool"))...)
	errs = append(errs, dnsLabel(p.Child("device"), d.Device)...)
	if d.ShareID != nil {
		errs = append(errs, uuidText(*d.ShareID, p.Child("shareID"))...)
	}
	if n := len(d.Conditions); n > 8 {
		errs = append(errs, field.TooMany(p.Child("conditions"), n, 8))
	}
	errs = append(errs, metavalidation.ValidateConditions(d.Conditions, p.Child("conditions"))...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, rawObject(d.Data.Raw, 10*1024, p.Child("data"))...)
	}
	if n := d.NetworkData; n != nil {
		at := p.Child("networkData")
		if len(n.InterfaceName) > 256 {
			errs = append(errs, field.TooLong(at.Child("interfaceName"), "", 256))
		}
		if len(n.HardwareAddress) > 128 {
			errs = append(errs, field.TooLong(at.Child("hardwareAddress"), "", 128))
		}
		errs = append(errs, distinct(n.IPs, 16, at.Child("ips"), itself, func(i int, p *field.Path) errors { return validation.IsValidInterfaceAddress(p, n.IPs[i]) })...)
	}
	return errs
}

func uuidText(s string, p *field.Path) errors {
	if err := uuid.Validate(s); err != nil {
		return errors{field.Invalid(p, s, fmt.Sprintf("error validating uid: %v", err))}
	}
	if len(s) != 36 || s != strings.ToLower(s) {
		return errors{field.Invalid(p, s, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
	}
	return nil
}

func allocation(a *resourcev1.AllocationResult, known sets.Set[string], p *field.Path) errors {
	at := p.Child("devices")
	errs := few(a.Devices.Results, resourcev1.AllocationResultsMaxSize, at.Child("results"), func(i int, p *field.Path) errors {
		r := &a.Devices.Results[i]
		errs := requestName(r.Request, known, p.Child("request"))
		errs = append(errs, driver(r.Driver, p.Child("driver"))...)
		errs = append(errs, poolName(r.Pool, p.Child("pool"))...)
		errs = append(errs, dnsLabel(p.Child("device"), r.Device)...)
		errs = append(errs, bindingConditions(r.BindingConditions, r.BindingFailureConditions, p)...)
		errs = append(errs, deviceTolerations(r.Tolerations, p.Child("tolerations"))...)
		if r.ShareID != nil {
			errs = append(errs, uuidText(string(*r.ShareID), p.Child("shareID"))...)
		}
		return errs
	})
	errs = append(errs, few(a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, at.Child("config"), func(i int, p *field.Path) errors {
		c := &a.Devices.Config[i]
		errs := oneOfRequired(p.Child("source"), c.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
		errs = append(errs, requestNames(c.Requests, known, p.Child("requests"))...)
		return append(errs, deviceConfig(&c.DeviceConfiguration, p)...)
	})...)
	if a.NodeSelector != nil {
		errs = append(errs, nodeSelector(a.NodeSelector, p.Child("nodeSelector"))...)
	}
	return errs
}
