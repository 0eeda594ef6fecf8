package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range all {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestResolveDefaults(t *testing.T) {
	got, err := Default().Resolve(Host{Name: "Node-1", Addresses: addrs("10.0.2.15", "10.0.3.1", "fe80::1")})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.NodeName = "node-1"
	want.NodeIP = addrs("10.0.2.15")
	want.AdvertiseAddress = netip.MustParseAddr("10.0.2.15")
	want.ClusterCIDR = prefixes("10.42.0.0/16")
	want.ServiceCIDR = prefixes("10.43.0.0/16")
	want.ClusterDNS = addrs("10.43.0.10")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if got, want := got.ServiceIPs(), addrs("10.43.0.1"); !slices.Equal(got, want) {
		t.Errorf("ServiceIPs: got %v, want %v", got, want)
	}
}

func TestResolveOfIPv6Node(t *testing.T) {
	c, err := Default().Resolve(Host{Name: "n", Addresses: addrs("2001:db8::5")})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.ClusterCIDR, prefixes("fd00:42::/56")) || !slices.Equal(c.ServiceCIDR, prefixes("fd00:43::/112")) || !slices.Equal(c.ClusterDNS, addrs("fd00:43::a")) {
		t.Errorf("got %v %v %v", c.ClusterCIDR, c.ServiceCIDR, c.ClusterDNS)
	}
}

func TestResolveOfTwoFamilies(t *testing.T) {
	c := Default()
	c.ClusterCIDR = prefixes("10.1.0.0/16", "fd00:1::/56")
	c.ServiceCIDR = prefixes("10.2.0.0/16", "fd00:2::/112")
	c.NodeExternalIP = addrs("203.0.113.9")
	c, err := c.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1", "2001:db8::1")})
	if err != nil {
		t.Fatal(err)
	}
	if want := addrs("10.2.0.10", "fd00:2::a"); !slices.Equal(c.ClusterDNS, want) {
		t.Errorf("cluster-dns: got %v, want %v", c.ClusterDNS, want)
	}
	if want := addrs("192.0.2.1", "2001:db8::1"); !slices.Equal(c.NodeIP, want) {
		t.Errorf("node-ip: got %v, want %v", c.NodeIP, want)
	}
	if c.AdvertiseAddress != c.NodeExternalIP[0] {
		t.Errorf("advertise-address: got %v, want the external one", c.AdvertiseAddress)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"dns outside", "debug: true\ncluster-dns: 10.96.0.10", "line 2: cluster-dns: 10.96.0.10 is not in service-cidr"},
		{"overlap", "cluster-cidr: 10.0.0.0/8", "overlap"},
		{"families of networks", "cluster-cidr: 10.42.0.0/16\nservice-cidr: fd00:2::/112", "line 2: service-cidr: is IPv6 and cluster-cidr is IPv4; make them of the same families, in the same order"},
		{"families of the node", "node-ip: fd00::1\ncluster-cidr: 10.42.0.0/16\nservice-cidr: 10.43.0.0/16", "line 1: node-ip: has an address of a family that cluster-cidr lacks"},
		{"two of a family", "cluster-cidr: [10.1.0.0/16, 10.2.0.0/16]", "has 2 values; give one, or one IPv4 and one IPv6"},
		{"large services", "service-cidr: 10.96.0.0/11", "between 2^4 and 2^20"},
		{"small pods", "cluster-cidr: 10.42.0.0/25", "smaller than the /24"},
		{"reset beside a server to join", "token: a\nserver: https://h:9345\ncluster-reset: true", "line 3: cluster-reset: is set beside server"},
		{"snapshot without a reset", "cluster-reset-restore-path: /snap", "line 1: cluster-reset-restore-path: is set and cluster-reset is not"},
		{"neither etcd nor kube-apiserver", "server: https://h:9345\ntoken: a\ndisable-etcd: true\ndisable-apiserver: true\ndisable-controller-manager: true\ndisable-scheduler: true", "line 4: disable-apiserver: is set beside disable-etcd, which leaves nothing"},
		{"no etcd and nobody to join", "debug: true\ndisable-etcd: true", "line 2: disable-etcd: is set and server is not; a server without etcd uses that of a cluster: add server and token"},
		{"controllers without kube-apiserver", "disable-apiserver: true", "line 1: disable-apiserver: is set, and a server without kube-apiserver has etcd alone; add disable-controller-manager: true and disable-scheduler: true"},
		{"a scheduler without kube-apiserver", "disable-apiserver: true\ndisable-controller-manager: true", "alone; add disable-scheduler: true"},
		{"a reset without etcd", "server: https://h:9345\ntoken: a\ndisable-etcd: true\ncluster-reset: true", "line 4: cluster-reset: is set beside server"},
		{"alternatives to nothing", "token: a\nserver-alternatives: [\"https://10.0.0.2:9345\"]", "line 2: server-alternatives: is set and server is not"},
		{"a recovery without a token", "token-recover: true", "line 1: token-recover: is set and token is not"},
		{"a recovery without etcd", "server: https://h:9345\ntoken: a\ndisable-etcd: true\ntoken-recover: true", "line 4: token-recover: is set on a server without etcd"},
		{"unsealed what", "token: a\ntoken-recover-unsealed: true", "line 2: token-recover-unsealed: is set and token-recover is not"},
		{"equal tokens", "token: a\nagent-token: a", "line 2: agent-token: is the same as token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loaded, err := load(t, map[string]string{"config.yaml": c.text})
			if err != nil {
				t.Fatal(err)
			}
			_, err = loaded.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1")})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to hold %q", err, c.want)
			}
		})
	}
	if _, err := Default().Resolve(Host{Name: "has space"}); err == nil || !strings.Contains(err.Error(), "node-name") || !strings.Contains(err.Error(), "node-ip") {
		t.Errorf("host without name and address: got %v", err)
	}
}

func TestNth(t *testing.T) {
	for _, c := range []struct {
		prefix string
		n      int64
		want   string
	}{
		{"10.43.0.0/16", 10, "10.43.0.10"},
		{"10.43.0.0/24", 256, "invalid IP"},
		{"255.255.255.0/24", 300, "invalid IP"},
		{"fd00:43::/112", 1, "fd00:43::1"},
		{"10.0.0.0/16", 258, "10.0.1.2"},
	} {
		if got := Nth(netip.MustParsePrefix(c.prefix), c.n); got.String() != c.want {
			t.Errorf("Nth(%s, %d): got %v, want %s", c.prefix, c.n, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"token", "tokne", 2}, {"a", "a", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q): got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzLoad feeds foreign text to the reader: it never panics, every problem names its file, and what was accepted
// holds its own rules.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"token: a\n", "node-label+: [a=b]\n", "a: &a [*a]\n", "? [x]\n: y\n", "cluster-cidr: 10.42.0.0/16,\n", "<<: *x", "debug: !!bool yes", "- - -", "service-node-port-range: 1-2"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		es, problems := parse("f", data)
		c := Default()
		problems = append(problems, decode(&c, merge(es, es))...)
		for _, p := range problems {
			if p.File != "f" || p.Message == "" {
				t.Fatalf("problem without place or text: %+v", p)
			}
		}
		if len(problems) == 0 {
			_, _ = c.Resolve(Host{Name: "n", Addresses: addrs("192.0.2.1")})
		}
	})
}
