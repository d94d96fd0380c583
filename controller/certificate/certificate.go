package certificate

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "certificatesigningrequest-signing-controller"

// Signer issues a certificate for a request that has been checked, PEM encoded.
type Signer interface {
	Sign(csr *x509.CertificateRequest, usage x509.KeyUsage, ext []x509.ExtKeyUsage, ttl time.Duration) ([]byte, error)
}

type shell struct {
	env    *loop.Env
	signer Signer
	all    *client.Cache[*certv1.CertificateSigningRequest]
	nodes  *client.Cache[*corev1.Node]
	// services and slices say which addresses are no node's.
	services *client.Cache[*corev1.Service]
	slices   *client.Cache[*discoveryv1.EndpointSlice]
}

// New returns the controller.
func New(env *loop.Env, signer Signer) *loop.Controller {
	s := &shell{env: env, signer: signer, all: client.CacheOf[*certv1.CertificateSigningRequest](env.Caches), nodes: client.CacheOf[*corev1.Node](env.Caches),
		services: client.CacheOf[*corev1.Service](env.Caches), slices: client.CacheOf[*discoveryv1.EndpointSlice](env.Caches)}
	q := loop.NewQueue()
	s.all.Handle(func(_, now *certv1.CertificateSigningRequest) {
		if now != nil {
			q.Add(now.Name)
		}
	})
	s.nodes.Handle(func(old, now *corev1.Node) { // a serving request may wait for its node's addresses
		if now != nil && (old == nil || !slices.Equal(old.Status.Addresses, now.Status.Addresses)) {
			for _, csr := range s.all.List() {
				q.Add(csr.Name)
			}
		}
	})
	return &loop.Controller{Name: Name, Queue: q, Sync: s.sync}
}

func (s *shell) sync(ctx context.Context, name string) error {
	csr, ok := s.all.Get("", name)
	if !ok {
		return nil
	}
	var node *corev1.Node
	if n, ok := strings.CutPrefix(csr.Spec.Username, nodePrefix); ok {
		node, _ = s.nodes.Get("", n)
	}
	var taken map[netip.Addr]bool
	if node != nil && csr.Spec.SignerName == certv1.KubeletServingSignerName {
		taken = takenBy(node, s.nodes.List(), s.services.List(), s.slices.List())
	}
	v := plan(csr, node, taken)
	next := csr.DeepCopy()
	res := client.Of[*certv1.CertificateSigningRequest](s.env.T())
	now := metav1.NewTime(s.env.Now())
	if v.approve != "" {
		next.Status.Conditions = append(next.Status.Conditions, certv1.CertificateSigningRequestCondition{Type: certv1.CertificateApproved, Status: corev1.ConditionTrue,
			Reason: "AutoApproved", Message: v.approve, LastUpdateTime: now, LastTransitionTime: now})
		var err error
		if next, err = res.UpdateSub(ctx, next, "approval"); err != nil {
			return fmt.Errorf("approve certificate request %s: %w", name, err)
		}
		next = next.DeepCopy()
	}
	switch {
	case v.fail != "":
		next.Status.Conditions = append(next.Status.Conditions, certv1.CertificateSigningRequestCondition{Type: certv1.CertificateFailed, Status: corev1.ConditionTrue,
			Reason: "SignerValidationFailure", Message: v.fail, LastUpdateTime: now, LastTransitionTime: now})
	case v.sign:
		req, err := parse(csr.Spec.Request)
		if err != nil {
			return err
		}
		if next.Status.Certificate, err = s.signer.Sign(req, v.usage, v.ext, v.ttl); err != nil {
			return fmt.Errorf("sign certificate request %s: %w", name, err)
		}
	default:
		return nil
	}
	if _, err := res.UpdateStatus(ctx, next); err != nil {
		return fmt.Errorf("answer certificate request %s: %w", name, err)
	}
	return nil
}
