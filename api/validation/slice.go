package validation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func resourceSlice(o *resourcev1.ResourceSlice) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := driver(s.Driver, p.Child("driver"))
	errs = append(errs, resourcePool(&s.Pool, p.Child("pool"))...)
	errs = append(errs, sliceNodes(s, p)...)
	if s.SharedCounters != nil && s.Devices != nil {
		errs = append(errs, field.Invalid(p, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	most := resourcev1.ResourceSliceMaxDevices
	if slices.ContainsFunc(s.Devices, advanced) {
		most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	errs = append(errs, distinct(s.Devices, most, p.Child("devices"), func(d resourcev1.Device) string { return d.Name }, func(i int, p *field.Path) errors {
		return device(&s.Devices[i], deref(s.PerDeviceNodeSelection, false), p)
	})...)
	return append(errs, distinct(s.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, p.Child("sharedCounters"), func(c resourcev1.CounterSet) string { return c.Name }, func(i int, p *field.Path) errors {
		c := &s.SharedCounters[i]
		return append(requiredLabel(c.Name, p.Child("name")), counters(c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, p.Child("counters"))...)
	})...)
}

// advanced devices take more room, so that a slice holds fewer of them.
func advanced(d resourcev1.Device) bool {
	if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
		return true
	}
	for _, a := range d.Attributes {
		if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func counters(m map[string]resourcev1.Counter, most int, p *field.Path) errors {
	switch {
	case len(m) == 0:
		return errors{field.Required(p, "")}
	case len(m) > most:
		return errors{field.TooMany(p, len(m), most)}
	}
	var errs errors
	for _, k := range sortedKeys(m) {
		errs = append(errs, dnsLabel(p, k)...)
	}
	return errs
}

func resourcePool(c *resourcev1.ResourcePool, p *field.Path) errors {
	errs := poolName(c.Name, p.Child("name"))
	if c.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(p.Child("resourceSliceCount"), c.ResourceSliceCount, "must be greater than zero"))
	}
	if c.Generation < 0 {
		errs = append(errs, field.Invalid(p.Child("generation"), c.Generation, "must be greater than or equal to zero"))
	}
	return errs
}

func poolName(name string, p *field.Path) errors {
	if name == "" {
		return errors{field.Required(p, "")}
	}
	var errs errors
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(p, name, resourcev1.PoolNameMaxLength))
	}
	for _, part := range strings.Split(name, "/") {
		errs = append(errs, dnsSubdomain(p, part)...)
	}
	return errs
}

// sliceNodes checks that a slice says in exactly one way which nodes reach its devices.
func sliceNodes(s *resourcev1.ResourceSliceSpec, p *field.Path) errors {
	var errs errors
	var set []string
	if n := s.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(p.Child("nodeName"), *n, "must be either unset or set to a non-empty string"))
		} else {
			set = append(set, "`nodeName`")
			errs = append(errs, invalid(p.Child("nodeName"), *n, subdomain(*n, false))...)
		}
	}
	if n := s.NodeSelector; n != nil {
		set = append(set, "`nodeSelector`")
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
			set = append(set, "`"+f.name+"`")
		}
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(p, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(p, "{"+strings.Join(set, ", ")+"}", one+", but multiple fields are set"))
	}
	return errs
}

func device(d *resourcev1.Device, perDevice bool, p *field.Path) errors {
	errs := dnsLabel(p.Child("name"), d.Name)
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	values := 0
	for _, a := range d.Attributes {
		values += max(1, len(a.BoolValues)+len(a.IntValues)+len(a.StringValues)+len(a.VersionValues))
	}
	if values > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		errs = append(errs, field.Invalid(p, values, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice)))
	}
	for _, k := range sortedKeys(d.Attributes) {
		at := p.Child("attributes").Key(shortened(string(k)))
		errs = append(errs, qualifiedID(string(k), at)...)
		a := d.Attributes[k]
		errs = append(errs, attribute(&a, at)...)
	}
	for _, k := range sortedKeys(d.Capacity) {
		at := p.Child("capacity").Key(shortened(string(k)))
		errs = append(errs, qualifiedID(string(k), at)...)
		c := d.Capacity[k]
		errs = append(errs, capacity(&c, deref(d.AllowMultipleAllocations, false), at)...)
	}
	errs = append(errs, few(d.Taints, resourcev1.DeviceTaintsMaxLength, p.Child("taints"), func(i int, at *field.Path) errors {
		t := &d.Taints[i]
		errs := labelName(at.Child("key"), t.Key)
		if t.Value != "" {
			errs = append(errs, invalid(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		}
		return append(errs, oneOfRequired(at.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
	})...)
	errs = append(errs, distinct(d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, p.Child("consumesCounters"), func(c resourcev1.DeviceCounterConsumption) string { return c.CounterSet }, func(i int, at *field.Path) errors {
		c := &d.ConsumesCounters[i]
		return append(requiredLabel(c.CounterSet, at.Child("counterSet")), counters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Child("counters"))...)
	})...)
	errs = append(errs, deviceNodes(d, perDevice, p)...)
	return append(errs, bindingConditions(d.BindingConditions, d.BindingFailureConditions, p)...)
}

// shortened is a key as causes show it.
func shortened(k string) string {
	const most = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength
	if len(k) <= most {
		return k
	}
	rest := most - len("...")
	return k[:(rest+1)/2] + "..." + k[len(k)-rest/2:]
}

// bindingConditions checks what has to become true of a device before a pod is bound to a node, and what ends the wait.
func bindingConditions(ready, failed []string, p *field.Path) errors {
	at, bad := p.Child("bindingConditions"), p.Child("bindingFailureConditions")
	errs := few(ready, resourcev1.BindingConditionsMaxSize, at, func(i int, p *field.Path) errors { return labelName(p, ready[i]) })
	errs = append(errs, few(failed, resourcev1.BindingFailureConditionsMaxSize, bad, func(i int, p *field.Path) errors { return labelName(p, failed[i]) })...)
	for i, c := range ready {
		if slices.Contains(ready[:i], c) {
			errs = append(errs, field.Duplicate(at.Index(i), c))
		}
	}
	for i, c := range failed {
		if slices.Contains(failed[:i], c) {
			errs = append(errs, field.Duplicate(bad.Index(i), c))
		}
		if slices.Contains(ready, c) {
			errs = append(errs, field.Invalid(bad.Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	if len(ready) == 0 && len(failed) > 0 {
		errs = append(errs, field.Invalid(at, ready, "bindingConditions are required to use bindingFailureConditions"))
	}
	if len(failed) == 0 && len(ready) > 0 {
		errs = append(errs, field.Invalid(bad, failed, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

// capacity checks how much of a device may be asked for at a time; a device that is given out once is given out whole.
func capacity(c *resourcev1.DeviceCapacity, shared bool, p *field.Path) errors {
	r, at := c.RequestPolicy, p.Child("requestPolicy")
	switch {
	case r == nil:
		return nil
	case !shared:
		return errors{field.Forbidden(at, "allowMultipleAllocations must be true")}
	case len(r.ValidValues) > 0 && r.ValidRange != nil:
		return errors{field.Forbidden(at, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case len(r.ValidValues) > 0 && r.Default == nil:
		return errors{field.Required(at.Child("default"), "required when validValues is defined")}
	case len(r.ValidValues) > 0:
		return validValues(r.ValidValues, *r.Default, c.Value, at.Child("validValues"))
	case r.ValidRange != nil && r.Default == nil:
		return errors{field.Required(at.Child("default"), "required when validRange is defined")}
	case r.ValidRange != nil:
		return validRange(r.ValidRange, *r.Default, c.Value, at.Child("validRange"))
	}
	return nil
}

func validValues(list []resource.Quantity, standard, most resource.Quantity, p *field.Path) errors {
	var errs errors
	for i := 1; i < len(list); i++ {
		if list[i-1].Cmp(list[i]) > 0 {
			errs = append(errs, field.Invalid(p.Index(i), list[i].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	errs = append(errs, distinct(list, 10, p, func(q resource.Quantity) string { return strconv.FormatInt(q.Value(), 10) }, func(i int, p *field.Path) errors {
		found = found || list[i].Cmp(standard) == 0
		if list[i].Cmp(most) > 0 {
			return errors{field.Invalid(p, list[i].String(), fmt.Sprintf("option is larger than capacity value: %s", most.String()))}
		}
		return nil
	})...)
	if !found {
		errs = append(errs, field.Invalid(p, standard.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validRange(r *resourcev1.CapacityRequestPolicyRange, standard, most resource.Quantity, p *field.Path) errors {
	if r.Min == nil {
		return errors{field.Required(p.Child("min"), "required when validRange is defined")}
	}
	var errs errors
	refuse := func(name string, q resource.Quantity, format string, args ...any) {
		errs = append(errs, field.Invalid(p.Child(name), q.String(), fmt.Sprintf(format, args...)))
	}
	if r.Min.Cmp(most) > 0 {
		refuse("min", *r.Min, "min is larger than capacity value: %s", most.String())
	}
	if standard.Cmp(*r.Min) < 0 {
		refuse("default", standard, "default is less than min: %s", r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			refuse("max", *r.Min, "min is larger than max: %s", r.Max.String())
		}
		if r.Max.Cmp(most) > 0 {
			refuse("max", *r.Max, "max is larger than capacity value: %s", most.String())
		}
		if standard.Cmp(*r.Max) > 0 {
			refuse("default", standard, "default is more than max: %s", r.Max.String())
		}
	}
	if r.Step == nil {
		return errs
	}
	if r.Step.Sign() <= 0 {
		refuse("step", *r.Step, "must be greater than zero")
		return errs
	}
	one := r.Min.DeepCopy()
	one.Add(*r.Step)
	if one.Cmp(most) > 0 {
		refuse("step", *r.Step, "one step %s is larger than capacity value: %s", one.String(), most.String())
	}
	step := r.Step.Value()
	if step == 0 { // it is more than a number can hold
		return errs
	}
	for _, q := range []*resource.Quantity{&standard, r.Max} {
		if q != nil && (q.Value()-r.Min.Value())%step != 0 {
			refuse("step", *q, "value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())
		}
	}
	return errs
}

func deviceNodes(d *resourcev1.Device, perDevice bool, p *field.Path) errors {
	if !perDevice {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			return errors{field.Invalid(p, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")}
		}
		return nil
	}
	var errs errors
	var set []string
	if n := d.NodeName; n != nil && *n == "" {
		errs = append(errs, field.Invalid(p.Child("nodeName"), *n, "must not be empty"))
	} else if n != nil {
		set = append(set, "`nodeName`")
		errs = append(errs, invalid(p.Child("nodeName"), *n, subdomain(*n, false))...)
	}
	if n := d.NodeSelector; n != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, nodeSelector(n, p.Child("nodeSelector"))...)
	}
	if a := d.AllNodes; a != nil && !*a {
		errs = append(errs, field.Invalid(p.Child("allNodes"), *a, "must be either unset or set to true"))
	} else if a != nil {
		set = append(set, "`allNodes`")
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(p, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(p, "{"+strings.Join(set, ", ")+"}", one))
	}
	return errs
}

func attribute(a *resourcev1.DeviceAttribute, p *field.Path) errors {
	var errs errors
	count := 0
	value := func(set bool, check func()) {
		if set {
			count++
			check()
		}
	}
	text := func(p *field.Path, v string) {
		if len(v) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(p, v, resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	version := func(p *field.Path, v string) {
		if !semver(v) {
			errs = append(errs, field.Invalid(p, v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		text(p, v)
	}
	some := func(n int, p *field.Path, v any) {
		if n == 0 {
			errs = append(errs, field.Invalid(p, v, "must not be empty if specified"))
		}
	}
	value(a.BoolValue != nil, func() {})
	value(a.IntValue != nil, func() {})
	value(a.StringValue != nil, func() { text(p.Child("string"), *a.StringValue) })
	value(a.VersionValue != nil, func() { version(p.Child("version"), *a.VersionValue) })
	value(a.BoolValues != nil, func() { some(len(a.BoolValues), p.Child("bools"), a.BoolValues) })
	value(a.IntValues != nil, func() { some(len(a.IntValues), p.Child("ints"), a.IntValues) })
	value(a.StringValues != nil, func() {
		some(len(a.StringValues), p.Child("strings"), a.StringValues)
		for i, v := range a.StringValues {
			text(p.Child("strings").Index(i), v)
		}
	})
	value(a.VersionValues != nil, func() {
		some(len(a.VersionValues), p.Child("versions"), a.VersionValues)
		for i, v := range a.VersionValues {
			version(p.Child("versions").Index(i), v)
		}
	})
	switch count {
	case 0:
		errs = append(errs, field.Invalid(p, "", "exactly one value must be specified"))
	case 1:
	default:
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
