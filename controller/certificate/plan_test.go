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
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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
		v := plan(csr, node, nil)
		if (v.approve != "") != c.approve || v.sign != c.sign || (v.fail != "") != c.fail {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// A node says itself which addresses it has and how it is called. A certificate for what it says must not let it pass for
// the API server, a Service or another node.
func TestServingIdentity(t *testing.T) {
	at := func(name string, minute int, addresses ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(60*minute), 0))}}
		for _, a := range addresses {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		return n
	}
	others := []*corev1.Node{at("first", 1, "10.0.0.1"), at("later", 9, "10.0.0.9")}
	services := []*corev1.Service{{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "fd00::1"}}}, {Spec: corev1.ServiceSpec{ClusterIP: "None"}}}
	api := []*discoveryv1.EndpointSlice{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.100"}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.5"}}}},
	}
	for _, c := range []struct {
		node    *corev1.Node
		name    string
		ip      string
		approve bool
	}{
		{at("n", 5, "10.0.0.5"), "n", "10.0.0.5", true},
		{at("n", 5, "10.0.0.5"), "n", "", true},
		{at("n", 5, "10.0.0.5", "10.0.0.9"), "n", "10.0.0.9", true}, // who was there before keeps it
		{at("n", 5, "10.0.0.5"), "n", "10.0.0.6", false},
		{at("n", 5, "10.0.0.1"), "n", "10.0.0.1", false},
		{at("n", 5, "10.0.0.100"), "n", "10.0.0.100", false},
		{at("n", 5, "10.96.0.1"), "n", "10.96.0.1", false},
		{at("n", 5, "fd00::1"), "n", "fd00::1", false},
		{at("n", 5, "127.0.0.1"), "n", "127.0.0.1", false},
		{at("n", 5, "kubernetes.default.svc"), "kubernetes.default.svc", "", false},
		{at("kubernetes", 5), "kubernetes", "", false},
		{at("localhost", 5), "localhost", "", false},
		{at("kubernetes.default.svc", 5), "kubernetes.default.svc", "", false},
		{at("pay.prod.svc.cluster.local", 5), "pay.prod.svc.cluster.local", "", false},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want := &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodePrefix + c.node.Name, Organization: []string{nodesGroup}}, DNSNames: []string{c.name}}
		if c.ip != "" {
			want.IPAddresses = []net.IP{net.ParseIP(c.ip)}
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, want, key)
		if err != nil {
			t.Fatal(err)
		}
		csr := &certv1.CertificateSigningRequest{Spec: certv1.CertificateSigningRequestSpec{SignerName: certv1.KubeletServingSignerName,
			Usages: []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageServerAuth}, Username: nodePrefix + c.node.Name, Groups: []string{nodesGroup},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
		v := plan(csr, c.node, takenBy(c.node, append(others, c.node), services, api))
		if v.sign != c.approve {
			t.Errorf("%s asks for %s and %s: %+v", c.node.Name, c.name, c.ip, v)
		}
	}
}
