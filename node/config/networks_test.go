package config

import (
	"slices"
	"strings"
	"testing"
)

func TestEnough(t *testing.T) {
	both := addrs("192.0.2.1", "2001:db8::1")
	four, six := both[:1], both[1:]
	for _, c := range []struct {
		name, text  string
		none, v4    bool
		v6, twoOfIt bool
	}{
		{"nothing set: the defaults are of IPv4", "debug: true", false, true, false, true},
		{"IPv4", "cluster-cidr: 10.1.0.0/16", false, true, false, true},
		{"IPv6", "cluster-cidr: fd00:1::/56", false, false, true, true},
		{"by the services' network", "service-cidr: fd00:1::/112", false, false, true, true},
		{"both", "cluster-cidr: [10.1.0.0/16, 'fd00:1::/56']", false, false, false, true},
		{"a node-ip that is set", "node-ip: 2001:db8::1\ncluster-cidr: [10.1.0.0/16, 'fd00:1::/56']", false, true, true, true},
	} {
		loaded, err := load(t, map[string]string{"config.yaml": c.text})
		if err != nil {
			t.Fatal(err)
		}
		got := []bool{loaded.Enough(Host{}), loaded.Enough(Host{Addresses: four}), loaded.Enough(Host{Addresses: six}), loaded.Enough(Host{Addresses: both})}
		if want := []bool{c.none, c.v4, c.v6, c.twoOfIt}; !slices.Equal(got, want) {
			t.Errorf("%s: with no address, IPv4, IPv6 and both: got %v, want %v", c.name, got, want)
		}
	}
}

// TestResolveNetworks: what is left open follows what is set.
func TestResolveNetworks(t *testing.T) {
	both := Host{Name: "n", Addresses: addrs("192.0.2.1", "2001:db8::1")}
	for _, c := range []struct {
		name, text                             string
		host                                   Host
		cluster, service, dns, node, advertise string
	}{
		{"nothing, on a machine of two families", "debug: true", both,
			"10.42.0.0/16", "10.43.0.0/16", "10.43.0.10", "192.0.2.1", "192.0.2.1"},
		{"services follow pods", "cluster-cidr: 10.1.0.0/16,fd00:1::/56", both,
			"10.1.0.0/16 fd00:1::/56", "10.43.0.0/16 fd00:43::/112", "10.43.0.10 fd00:43::a", "192.0.2.1 2001:db8::1", "192.0.2.1"},
		{"IPv6 first", "cluster-cidr: fd00:1::/56,10.1.0.0/16", both,
			"fd00:1::/56 10.1.0.0/16", "fd00:43::/112 10.43.0.0/16", "fd00:43::a 10.43.0.10", "2001:db8::1 192.0.2.1", "2001:db8::1"},
		{"pods follow services", "service-cidr: fd00:2::/112", both,
			"fd00:42::/56", "fd00:2::/112", "fd00:2::a", "2001:db8::1", "2001:db8::1"},
		{"an outer address of the other family advertises nothing", "node-external-ip: 203.0.113.9\ncluster-cidr: fd00:1::/56,10.1.0.0/16", both,
			"fd00:1::/56 10.1.0.0/16", "fd00:43::/112 10.43.0.0/16", "fd00:43::a 10.43.0.10", "2001:db8::1 192.0.2.1", "2001:db8::1"},
		{"node-ip of one family, with a network of the user's", "cni: none\nnode-ip: 192.0.2.1\ncluster-cidr: 10.1.0.0/16,fd00:1::/56", both,
			"10.1.0.0/16 fd00:1::/56", "10.43.0.0/16 fd00:43::/112", "10.43.0.10 fd00:43::a", "192.0.2.1", "192.0.2.1"},
		{"shares of another size", "cluster-cidr: 10.1.0.0/25,fd00:1::/40\nkube-controller-manager-arg: [node-cidr-mask-size-ipv4=26, node-cidr-mask-size-ipv6=56]", both,
			"10.1.0.0/25 fd00:1::/40", "10.43.0.0/16 fd00:43::/112", "10.43.0.10 fd00:43::a", "192.0.2.1 2001:db8::1", "192.0.2.1"},
		{"one size for one family", "cluster-cidr: 10.1.0.0/25\nkube-controller-manager-arg: node-cidr-mask-size=27", both,
			"10.1.0.0/25", "10.43.0.0/16", "10.43.0.10", "192.0.2.1", "192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loaded, err := load(t, map[string]string{"config.yaml": c.text})
			if err != nil {
				t.Fatal(err)
			}
			got, err := loaded.Resolve(c.host)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.ClusterCIDR, prefixes(strings.Fields(c.cluster)...)) || !slices.Equal(got.ServiceCIDR, prefixes(strings.Fields(c.service)...)) ||
				!slices.Equal(got.ClusterDNS, addrs(strings.Fields(c.dns)...)) || !slices.Equal(got.NodeIP, addrs(strings.Fields(c.node)...)) ||
				got.AdvertiseAddress != addrs(c.advertise)[0] {
				t.Errorf("got %v %v %v %v %v", got.ClusterCIDR, got.ServiceCIDR, got.ClusterDNS, got.NodeIP, got.AdvertiseAddress)
			}
		})
	}
}

func TestCheckNetworks(t *testing.T) {
	const dual = "cluster-cidr: 10.1.0.0/16,fd00:1::/56\n"
	for _, c := range []struct{ name, text, want string }{
		{"another order", dual + "service-cidr: fd00:2::/112,10.2.0.0/16", "line 2: service-cidr: is IPv6,IPv4 and cluster-cidr is IPv4,IPv6; make them of the same families, in the same order"},
		{"fewer families", dual + "service-cidr: 10.2.0.0/16", "line 2: service-cidr: is IPv4 and cluster-cidr is IPv4,IPv6"},
		{"three", "cluster-cidr: 10.1.0.0/16,fd00:1::/56,10.3.0.0/16", "line 1: cluster-cidr: has 3 values; give one, or one IPv4 and one IPv6"},
		{"two DNS addresses of a family", "cluster-dns: 10.43.0.10,10.43.0.11", "line 1: cluster-dns: has 2 values"},
		{"node-ip of one family", dual + "node-ip: 192.0.2.1", "line 2: node-ip: is [192.0.2.1] and cluster-cidr is IPv4,IPv6: flannel carries a family between nodes by their addresses of it; give the machine an IPv6 address"},
		{"node-ip in another order", dual + "node-ip: 2001:db8::1,192.0.2.1", "line 2: node-ip: begins with 2001:db8::1 and cluster-cidr with an IPv4 network; write both in the same order"},
		{"node-ip among the pods", "node-ip: 10.42.0.7", "line 1: node-ip: 10.42.0.7 is inside 10.42.0.0/16"},
		{"advertise-address", dual + "advertise-address: 2001:db8::1", "line 2: advertise-address: 2001:db8::1 is not of the family of service-cidr's first network, 10.43.0.0/16"},
		{"large services of IPv6", "service-cidr: fd00:2::/64", "line 1: service-cidr: fd00:2::/64 does not have between 2^4 and 2^20 addresses, which kube-apiserver needs; make its prefix length one of /108 to /124"},
		{"small services", "service-cidr: 10.2.0.0/29", "one of /12 to /28"},
		{"small pods of IPv6", "cluster-cidr: fd00:1::/72", "line 1: cluster-cidr: fd00:1::/72 is smaller than the /64 that one node takes"},
		{"large pods of IPv6", "cluster-cidr: fd00:1::/47", "line 1: cluster-cidr: fd00:1::/47 has more than 2^16 shares of /64, which kube-controller-manager refuses; choose a network of /48 or smaller"},
		{"small pods for the share", "cluster-cidr: 10.1.0.0/24\nkube-controller-manager-arg: node-cidr-mask-size=22", "line 1: cluster-cidr: 10.1.0.0/24 is smaller than the /22"},
		{"one size for two families", dual + "kube-controller-manager-arg: node-cidr-mask-size=24", "line 2: kube-controller-manager-arg: node-cidr-mask-size cannot be used with networks of two families"},
		{"a size twice", "kube-controller-manager-arg: [node-cidr-mask-size=24, node-cidr-mask-size-ipv4=24]", "stands beside"},
		{"a size for a family that is not there", "kube-controller-manager-arg: node-cidr-mask-size-ipv6=64", "node-cidr-mask-size-ipv6 is set and cluster-cidr has no IPv6 network"},
		{"the same for IPv4", "cluster-cidr: fd00:1::/56\nkube-controller-manager-arg: node-cidr-mask-size-ipv4=24", "node-cidr-mask-size-ipv4 is set and cluster-cidr has no IPv4 network"},
		{"no size", "kube-controller-manager-arg: node-cidr-mask-size=/24", `line 1: kube-controller-manager-arg: node-cidr-mask-size is "/24"; write a prefix length`},
		{"no such size", "kube-controller-manager-arg: node-cidr-mask-size=33", "gives every node a /33 of 10.42.0.0/16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loaded, err := load(t, map[string]string{"config.yaml": c.text})
			if err != nil {
				t.Fatal(err)
			}
			_, err = loaded.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1", "2001:db8::1")})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to hold %q", err, c.want)
			}
		})
	}
	// Who has no kube-controller-manager does not know what a share is.
	c := Default()
	c.DisableControllerManager, c.ClusterCIDR = true, prefixes("10.1.0.0/25")
	if _, err := c.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1")}); err != nil {
		t.Error(err)
	}
}

func TestFlannelBackend(t *testing.T) {
	for text, want := range map[string]string{
		"vxlan": "", "wireguard-native": "", "host-gw": "",
		"wireguard": "write wireguard-native", "none": "remove this key and write that", "ipsec": "write vxlan, wireguard-native or host-gw",
	} {
		c, err := load(t, map[string]string{"config.yaml": "flannel-backend: " + text})
		switch {
		case want == "" && (err != nil || c.FlannelBackend != text):
			t.Errorf("%s: got %q, %v", text, c.FlannelBackend, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), "line 1: flannel-backend: ") || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestEveryAddress(t *testing.T) {
	for text, want := range map[string]string{"10.1.0.0/16": "0.0.0.0", "fd00:1::/56": "::"} {
		if got := (Config{ClusterCIDR: prefixes(text)}).EveryAddress(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := (Config{ClusterCIDR: prefixes("10.1.0.0/16", "fd00:1::/56")}).EveryAddress(); got != "::" {
		t.Errorf("both: got %s", got)
	}
}
