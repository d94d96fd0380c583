package admission

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/client"
)

// newest returns the one of list that was made last, by name among equals.
func newest[T client.Object](list []T) (T, bool) {
	var none T
	if len(list) == 0 {
		return none, false
	}
	return slices.MinFunc(list, func(a, b T) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		if at.UnixNano() != bt.UnixNano() {
			if at.After(bt.Time) {
				return -1
			}
			return 1
		}
		return strings.Compare(a.GetName(), b.GetName())
	}), true
}

func marked[T client.Object](list []T, annotations ...string) []T {
	return slices.DeleteFunc(list, func(o T) bool {
		for _, k := range annotations {
			if o.GetAnnotations()[k] == "true" {
				return false
			}
		}
		return true
	})
}

// defaultStorageClass gives a claim that names no class the default one.
func defaultStorageClass(d Deps) Plugin {
	classes := from[*storagev1.StorageClass](d.Caches)
	return Plugin{Name: "DefaultStorageClass", Mutate: when(creates, func(_ context.Context, a *Attributes) error {
		pvc, err := object[*corev1.PersistentVolumeClaim](a.Object, "claim")
		if err != nil {
			return err
		}
		if _, old := pvc.Annotations[corev1.BetaStorageClassAnnotation]; old || pvc.Spec.StorageClassName != nil {
			return nil
		}
		if c, ok := newest(marked(classes.cache.List(), "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")); ok {
			name := c.Name
			pvc.Spec.StorageClassName = &name
		}
		return nil
	}, "", claims)}
}

// defaultIngressClass gives an ingress that names no class the default one.
func defaultIngressClass(d Deps) Plugin {
	classes := from[*netv1.IngressClass](d.Caches)
	return Plugin{Name: "DefaultIngressClass", Mutate: when(creates, func(_ context.Context, a *Attributes) error {
		ing, err := object[*netv1.Ingress](a.Object, "ingress")
		if err != nil {
			return err
		}
		if _, old := ing.Annotations["kubernetes.io/ingress.class"]; old || ing.Spec.IngressClassName != nil {
			return nil
		}
		if c, ok := newest(marked(classes.cache.List(), netv1.AnnotationIsDefaultIngressClass)); ok {
			name := c.Name
			ing.Spec.IngressClassName = &name
		}
		return nil
	}, "", schema.GroupResource{Group: netv1.GroupName, Resource: "ingresses"})}
}

// storageObjectInUse keeps volumes, claims and volume attributes classes until nobody uses them: their controllers take
// the finalizer off again.
func storageObjectInUse() Plugin {
	vac := schema.GroupResource{Group: storagev1.GroupName, Resource: "volumeattributesclasses"}
	finalizers := map[schema.GroupResource]string{claims: "kubernetes.io/pvc-protection",
		core("persistentvolumes"): "kubernetes.io/pv-protection", vac: "kubernetes.io/vac-protection"}
	return Plugin{Name: "StorageObjectInUseProtection", Mutate: when(creates, func(_ context.Context, a *Attributes) error {
		m, err := object[client.Object](a.Object, a.Row.Resource)
		if err != nil {
			return err
		}
		if f := finalizers[a.Row.GR()]; !slices.Contains(m.GetFinalizers(), f) {
			m.SetFinalizers(append(slices.Clone(m.GetFinalizers()), f))
		}
		return nil
	}, "", claims, core("persistentvolumes"), vac)}
}

// claimResize lets a claim grow only where its class says that volumes can.
func claimResize(d Deps) Plugin {
	classes := from[*storagev1.StorageClass](d.Caches)
	return Plugin{Name: "PersistentVolumeClaimResize", Validate: when(updates, func(ctx context.Context, a *Attributes) error {
		pvc, err := object[*corev1.PersistentVolumeClaim](a.Object, "claim")
		if err != nil {
			return err
		}
		old, err := object[*corev1.PersistentVolumeClaim](a.Old, "claim")
		if err != nil {
			return err
		}
		want, had := pvc.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
		if want.Cmp(had) <= 0 {
			return nil
		}
		if old.Status.Phase != corev1.ClaimBound {
			return a.forbidden("Only bound persistent volume claims can be expanded")
		}
		class := pvc.Annotations[corev1.BetaStorageClassAnnotation]
		if class == "" && pvc.Spec.StorageClassName != nil {
			class = *pvc.Spec.StorageClassName
		}
		if class != "" {
			sc, err := classes.get(ctx, "", class)
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			if err == nil && sc.AllowVolumeExpansion != nil && *sc.AllowVolumeExpansion {
				return nil
			}
		}
		return a.forbidden("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	}, "", claims)}
}
