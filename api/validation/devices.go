package validation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const deviceGroup = "resource.k8s.io"

// addDevices adds the kinds that claim devices. Whether a selector's expression compiles is not judged here.
func addDevices(t table) {
	rule(t, deviceGroup, "v1", "ResourceClaim", true, subdomain, func(o *resourcev1.ResourceClaim) errors {
		return deviceClaim(&o.Spec.Devices, field.NewPath("spec", "devices"))
	}, nil, ownUpdate(func(o, old *resourcev1.ResourceClaim) errors {
		return immutable(field.NewPath("spec"), o.Spec, old.Spec)
	}))
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
	if len(o.Spec.Config) > 32 {
		errs = append(errs, field.TooMany(p.Child("config"), len(o.Spec.Config), 32))
	}
	for i := range o.Spec.Config {
		errs = append(errs, deviceConfig(&o.Spec.Config[i].DeviceConfiguration, p.Child("config").Index(i))...)
	}
	if n := o.Spec.ExtendedResourceName; n != nil && !extended(corev1.ResourceName(*n)) {
		errs = append(errs, field.Invalid(p.Child("extendedResourceName"), *n, "must be a valid extended resource name"))
	}
	return errs
}

func selectors(list []resourcev1.DeviceSelector, p *field.Path) errors {
	var errs errors
	if len(list) > 32 {
		errs = append(errs, field.TooMany(p, len(list), 32))
	}
	for i := range list {
		at := p.Index(i).Child("cel")
		if list[i].CEL == nil {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		if n := len(list[i].CEL.Expression); n > 10*1024 {
			errs = append(errs, field.TooLong(at.Child("expression"), "", 10*1024))
		}
	}
	return errs
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
	errs := driver(c.Opaque.Driver, at.Child("driver"))
	if len(c.Opaque.Parameters.Raw) == 0 {
		errs = append(errs, field.Required(at.Child("parameters"), ""))
	}
	return errs
}

func deviceClaim(c *resourcev1.DeviceClaim, p *field.Path) errors {
	var errs errors
	known := sets.New[string]()
	seen := sets.New[string]()
	for i := range c.Requests {
		r, at := &c.Requests[i], p.Child("requests").Index(i)
		if seen.Has(r.Name) {
			errs = append(errs, field.Duplicate(at, r.Name))
		}
		seen.Insert(r.Name)
		known.Insert(r.Name)
		for _, f := range r.FirstAvailable {
			known.Insert(r.Name + "/" + f.Name)
		}
		errs = append(errs, deviceRequest(r, at)...)
	}
	for i := range c.Constraints {
		n, at := &c.Constraints[i], p.Child("constraints").Index(i)
		errs = append(errs, requestNames(n.Requests, known, at.Child("requests"))...)
		switch {
		case n.MatchAttribute != nil:
			errs = append(errs, fullyQualified(string(*n.MatchAttribute), at.Child("matchAttribute"))...)
			if n.DistinctAttribute != nil {
				errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
			}
		case n.DistinctAttribute != nil:
			errs = append(errs, fullyQualified(string(*n.DistinctAttribute), at.Child("distinctAttribute"))...)
		default:
			errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
		}
	}
	for i := range c.Config {
		n, at := &c.Config[i], p.Child("config").Index(i)
		errs = append(errs, requestNames(n.Requests, known, at.Child("requests"))...)
		errs = append(errs, deviceConfig(&n.DeviceConfiguration, at)...)
	}
	return errs
}

func requestNames(list []string, known sets.Set[string], p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, n := range list {
		at := p.Index(i)
		if seen.Has(n) {
			errs = append(errs, field.Duplicate(at, n))
			continue
		}
		seen.Insert(n)
		for _, part := range strings.SplitN(n, "/", 2) {
			errs = append(errs, dnsLabel(at, part)...)
		}
		if !known.Has(n) {
			errs = append(errs, field.Invalid(at, n, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
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
	names := sets.New[string]()
	for i := range r.FirstAvailable {
		f, at := &r.FirstAvailable[i], p.Child("firstAvailable").Index(i)
		errs = append(errs, dnsLabel(at.Child("name"), f.Name)...)
		errs = append(errs, deviceAsk(f.DeviceClassName, f.Selectors, f.AllocationMode, f.Count, f.Tolerations, at)...)
		if names.Has(f.Name) {
			errs = append(errs, field.Duplicate(at, f.Name))
		}
		names.Insert(f.Name)
	}
	return errs
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
	for i := range tolerations {
		t, at := &tolerations[i], p.Child("tolerations").Index(i)
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
			errs = append(errs, oneOf(at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
		}
		if t.Effect != "" {
			errs = append(errs, oneOf(at.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
		}
	}
	return errs
}
