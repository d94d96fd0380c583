package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func hooks(ctx *podContext, l *corev1.Lifecycle, p *field.Path) errors {
	if l == nil {
		return nil
	}
	var errs errors
	if l.PostStart != nil {
		errs = append(errs, hook(ctx, l.PostStart, p.Child("postStart"))...)
	}
	if l.PreStop != nil {
		errs = append(errs, hook(ctx, l.PreStop, p.Child("preStop"))...)
	}
	if l.StopSignal != nil {
		errs = append(errs, stopSignal(ctx, *l.StopSignal, p.Child("stopSignal"))...)
	}
	return errs
}

func stopSignal(ctx *podContext, s corev1.Signal, p *field.Path) errors {
	if ctx.spec.OS == nil {
		return errors{field.Forbidden(p, "may not be set for containers with empty `spec.os.name`")}
	}
	if ctx.spec.OS.Name == corev1.Windows && s != corev1.SIGTERM && s != corev1.SIGKILL {
		return errors{field.NotSupported(p, s, []corev1.Signal{corev1.SIGKILL, corev1.SIGTERM})}
	}
	return nil
}

func hook(ctx *podContext, h *corev1.LifecycleHandler, p *field.Path) errors {
	var errs errors
	count := 0
	use := func(name string, set bool, check func(*field.Path) errors) {
		if !set {
			return
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, check(p.Child(name))...)
	}
	use("exec", h.Exec != nil, func(p *field.Path) errors { return execAction(h.Exec, p) })
	use("httpGet", h.HTTPGet != nil, func(p *field.Path) errors { return httpGet(h.HTTPGet, p) })
	use("tcpSocket", h.TCPSocket != nil, func(p *field.Path) errors { return portNumOrName(p.Child("port"), h.TCPSocket.Port) })
	use("sleep", h.Sleep != nil, func(p *field.Path) errors {
		if n := h.Sleep.Seconds; n < 0 || n > ctx.grace {
			return errors{field.Invalid(p, n, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", ctx.grace))}
		}
		return nil
	})
	if count == 0 {
		errs = append(errs, field.Required(p, "must specify a handler type"))
	}
	return errs
}

func execAction(e *corev1.ExecAction, p *field.Path) errors {
	if len(e.Command) == 0 {
		return errors{field.Required(p.Child("command"), "")}
	}
	return nil
}

func httpGet(h *corev1.HTTPGetAction, p *field.Path) errors {
	errs := need(p.Child("path"), h.Path, "")
	errs = append(errs, portNumOrName(p.Child("port"), h.Port)...)
	errs = append(errs, oneOf(p.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, header := range h.HTTPHeaders {
		errs = append(errs, invalid(p.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}

func probes(ctx *podContext, c *corev1.Container, p *field.Path) errors {
	var errs errors
	if l := c.LivenessProbe; l != nil {
		errs = append(errs, probe(l, ctx, p.Child("livenessProbe"))...)
		if l.SuccessThreshold != 1 {
			errs = append(errs, field.Invalid(p.Child("livenessProbe", "successThreshold"), l.SuccessThreshold, "must be 1"))
		}
	}
	if r := c.ReadinessProbe; r != nil {
		errs = append(errs, probe(r, ctx, p.Child("readinessProbe"))...)
		if r.TerminationGracePeriodSeconds != nil {
			errs = append(errs, field.Invalid(p.Child("readinessProbe", "terminationGracePeriodSeconds"), r.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
		}
	}
	if s := c.StartupProbe; s != nil {
		errs = append(errs, probe(s, ctx, p.Child("startupProbe"))...)
		if s.SuccessThreshold != 1 {
			errs = append(errs, field.Invalid(p.Child("startupProbe", "successThreshold"), s.SuccessThreshold, "must be 1"))
		}
	}
	return errs
}

func probe(b *corev1.Probe, ctx *podContext, p *field.Path) errors {
	var errs errors
	count := 0
	use := func(name string, set bool, check func(*field.Path) errors) {
		if !set {
			return
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, check(p.Child(name))...)
	}
	use("exec", b.Exec != nil, func(p *field.Path) errors { return execAction(b.Exec, p) })
	use("httpGet", b.HTTPGet != nil, func(p *field.Path) errors { return httpGet(b.HTTPGet, p) })
	use("tcpSocket", b.TCPSocket != nil, func(p *field.Path) errors { return portNumOrName(p.Child("port"), b.TCPSocket.Port) })
	use("grpc", b.GRPC != nil, func(p *field.Path) errors { return portNumber(p.Child("port"), b.GRPC.Port) })
	if count == 0 {
		errs = append(errs, field.Required(p, "must specify a handler type"))
	}
	errs = append(errs, nonNegative(p.Child("initialDelaySeconds"), b.InitialDelaySeconds)...)
	errs = append(errs, nonNegative(p.Child("timeoutSeconds"), b.TimeoutSeconds)...)
	errs = append(errs, nonNegative(p.Child("periodSeconds"), b.PeriodSeconds)...)
	errs = append(errs, nonNegative(p.Child("successThreshold"), b.SuccessThreshold)...)
	errs = append(errs, nonNegative(p.Child("failureThreshold"), b.FailureThreshold)...)
	if b.TerminationGracePeriodSeconds != nil && *b.TerminationGracePeriodSeconds <= 0 {
		errs = append(errs, field.Invalid(p.Child("terminationGracePeriodSeconds"), *b.TerminationGracePeriodSeconds, "must be greater than 0"))
	}
	return errs
}
