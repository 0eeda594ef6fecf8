package cluster

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/netns"
)

// The only server of a cluster comes up with another address, and then with the first one again: it goes on with its
// data, under certificates that name the new address, and nobody has to reset anything.
func TestAddressOfTheOnlyServerChanges(t *testing.T) {
	c := newCluster(t)
	s := c.add("one", "server", 1, nil)
	for boot, n := range []int{1, 9, 1} {
		if err := s.Computer.(*netns.Machine).Move(n); err != nil {
			t.Fatal(err)
		}
		c.start(s)
		client := c.client(s)
		ctx := within(t, readyLimit)
		// The Node is Ready from before until the kubelet has told its new address.
		c.until("the Node's address", func() error {
			node, err := client.CoreV1().Nodes().Get(ctx, "one", metav1.GetOptions{})
			if err != nil {
				return err
			}
			return at(node, netns.Address(n))
		})
		if err := client.NodesReady(ctx, "one"); err != nil {
			t.Fatal(err)
		}
		t.Logf("at %v: Ready %.1f s after power-on", netns.Address(n), time.Since(s.Started()).Seconds())
		maps := client.CoreV1().ConfigMaps("default")
		if boot == 0 {
			if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := maps.Get(ctx, "kept", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kept.Annotations = map[string]string{"at": netns.Address(n).String()}
		if _, err := maps.Update(ctx, kept, metav1.UpdateOptions{}); err != nil {
			t.Errorf("a write at the new address: %v", err)
		}
		for _, port := range []int{6443, 9345, 2379, 2380} {
			if err := c.certificateNames(netip.AddrPortFrom(netns.Address(n), uint16(port))); err != nil {
				t.Errorf("port %d: %v", port, err)
			}
		}
		if _, err := client.PodsReady(ctx, "kube-system", "etcd-one", "kube-apiserver-one", "kube-proxy-one", "coredns-", "kube-flannel-ds-"); err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(within(t, stopLimit)); err != nil {
			t.Fatal(err)
		}
	}
}

// at tells whether the Node's internal address is a certain one.
func at(node *corev1.Node, want netip.Addr) error {
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && a.Address != want.String() {
			return fmt.Errorf("it is %s, want %v", a.Address, want)
		}
	}
	return nil
}

// certificateNames connects to an address on the LAN and tells whether the certificate there is for it.
func (c *cluster) certificateNames(at netip.AddrPort) error {
	conn, err := c.lan.Dial(within(c.t, stopLimit), at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		return s.PeerCertificates[0].VerifyHostname(at.Addr().String())
	}})
	defer client.Close()
	return client.HandshakeContext(within(c.t, stopLimit))
}
