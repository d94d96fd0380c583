package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"testing"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func request(t *testing.T, cn, org string, ips ...net.IP) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: []string{org}}, IPAddresses: ips}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestPlan(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}}}
	clientUse, serverUse := []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageClientAuth}, []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageServerAuth}
	own, foreign := net.ParseIP("10.0.0.1"), net.ParseIP("10.0.0.9")
	for _, c := range []struct {
		name     string
		spec     certv1.CertificateSigningRequestSpec
		approved bool
		approve  bool
		sign     bool
		fail     bool
	}{
		{name: "a machine joins", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientKubeletSignerName, Usages: clientUse,
			Username: "system:bootstrap:abc", Groups: []string{bootstrappers}, Request: request(t, "system:node:n1", nodesGroup)}, approve: true, sign: true},
		{name: "a node renews", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientKubeletSignerName, Usages: clientUse,
			Username: "system:node:n1", Groups: []string{nodesGroup}, Request: request(t, "system:node:n1", nodesGroup)}, approve: true, sign: true},
		{name: "a node asks to be another", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientKubeletSignerName, Usages: clientUse,
			Username: "system:node:n1", Groups: []string{nodesGroup}, Request: request(t, "system:node:n2", nodesGroup)}},
		{name: "a node asks to be admin", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientKubeletSignerName, Usages: clientUse,
			Username: "system:node:n1", Groups: []string{nodesGroup}, Request: request(t, "system:node:n1", "system:masters")}},
		{name: "serving for its own address", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeletServingSignerName, Usages: serverUse,
			Username: "system:node:n1", Groups: []string{nodesGroup}, Request: request(t, "system:node:n1", nodesGroup, own)}, approve: true, sign: true},
		{name: "serving for another's address", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeletServingSignerName, Usages: serverUse,
			Username: "system:node:n1", Groups: []string{nodesGroup}, Request: request(t, "system:node:n1", nodesGroup, foreign)}},
		{name: "a person's request waits", spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientSignerName, Usages: clientUse,
			Username: "jane", Request: request(t, "jane", "dev")}},
		{name: "a person's request, approved", approved: true, spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientSignerName, Usages: clientUse,
			Username: "jane", Request: request(t, "jane", "dev")}, sign: true},
		{name: "masters, approved", approved: true, spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeAPIServerClientSignerName, Usages: clientUse,
			Username: "jane", Request: request(t, "jane", "system:masters")}, fail: true},
		{name: "another signer's", approved: true, spec: certv1.CertificateSigningRequestSpec{SignerName: "example.com/mine", Usages: clientUse, Request: request(t, "x", "y")}},
	} {
		csr := &certv1.CertificateSigningRequest{Spec: c.spec}
		if c.approved {
			csr.Status.Conditions = []certv1.CertificateSigningRequestCondition{{Type: certv1.CertificateApproved}}
		}
		v := plan(csr, node)
		if (v.approve != "") != c.approve || v.sign != c.sign || (v.fail != "") != c.fail {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}
