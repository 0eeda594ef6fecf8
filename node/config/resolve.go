package config

import (
	"math/big"
	"net/netip"
	"slices"
	"strings"
)

// Host is what the machine says of itself where the settings leave it open.
type Host struct {
	Name      string       // host name
	Addresses []netip.Addr // addresses of the node, the one of the default route first; one a family is used
}

// Resolve returns a copy of c in which nothing is left open: names and addresses come from the host, networks and
// the DNS address from RKE2's defaults (k3s pkg/cli/server/server.go). It then validates the whole; the error is
// Problems.
func (c Config) Resolve(h Host) (Config, error) {
	if c.NodeName == "" {
		c.NodeName = strings.ToLower(h.Name)
	}
	given := len(c.NodeIP) > 0
	if !given {
		c.NodeIP = onePerFamily(h.Addresses)
	}
	only6 := len(c.NodeIP) > 0 && !slices.ContainsFunc(c.NodeIP, netip.Addr.Is4)
	if len(c.ClusterCIDR) == 0 {
		c.ClusterCIDR = []netip.Prefix{defaultNet(only6, "10.42.0.0/16", "fd00:42::/56")}
	}
	if len(c.ServiceCIDR) == 0 {
		c.ServiceCIDR = []netip.Prefix{defaultNet(only6, "10.43.0.0/16", "fd00:43::/112")}
	}
	if len(c.ClusterDNS) == 0 {
		for _, p := range c.ServiceCIDR {
			c.ClusterDNS = append(c.ClusterDNS, Nth(p, 10))
		}
	}
	// A host with addresses of two families and a cluster of one serves the cluster's; a node-ip that was set is
	// not touched but validated.
	if !given {
		c.NodeIP = slices.DeleteFunc(slices.Clone(c.NodeIP), func(a netip.Addr) bool {
			return !slices.ContainsFunc(c.ClusterCIDR, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() })
		})
	}
	if !c.AdvertiseAddress.IsValid() {
		for _, a := range slices.Concat(c.NodeExternalIP, c.NodeIP) {
			c.AdvertiseAddress = a
			break
		}
	}
	return c, c.Validate()
}

// ServiceIPs returns the address of the kubernetes Service in each service network: the first.
func (c Config) ServiceIPs() []netip.Addr {
	var all []netip.Addr
	for _, p := range c.ServiceCIDR {
		all = append(all, Nth(p, 1))
	}
	return all
}

// Nth returns the address n places after the first of p; the zero Addr where p has no such address.
func Nth(p netip.Prefix, n int64) netip.Addr {
	first := p.Masked().Addr()
	sum := new(big.Int).Add(new(big.Int).SetBytes(first.AsSlice()), big.NewInt(n))
	if sum.BitLen() > first.BitLen() {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, first.BitLen()/8)))
	if !p.Contains(a) {
		return netip.Addr{}
	}
	return a
}

func defaultNet(v6 bool, net4, net6 string) netip.Prefix {
	if v6 {
		return netip.MustParsePrefix(net6)
	}
	return netip.MustParsePrefix(net4)
}

// onePerFamily keeps the first address of each family, in order.
func onePerFamily(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// Validate checks what only several settings together can get wrong. It expects a resolved Config; the error is
// Problems.
func (c Config) Validate() error {
	var problems Problems
	fail := func(key, format string, args ...any) {
		problems = append(problems, c.problem(key, format, args...))
	}
	if !isDNSName(c.NodeName) {
		fail("node-name", "is %q; write a DNS name of lower-case letters, digits, dashes and dots", c.NodeName)
	}
	if len(c.NodeIP) == 0 {
		fail("node-ip", "is not set and the machine has no address for the networks of cluster-cidr; set it or give the machine an address")
	}
	if c.Server != "" && c.Token == "" {
		fail("server", "is set and token is not; add the token of the cluster, which stands in /var/lib/rancher/rke2/server/token of its servers")
	}
	c.checkRoles(fail)
	if c.ClusterReset && c.Server != "" {
		fail("cluster-reset", "is set beside server; a cluster is reset on one server, which joins nobody: remove server here, and give it to the others")
	}
	if c.ClusterResetRestorePath != "" && !c.ClusterReset {
		fail("cluster-reset-restore-path", "is set and cluster-reset is not; add cluster-reset: true, or remove it")
	}
	if c.AgentToken != "" && c.AgentToken == c.Token {
		fail("agent-token", "is the same as token; choose another, or remove it")
	}
	families := map[string][]bool{
		"cluster-cidr": is4(c.ClusterCIDR, netip.Prefix.Addr),
		"service-cidr": is4(c.ServiceCIDR, netip.Prefix.Addr),
		"node-ip":      is4(c.NodeIP, func(a netip.Addr) netip.Addr { return a }),
	}
	for _, key := range []string{"cluster-cidr", "service-cidr", "node-ip"} {
		if f := families[key]; len(f) > 2 || len(f) == 2 && f[0] == f[1] {
			fail(key, "has %d values; give one, or one IPv4 and one IPv6", len(f))
		}
	}
	if !slices.Equal(families["cluster-cidr"], families["service-cidr"]) {
		fail("service-cidr", "is not of the same address families, in the same order, as cluster-cidr; make them match")
	}
	if c.CNI == CNIFlannel && slices.Contains(families["cluster-cidr"], false) {
		fail("cluster-cidr", "has an IPv6 network, which cni: flannel does not serve in this version; remove it, or set cni to none and bring a network of your own")
	}
	for _, four := range families["node-ip"] {
		if !slices.Contains(families["cluster-cidr"], four) {
			fail("node-ip", "has an address of a family that cluster-cidr lacks; add a network to cluster-cidr and service-cidr, or remove the address")
			break
		}
	}
	for i, a := range slices.Concat(c.ClusterCIDR, c.ServiceCIDR) {
		for _, b := range slices.Concat(c.ClusterCIDR, c.ServiceCIDR)[i+1:] {
			if a.Overlaps(b) {
				fail("service-cidr", "networks %v and %v of cluster-cidr and service-cidr overlap; choose others", a, b)
			}
		}
	}
	for _, p := range c.ServiceCIDR {
		if size := p.Addr().BitLen() - p.Bits(); size < 4 || size > 20 {
			fail("service-cidr", "%v does not have between 2^4 and 2^20 addresses, which kube-apiserver needs; change its prefix length", p)
		}
	}
	for _, p := range c.ClusterCIDR {
		if limit := nodeMask(p); p.Bits() > limit {
			fail("cluster-cidr", "%v is smaller than the /%d that one node takes; choose a larger network", p, limit)
		}
	}
	for _, dns := range c.ClusterDNS {
		if !slices.ContainsFunc(c.ServiceCIDR, func(p netip.Prefix) bool { return p.Contains(dns) }) {
			fail("cluster-dns", "%v is not in service-cidr; choose an address inside %v", dns, c.ServiceCIDR)
		}
	}
	return problems.err()
}

func is4[T any](all []T, addr func(T) netip.Addr) []bool {
	out := make([]bool, len(all))
	for i, v := range all {
		out[i] = addr(v).Is4()
	}
	return out
}

// nodeMask is the size of a node's share of p: kube-controller-manager's default --node-cidr-mask-size-ipv4 and
// -ipv6.
func nodeMask(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 24
	}
	return 64
}
