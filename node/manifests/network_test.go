package manifests

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/flannel-io/flannel/pkg/subnet"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"keelson/node/config"
)

// TestNetwork: what flannel itself reads out of its configuration, and the address that CoreDNS asks for, in clusters of
// either family and of both.
func TestNetwork(t *testing.T) {
	for _, c := range []struct {
		name          string
		pods, dns     []string
		backend, kind string
		v4, v6        string
		annotation    string
	}{
		{"IPv4", []string{"10.42.0.0/16"}, []string{"10.43.0.10"}, config.FlannelVXLAN, "vxlan", "10.42.0.0/16", "", "vxlan 10.42.0.0/16"},
		{"IPv6", []string{"fd00:42::/56"}, []string{"fd00:43::a"}, config.FlannelHostGW, "host-gw", "", "fd00:42::/56", "host-gw fd00:42::/56"},
		{"both", []string{"10.42.0.0/16", "fd00:42::/56"}, []string{"10.43.0.10", "fd00:43::a"}, config.FlannelWireGuard, "wireguard",
			"10.42.0.0/16", "fd00:42::/56", "wireguard 10.42.0.0/16,fd00:42::/56"},
		{"IPv6 first", []string{"fd00:42::/56", "10.42.0.0/16"}, []string{"fd00:43::a", "10.43.0.10"}, config.FlannelVXLAN, "vxlan",
			"10.42.0.0/16", "fd00:42::/56", "vxlan fd00:42::/56,10.42.0.0/16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			p.ClusterCIDR, p.ClusterDNS, p.FlannelBackend = networks(c.pods...), addresses(c.dns...), c.backend
			rendered, err := Render(os.DirFS(source), p)
			if err != nil {
				t.Fatal(err)
			}
			got, err := subnet.ParseConfig(find[*corev1.ConfigMap](t, rendered["rke2-flannel.yaml"]).Data["net-conf.json"])
			if err != nil {
				t.Fatal(err)
			}
			if got.EnableIPv4 != (c.v4 != "") || got.EnableIPv6 != (c.v6 != "") || got.BackendType != c.kind || !got.EnableNFTables {
				t.Errorf("got %+v", got)
			}
			if got.Network.Empty() != (c.v4 == "") || c.v4 != "" && got.Network.String() != c.v4 {
				t.Errorf("IPv4: got %s, want %q", got.Network, c.v4)
			}
			if got.IPv6Network.Empty() != (c.v6 == "") || c.v6 != "" && got.IPv6Network.String() != c.v6 {
				t.Errorf("IPv6: got %s, want %q", got.IPv6Network, c.v6)
			}
			if !bytes.Contains(rendered["rke2-flannel.yaml"], []byte("keelson.io/network: "+c.annotation+"\n")) {
				t.Errorf("the pod does not change with %s", c.annotation)
			}
			service := find[*corev1.Service](t, rendered["rke2-coredns.yaml"]).Spec
			if service.ClusterIP != c.dns[0] || !slices.Equal(service.ClusterIPs, c.dns) || *service.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack {
				t.Errorf("DNS: got %s, %v, %s", service.ClusterIP, service.ClusterIPs, *service.IPFamilyPolicy)
			}
		})
	}
}

// find returns the first object of a kind.
func find[T any](t *testing.T, content []byte) (found T) {
	t.Helper()
	for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := object.(T); ok {
			return o
		}
	}
	t.Fatalf("there is no %T", found)
	return found
}
