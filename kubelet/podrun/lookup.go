package podrun

import (
	"context"
	"fmt"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"karve/client"
)

// lookup reads what one pod refers to.
type lookup struct {
	ctx context.Context
	set *Set
	pod *corev1.Pod
}

func (l lookup) ConfigMap(name string) (*corev1.ConfigMap, error) {
	return l.set.objects.ConfigMap(l.ctx, l.pod.UID, l.pod.Namespace, name)
}

func (l lookup) Secret(name string) (*corev1.Secret, error) {
	return l.set.objects.Secret(l.ctx, l.pod.UID, l.pod.Namespace, name)
}

// pullSecrets returns the pod's image pull secrets that exist.
func (l lookup) pullSecrets() []*corev1.Secret {
	var out []*corev1.Secret
	for _, r := range l.pod.Spec.ImagePullSecrets {
		if r.Name == "" {
			continue
		}
		s, err := l.Secret(r.Name)
		if err != nil {
			l.set.event(l.pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", r.Name))
			continue
		}
		out = append(out, s)
	}
	return out
}

// Path returns the host path behind a claim.
func (l lookup) Path(claim string) (string, bool, error) {
	pvc, err := client.Of[*corev1.PersistentVolumeClaim](l.set.Transport).Get(l.ctx, l.pod.Namespace, claim)
	if err != nil {
		return "", false, err
	}
	if pvc.Status.Phase != corev1.ClaimBound || pvc.Spec.VolumeName == "" {
		return "", false, fmt.Errorf("persistentvolumeclaim %q is not bound", claim)
	}
	pv, err := client.Of[*corev1.PersistentVolume](l.set.Transport).Get(l.ctx, "", pvc.Spec.VolumeName)
	if err != nil {
		return "", false, err
	}
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != pvc.UID {
		return "", false, fmt.Errorf("persistentvolume %q is bound to another claim", pv.Name)
	}
	readonly := len(pv.Spec.AccessModes) == 1 && pv.Spec.AccessModes[0] == corev1.ReadOnlyMany
	switch {
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, readonly, nil
	case pv.Spec.Local != nil:
		return pv.Spec.Local.Path, readonly, nil
	}
	return "", false, fmt.Errorf("persistentvolume %q is of a kind that this node does not know", pv.Name)
}

// Token asks for a token bound to the pod.
func (l lookup) Token(p *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	account := l.pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	req := &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{ExpirationSeconds: &seconds,
		BoundObjectRef: &authnv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: l.pod.Name, UID: l.pod.UID}}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	got, err := client.Of[*corev1.ServiceAccount](l.set.Transport).CreateSub(l.ctx, l.pod.Namespace, account, "token", req)
	if err != nil {
		return "", time.Time{}, err
	}
	tr, ok := got.(*authnv1.TokenRequest)
	if !ok {
		return "", time.Time{}, fmt.Errorf("request token: the server answered with a %T", got)
	}
	return tr.Status.Token, tr.Status.ExpirationTimestamp.Time, nil
}
