package validation

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func resourceSlice(o *resourcev1.ResourceSlice) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := driver(s.Driver, p.Child("driver"))
	errs = append(errs, resourcePool(&s.Pool, p.Child("pool"))...)
	errs = append(errs, sliceNodes(s, p)...)
	names := sets.New[string]()
	for i := range s.Devices {
		d, at := &s.Devices[i], p.Child("devices").Index(i)
		errs = append(errs, device(d, deref(s.PerDeviceNodeSelection, false), at)...)
		if names.Has(d.Name) {
			errs = append(errs, field.Duplicate(at, d.Name))
		}
		names.Insert(d.Name)
	}
	counters := sets.New[string]()
	for i := range s.SharedCounters {
		c, at := &s.SharedCounters[i], p.Child("sharedCounters").Index(i)
		errs = append(errs, requiredLabel(c.Name, at.Child("name"))...)
		if len(c.Counters) == 0 {
			errs = append(errs, field.Required(at.Child("counters"), ""))
		}
		for k := range c.Counters {
			errs = append(errs, dnsLabel(at.Child("counters").Key(k), k)...)
		}
		if counters.Has(c.Name) {
			errs = append(errs, field.Duplicate(at, c.Name))
		}
		counters.Insert(c.Name)
	}
	return errs
}

func resourcePool(c *resourcev1.ResourcePool, p *field.Path) errors {
	var errs errors
	at := p.Child("name")
	if c.Name == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		if len(c.Name) > 253 {
			errs = append(errs, field.TooLong(at, c.Name, 253))
		}
		for _, part := range splitSlash(c.Name) {
			errs = append(errs, dnsSubdomain(at, part)...)
		}
	}
	if c.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(p.Child("resourceSliceCount"), c.ResourceSliceCount, "must be greater than zero"))
	}
	if c.Generation < 0 {
		errs = append(errs, field.Invalid(p.Child("generation"), c.Generation, "must be greater than or equal to zero"))
	}
	return errs
}

func splitSlash(s string) []string {
	var parts []string
	start := 0
	for i := range len(s) {
		if s[i] == '/' {
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// sliceNodes checks that a slice says in exactly one way which nodes reach its devices.
func sliceNodes(s *resourcev1.ResourceSliceSpec, p *field.Path) errors {
	var errs errors
	var set []string
	if n := s.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(p.Child("nodeName"), *n, "must be either unset or set to a non-empty string"))
		} else {
			set = append(set, "nodeName")
			errs = append(errs, invalid(p.Child("nodeName"), *n, subdomain(*n, false))...)
		}
	}
	if n := s.NodeSelector; n != nil {
		set = append(set, "nodeSelector")
		errs = append(errs, nodeSelector(n, p.Child("nodeSelector"))...)
		if len(n.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(p.Child("nodeSelector", "nodeSelectorTerms"), n.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	for _, f := range []struct {
		name string
		v    *bool
	}{{"allNodes", s.AllNodes}, {"perDeviceNodeSelection", s.PerDeviceNodeSelection}} {
		if f.v == nil {
			continue
		}
		if !*f.v {
			errs = append(errs, field.Invalid(p.Child(f.name), *f.v, "must be either unset or set to true"))
		} else {
			set = append(set, f.name)
		}
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(p, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(p, set, one+", but multiple fields are set"))
	}
	return errs
}

func device(d *resourcev1.Device, perDevice bool, p *field.Path) errors {
	errs := dnsLabel(p.Child("name"), d.Name)
	for _, k := range sortedKeys(map[resourcev1.QualifiedName]resourcev1.DeviceAttribute(d.Attributes)) {
		at := p.Child("attributes").Key(string(k))
		errs = append(errs, qualifiedID(string(k), at)...)
		a := d.Attributes[k]
		errs = append(errs, attribute(&a, at)...)
	}
	for _, k := range sortedKeys(map[resourcev1.QualifiedName]resourcev1.DeviceCapacity(d.Capacity)) {
		errs = append(errs, qualifiedID(string(k), p.Child("capacity").Key(string(k)))...)
	}
	for i := range d.Taints {
		t, at := &d.Taints[i], p.Child("taints").Index(i)
		errs = append(errs, labelName(at.Child("key"), t.Key)...)
		if t.Value != "" {
			errs = append(errs, invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		}
		errs = append(errs, oneOfRequired(at.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
	}
	errs = append(errs, deviceCounters(d, p)...)
	errs = append(errs, deviceNodes(d, perDevice, p)...)
	if len(d.BindingConditions) > 0 && len(d.BindingFailureConditions) == 0 {
		errs = append(errs, field.Invalid(p.Child("bindingFailureConditions"), d.BindingFailureConditions, "bindingFailureConditions are required to use bindingConditions"))
	}
	if len(d.BindingConditions) == 0 && len(d.BindingFailureConditions) > 0 {
		errs = append(errs, field.Invalid(p.Child("bindingConditions"), d.BindingConditions, "bindingConditions are required to use bindingFailureConditions"))
	}
	return errs
}

func deviceCounters(d *resourcev1.Device, p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i := range d.ConsumesCounters {
		c, at := &d.ConsumesCounters[i], p.Child("consumesCounters").Index(i)
		errs = append(errs, requiredLabel(c.CounterSet, at.Child("counterSet"))...)
		if len(c.Counters) == 0 {
			errs = append(errs, field.Required(at.Child("counters"), ""))
		}
		if seen.Has(c.CounterSet) {
			errs = append(errs, field.Duplicate(at, c.CounterSet))
		}
		seen.Insert(c.CounterSet)
	}
	return errs
}

func deviceNodes(d *resourcev1.Device, perDevice bool, p *field.Path) errors {
	var errs errors
	set := 0
	if n := d.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(p.Child("nodeName"), *n, "must not be empty"))
		} else {
			set++
			errs = append(errs, invalid(p.Child("nodeName"), *n, subdomain(*n, false))...)
		}
	}
	if n := d.NodeSelector; n != nil {
		set++
		errs = append(errs, nodeSelector(n, p.Child("nodeSelector"))...)
	}
	if d.AllNodes != nil {
		set++
	}
	switch {
	case !perDevice && set > 0:
		errs = append(errs, field.Invalid(p, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	case perDevice && set == 0:
		errs = append(errs, field.Required(p, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	case perDevice && set > 1:
		errs = append(errs, field.Invalid(p, nil, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return errs
}

func attribute(a *resourcev1.DeviceAttribute, p *field.Path) errors {
	var errs errors
	count := 0
	if a.IntValue != nil {
		count++
	}
	if a.BoolValue != nil {
		count++
	}
	if v := a.StringValue; v != nil {
		count++
		if len(*v) > 64 {
			errs = append(errs, field.TooLong(p.Child("string"), *v, 64))
		}
	}
	if v := a.VersionValue; v != nil {
		count++
		if !semver(*v) {
			errs = append(errs, field.Invalid(p.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		if len(*v) > 64 {
			errs = append(errs, field.TooLong(p.Child("version"), *v, 64))
		}
	}
	if count != 1 {
		errs = append(errs, field.Invalid(p, a, "exactly one value must be specified"))
	}
	return errs
}

func resourceSliceUpdate(o, old *resourcev1.ResourceSlice) errors {
	p := field.NewPath("spec")
	errs := immutable(p.Child("driver"), o.Spec.Driver, old.Spec.Driver)
	errs = append(errs, immutable(p.Child("pool", "name"), o.Spec.Pool.Name, old.Spec.Pool.Name)...)
	return append(errs, immutable(p.Child("nodeName"), o.Spec.NodeName, old.Spec.NodeName)...)
}
