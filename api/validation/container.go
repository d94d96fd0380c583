package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podContext is what the checks of a container need to know of the pod around it.
type podContext struct {
	spec    *corev1.PodSpec
	volumes map[string]corev1.VolumeSource
	claims  sets.Set[string]
	// grace is the pod's termination grace period in seconds.
	grace int64
	// pod tells that it is a pod, not a template of one.
	pod bool
}

// containerLists checks regular and init containers together: their names share one space.
func containerLists(ctx *podContext, p *field.Path) errors {
	var errs errors
	names := sets.New[string]()
	s := ctx.spec
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(p.Child("containers"), ""))
	}
	hostPorts := map[string]bool{}
	for i := range s.Containers {
		c, at := &s.Containers[i], p.Child("containers").Index(i)
		errs = append(errs, container(ctx, c, at)...)
		errs = append(errs, uniqueName(names, c.Name, at)...)
		errs = append(errs, hooks(ctx, c.Lifecycle, at.Child("lifecycle"))...)
		errs = append(errs, probes(ctx, c, at)...)
		errs = append(errs, restartRules(c, at)...)
	}
	errs = append(errs, portConflicts(s.Containers, hostPorts, p.Child("containers"))...)
	for i := range s.InitContainers {
		c, at := &s.InitContainers[i], p.Child("initContainers").Index(i)
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		errs = append(errs, container(ctx, c, at)...)
		errs = append(errs, restartRules(c, at)...)
		errs = append(errs, uniqueName(names, c.Name, at)...)
		if sidecar {
			errs = append(errs, hooks(ctx, c.Lifecycle, at.Child("lifecycle"))...)
			errs = append(errs, probes(ctx, c, at)...)
		} else {
			const only = "may not be set for init containers without restartPolicy=Always"
			for _, f := range []struct {
				set  bool
				name string
			}{{c.Lifecycle != nil, "lifecycle"}, {c.LivenessProbe != nil, "livenessProbe"}, {c.ReadinessProbe != nil, "readinessProbe"}, {c.StartupProbe != nil, "startupProbe"}} {
				if f.set {
					errs = append(errs, field.Forbidden(at.Child(f.name), only))
				}
			}
		}
		errs = append(errs, portConflicts(s.InitContainers[i:i+1], map[string]bool{}, p.Child("initContainers"))...)
	}
	return append(errs, ephemeralContainers(ctx, p.Child("ephemeralContainers"), names)...)
}

// restartRules checks when a container is started again on its own terms.
func restartRules(c *corev1.Container, p *field.Path) errors {
	var errs errors
	if c.RestartPolicy != nil {
		errs = append(errs, oneOf(p.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	} else if len(c.RestartPolicyRules) > 0 {
		errs = append(errs, field.Required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	rules := p.Child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > 20 {
		errs = append(errs, field.TooLong(rules, c.RestartPolicyRules, 20))
	}
	for i, r := range c.RestartPolicyRules {
		at := rules.Index(i)
		errs = append(errs, oneOf(at.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		codes := at.Child("exitCodes")
		errs = append(errs, oneOf(codes.Child("operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if len(r.ExitCodes.Values) > 255 {
			errs = append(errs, field.TooLong(codes.Child("values"), r.ExitCodes.Values, 255))
		}
	}
	return errs
}

func uniqueName(names sets.Set[string], name string, p *field.Path) errors {
	if name == "" {
		return nil
	}
	if names.Has(name) {
		return errors{field.Duplicate(p.Child("name"), name)}
	}
	names.Insert(name)
	return nil
}

// container checks what every sort of container has.
func container(ctx *podContext, c *corev1.Container, p *field.Path) errors {
	var errs errors
	if c.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		errs = append(errs, dnsLabel(p.Child("name"), c.Name)...)
	}
	if c.Image == "" {
		errs = append(errs, field.Required(p.Child("image"), ""))
	} else if ctx.pod {
		errs = append(errs, unpadded(c.Image, p.Child("image"))...)
	}
	errs = append(errs, oneOfRequired(p.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, ports(c.Ports, p.Child("ports"))...)
	errs = append(errs, env(ctx, c.Env, p.Child("env"))...)
	errs = append(errs, envFrom(c.EnvFrom, p.Child("envFrom"))...)
	errs = append(errs, mounts(ctx, c, p.Child("volumeMounts"))...)
	errs = append(errs, devices(ctx, c, p.Child("volumeDevices"))...)
	errs = append(errs, oneOfRequired(p.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, containerResources(&c.Resources, ctx, p.Child("resources"))...)
	errs = append(errs, resizePolicy(ctx, c, p.Child("resizePolicy"))...)
	return append(errs, securityContext(ctx, c.SecurityContext, p.Child("securityContext"))...)
}

func ports(list []corev1.ContainerPort, p *field.Path) errors {
	var errs errors
	names := sets.New[string]()
	for i := range list {
		c, at := &list[i], p.Index(i)
		if c.Name != "" {
			if m := validation.IsValidPortName(c.Name); len(m) > 0 {
				errs = append(errs, invalid(at.Child("name"), c.Name, m)...)
			} else if names.Has(c.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
			} else {
				names.Insert(c.Name)
			}
		}
		if c.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, portNumber(at.Child("containerPort"), c.ContainerPort)...)
		}
		if c.HostPort != 0 {
			errs = append(errs, portNumber(at.Child("hostPort"), c.HostPort)...)
		}
		errs = append(errs, oneOfRequired(at.Child("protocol"), c.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

// portConflicts refuses a host port that is taken twice.
func portConflicts(cs []corev1.Container, taken map[string]bool, p *field.Path) errors {
	var errs errors
	for i := range cs {
		for j := range cs[i].Ports {
			c := &cs[i].Ports[j]
			if c.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", c.Protocol, c.HostIP, c.HostPort)
			if taken[key] {
				errs = append(errs, field.Duplicate(p.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			taken[key] = true
		}
	}
	return errs
}

func env(ctx *podContext, list []corev1.EnvVar, p *field.Path) errors {
	var errs errors
	for i := range list {
		e, at := &list[i], p.Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, invalid(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
		}
		errs = append(errs, envSource(ctx, e, at.Child("valueFrom"))...)
	}
	return errs
}

func envSource(ctx *podContext, e *corev1.EnvVar, p *field.Path) errors {
	from := e.ValueFrom
	if from == nil {
		return nil
	}
	var errs errors
	count := 0
	if from.FieldRef != nil {
		count++
		errs = append(errs, objectField(from.FieldRef, envFields, p.Child("fieldRef"))...)
	}
	if from.ResourceFieldRef != nil {
		count++
		errs = append(errs, resourceField(from.ResourceFieldRef, p.Child("resourceFieldRef"), false)...)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		count++
		errs = append(errs, keyRef(r.Name, r.Key, p.Child("configMapKeyRef"))...)
	}
	if r := from.SecretKeyRef; r != nil {
		count++
		errs = append(errs, keyRef(r.Name, r.Key, p.Child("secretKeyRef"))...)
	}
	if r := from.FileKeyRef; r != nil {
		count++
		errs = append(errs, fileKeyRef(ctx, r, p.Child("fileKeyRef"))...)
	}
	switch {
	case count == 0:
		errs = append(errs, field.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(p, "", "may not be specified when `value` is not empty"))
	case count > 1:
		errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func keyRef(name, key string, p *field.Path) errors {
	errs := invalid(p.Child("name"), name, subdomain(name, false))
	if key == "" {
		return append(errs, field.Required(p.Child("key"), ""))
	}
	return append(errs, invalid(p.Child("key"), key, validation.IsConfigMapKey(key))...)
}

func fileKeyRef(ctx *podContext, r *corev1.FileKeySelector, p *field.Path) errors {
	var errs errors
	if r.Key == "" {
		errs = append(errs, field.Required(p.Child("key"), ""))
	} else {
		errs = append(errs, invalid(p.Child("key"), r.Key, validation.IsRelaxedEnvVarName(r.Key))...)
	}
	if r.VolumeName == "" {
		errs = append(errs, field.Required(p.Child("volumeName"), ""))
	} else if v, ok := ctx.volumes[r.VolumeName]; !ok {
		errs = append(errs, field.NotFound(p.Child("volumeName"), r.VolumeName))
	} else if v.EmptyDir == nil {
		errs = append(errs, field.Invalid(p.Child("volumeName"), r.VolumeName, "referenced volume must be of type emptyDir"))
	}
	if r.Path == "" {
		return append(errs, field.Required(p.Child("path"), ""))
	}
	return append(errs, projectedPath(p.Child("path"), r.Path)...)
}

func envFrom(list []corev1.EnvFromSource, p *field.Path) errors {
	var errs errors
	for i := range list {
		e, at := &list[i], p.Index(i)
		if e.Prefix != "" {
			errs = append(errs, invalid(at.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))...)
		}
		count := 0
		ref := func(name string, q *field.Path) {
			count++
			if name == "" {
				errs = append(errs, field.Required(q.Child("name"), ""))
			} else {
				errs = append(errs, invalid(q.Child("name"), name, subdomain(name, false))...)
			}
		}
		if e.ConfigMapRef != nil {
			ref(e.ConfigMapRef.Name, at.Child("configMapRef"))
		}
		if e.SecretRef != nil {
			ref(e.SecretRef.Name, at.Child("secretRef"))
		}
		// reported at the list
		switch {
		case count == 0:
			errs = append(errs, field.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`"))
		case count > 1:
			errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

func mounts(ctx *podContext, c *corev1.Container, p *field.Path) errors {
	var errs errors
	paths := sets.New[string]()
	deviceNames, devicePaths := sets.New[string](), sets.New[string]()
	for _, d := range c.VolumeDevices {
		deviceNames.Insert(d.Name)
		devicePaths.Insert(d.DevicePath)
	}
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], p.Index(i)
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if !ctx.mountable(m.Name) {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		}
		if paths.Has(m.MountPath) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		paths.Insert(m.MountPath)
		if deviceNames.Has(m.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if devicePaths.Has(m.MountPath) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		if m.SubPath != "" {
			errs = append(errs, descending(p.Child("subPath"), m.SubPath)...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, descending(p.Child("subPathExpr"), m.SubPathExpr)...)
		}
		errs = append(errs, propagation(m, c, p)...)
	}
	return errs
}

func propagation(m *corev1.VolumeMount, c *corev1.Container, p *field.Path) errors {
	var errs errors
	if m.MountPropagation != nil {
		at := p.Child("mountPropagation")
		errs = append(errs, oneOf(at, *m.MountPropagation, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
		privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
		if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
			errs = append(errs, field.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if m.RecursiveReadOnly == nil {
		return errs
	}
	at := p.Child("recursiveReadOnly")
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			errs = append(errs, field.Forbidden(at, "may only be specified when readOnly is true"))
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			errs = append(errs, field.Forbidden(at, "may only be specified when mountPropagation is None or not specified"))
		}
	default:
		errs = append(errs, oneOf(at, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)...)
	}
	return errs
}

func (ctx *podContext) mountable(name string) bool {
	_, ok := ctx.volumes[name]
	return ok
}

func devices(ctx *podContext, c *corev1.Container, p *field.Path) errors {
	var errs errors
	names, paths := sets.New[string](), sets.New[string]()
	mountNames, mountPaths := sets.New[string](), sets.New[string]()
	for _, m := range c.VolumeMounts {
		mountNames.Insert(m.Name)
		mountPaths.Insert(m.MountPath)
	}
	for i := range c.VolumeDevices {
		d, at := &c.VolumeDevices[i], p.Index(i)
		if d.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if names.Has(d.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		source, found := ctx.volumes[d.Name]
		if found && source.PersistentVolumeClaim == nil && source.Ephemeral == nil {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		if !found {
			errs = append(errs, field.NotFound(at.Child("name"), d.Name))
		}
		if d.DevicePath == "" {
			errs = append(errs, field.Required(at.Child("devicePath"), ""))
		}
		if paths.Has(d.DevicePath) {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if d.DevicePath != "" && len(noBacksteps(at.Child("devicePath"), d.DevicePath)) > 0 {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		} else {
			paths.Insert(d.DevicePath)
		}
		if d.Name != "" {
			names.Insert(d.Name)
		}
		if mountNames.Has(d.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		if mountPaths.Has(d.DevicePath) {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
	}
	return errs
}

func resizePolicy(ctx *podContext, c *corev1.Container, p *field.Path) errors {
	var errs errors
	seen := map[corev1.ResourceName]bool{}
	for i, r := range c.ResizePolicy {
		if seen[r.ResourceName] {
			errs = append(errs, field.Duplicate(p.Index(i), r.ResourceName))
		}
		seen[r.ResourceName] = true
		switch r.ResourceName {
		case corev1.ResourceCPU, corev1.ResourceMemory:
		case "":
			errs = append(errs, field.Required(p, ""))
		default:
			errs = append(errs, field.NotSupported(p, r.ResourceName, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}))
		}
		switch r.RestartPolicy {
		case corev1.NotRequired, corev1.RestartContainer:
		case "":
			errs = append(errs, field.Required(p, ""))
		default:
			errs = append(errs, field.NotSupported(p, r.RestartPolicy, []corev1.ResourceResizeRestartPolicy{corev1.NotRequired, corev1.RestartContainer}))
		}
		if ctx.spec.RestartPolicy == corev1.RestartPolicyNever && r.RestartPolicy == corev1.RestartContainer && !alwaysRestarts(c) {
			errs = append(errs, field.Invalid(p, r.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

func alwaysRestarts(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func ephemeralContainers(ctx *podContext, p *field.Path, names sets.Set[string]) errors {
	var errs errors
	own := sets.New[string]()
	for _, c := range ctx.spec.Containers {
		own.Insert(c.Name)
	}
	for i := range ctx.spec.EphemeralContainers {
		e, at := &ctx.spec.EphemeralContainers[i], p.Index(i)
		c := corev1.Container(e.EphemeralContainerCommon)
		errs = append(errs, container(ctx, &c, at)...)
		errs = append(errs, uniqueName(names, c.Name, at)...)
		if e.TargetContainerName != "" && !own.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
		}
		for _, f := range []struct {
			set  bool
			name string
		}{{len(c.Ports) > 0, "ports"}, {c.Lifecycle != nil, "lifecycle"}, {c.LivenessProbe != nil, "livenessProbe"}, {c.ReadinessProbe != nil, "readinessProbe"},
			{c.StartupProbe != nil, "startupProbe"}, {len(c.Resources.Limits)+len(c.Resources.Requests) > 0, "resources"}, {len(c.ResizePolicy) > 0, "resizePolicy"}} {
			if f.set {
				errs = append(errs, field.Forbidden(at.Child(f.name), "cannot be set for an Ephemeral Container"))
			}
		}
		if c.RestartPolicy != nil {
			errs = append(errs, field.Forbidden(at.Child("restartPolicy"), "may not be set for ephemeral containers"))
		}
		for j, m := range c.VolumeMounts {
			if m.SubPath != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), "cannot be set for an Ephemeral Container"))
			}
			if m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
			}
		}
	}
	return errs
}
