package pod

import (
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/network/testnet"
)

// firstSender sends a packet from each source, in this order, and returns the source of the first that arrives.
func firstSender(t *testing.T, from, to *testnet.NS, at string, sources ...string) string {
	t.Helper()
	var in net.PacketConn
	to.Must(func() (err error) {
		in, err = net.ListenPacket("udp4", at+":9999")
		return err
	})
	defer in.Close()
	for _, src := range sources {
		from.Must(func() error {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(src)}, &net.UDPAddr{IP: net.ParseIP(at), Port: 9999})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		})
	}
	in.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // reading says so
	_, sender, err := in.ReadFrom(make([]byte, 1))
	if err != nil {
		t.Fatal(err)
	}
	return sender.(*net.UDPAddr).IP.String()
}

func nodeObject(name, ip, cidr string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}}}
}
