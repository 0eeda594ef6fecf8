package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// resolveNetworks fills the networks and DNS addresses that are left open. One kind of network follows the families of
// the other; without either, a machine that has IPv6 alone has a cluster of IPv6 alone.
func (c *Config) resolveNetworks() {
	families := is4(slices.Concat(c.ClusterCIDR, c.ServiceCIDR), netip.Prefix.Addr)
	switch {
	case len(c.ClusterCIDR) > 0:
		families = is4(c.ClusterCIDR, netip.Prefix.Addr)
	case len(families) == 0:
		families = []bool{len(c.NodeIP) == 0 || hasFamily(c.NodeIP, true)}
	}
	if len(c.ClusterCIDR) == 0 {
		c.ClusterCIDR = defaultNets(families, "10.42.0.0/16", "fd00:42::/56")
	}
	if len(c.ServiceCIDR) == 0 {
		c.ServiceCIDR = defaultNets(families, "10.43.0.0/16", "fd00:43::/112")
	}
	if len(c.ClusterDNS) == 0 {
		for _, p := range c.ServiceCIDR {
			c.ClusterDNS = append(c.ClusterDNS, Nth(p, 10))
		}
	}
}

// EveryAddress is what a server that is for everybody listens on: Go takes 0.0.0.0 for IPv4 alone, and :: for both
// families.
func (c Config) EveryAddress() string {
	for _, p := range c.ClusterCIDR {
		if p.Addr().Is6() {
			return "::"
		}
	}
	return "0.0.0.0"
}

func defaultNets(families []bool, net4, net6 string) []netip.Prefix {
	var out []netip.Prefix
	for _, four := range families {
		net := net6
		if four {
			net = net4
		}
		out = append(out, netip.MustParsePrefix(net))
	}
	return out
}

// checkNetworks judges the networks of pods and services and the addresses that must fit them. Limits are Kubernetes'
// own (cmd/kube-apiserver/app/options/validation.go, cmd/kube-controller-manager/app/core.go,
// pkg/controller/nodeipam/ipam/cidrset).
func (c Config) checkNetworks(fail func(key, format string, args ...any)) {
	cluster, service := is4(c.ClusterCIDR, netip.Prefix.Addr), is4(c.ServiceCIDR, netip.Prefix.Addr)
	self := func(a netip.Addr) netip.Addr { return a }
	for _, l := range []struct {
		key string
		of  []bool
	}{{"cluster-cidr", cluster}, {"service-cidr", service}, {"cluster-dns", is4(c.ClusterDNS, self)}, {"node-ip", is4(c.NodeIP, self)}} {
		if len(l.of) > 2 || len(l.of) == 2 && l.of[0] == l.of[1] {
			fail(l.key, "has %d values; give one, or one IPv4 and one IPv6", len(l.of))
		}
	}
	if !slices.Equal(cluster, service) {
		fail("service-cidr", "is %s and cluster-cidr is %s; make them of the same families, in the same order", words(service), words(cluster))
	}
	c.checkAddresses(fail, cluster)
	all := slices.Concat(c.ClusterCIDR, c.ServiceCIDR)
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.Overlaps(b) {
				fail("service-cidr", "networks %v and %v of cluster-cidr and service-cidr overlap; choose others", a, b)
			}
		}
		for _, ip := range c.NodeIP {
			if a.Contains(ip) {
				fail("node-ip", "%v is inside %v of cluster-cidr and service-cidr; choose networks that the machines are not in", ip, a)
			}
		}
	}
	for _, p := range c.ServiceCIDR {
		if bits := p.Addr().BitLen(); bits-p.Bits() < 4 || bits-p.Bits() > 20 {
			fail("service-cidr", "%v does not have between 2^4 and 2^20 addresses, which kube-apiserver needs; make its prefix length one of /%d to /%d", p, bits-20, bits-4)
		}
	}
	c.checkShares(fail)
	for _, dns := range c.ClusterDNS {
		if !slices.ContainsFunc(c.ServiceCIDR, func(p netip.Prefix) bool { return p.Contains(dns) }) {
			fail("cluster-dns", "%v is not in service-cidr; choose an address inside %v", dns, c.ServiceCIDR)
		}
	}
}

// checkAddresses holds the machine's addresses against the families of the cluster.
func (c Config) checkAddresses(fail func(key, format string, args ...any), cluster []bool) {
	for _, a := range c.NodeIP {
		if !slices.Contains(cluster, a.Is4()) {
			fail("node-ip", "has an address of a family that cluster-cidr lacks; add a network to cluster-cidr and service-cidr, or remove the address")
			break
		}
	}
	if len(c.NodeIP) > 0 && len(cluster) > 0 && slices.Contains(cluster, c.NodeIP[0].Is4()) {
		for _, four := range cluster {
			if c.CNI == CNIFlannel && !hasFamily(c.NodeIP, four) {
				fail("node-ip", "is %v and cluster-cidr is %s: flannel carries a family between nodes by their addresses of it; give the machine an %s address, or name it here", c.NodeIP, words(cluster), words([]bool{four}))
			}
		}
		if hasFamily(c.NodeIP, cluster[0]) && c.NodeIP[0].Is4() != cluster[0] {
			fail("node-ip", "begins with %v and cluster-cidr with an %s network; write both in the same order, the cluster's first family first", c.NodeIP[0], words(cluster[:1]))
		}
	}
	if len(c.ServiceCIDR) > 0 && c.AdvertiseAddress.IsValid() && c.AdvertiseAddress.Is4() != c.ServiceCIDR[0].Addr().Is4() {
		fail("advertise-address", "%v is not of the family of service-cidr's first network, %v, in which the kubernetes Service has its address; choose one that is", c.AdvertiseAddress, c.ServiceCIDR[0])
	}
}

// maxShares is the exponent of how many nodes' shares kube-controller-manager keeps track of in a network of IPv6.
const maxShares = 16

// checkShares judges whether the networks of pods can be dealt out to nodes, which is the part of those that have a
// kube-controller-manager.
func (c Config) checkShares(fail func(key, format string, args ...any)) {
	if c.DisableControllerManager {
		return
	}
	size, err := c.shareSizes()
	if err != "" {
		fail("kube-controller-manager-arg", "%s", err)
		return
	}
	for _, p := range c.ClusterCIDR {
		share := size(p.Addr().Is4())
		switch {
		case share > p.Addr().BitLen():
			fail("kube-controller-manager-arg", "gives every node a /%d of %v, which has no such; choose one up to /%d", share, p, p.Addr().BitLen())
		case p.Bits() > share:
			fail("cluster-cidr", "%v is smaller than the /%d that one node takes; choose a larger network", p, share)
		case p.Addr().Is6() && share-p.Bits() > maxShares:
			fail("cluster-cidr", "%v has more than 2^%d shares of /%d, which kube-controller-manager refuses; choose a network of /%d or smaller", p, maxShares, share, share-maxShares)
		}
	}
}

// shareSizes reads how much of a network one node gets: kube-controller-manager's --node-cidr-mask-size, or the flags of
// the families, where the user sets them.
func (c Config) shareSizes() (size func(four bool) int, problem string) {
	const both, only4, only6 = "node-cidr-mask-size", "node-cidr-mask-size-ipv4", "node-cidr-mask-size-ipv6"
	set := map[string]int{}
	for _, arg := range c.ControllerManager.Args {
		name, value, _ := strings.Cut(arg, "=")
		if name != both && name != only4 && name != only6 {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return nil, name + " is " + strconv.Quote(value) + "; write a prefix length"
		}
		set[name] = n
	}
	families := is4(c.ClusterCIDR, netip.Prefix.Addr)
	switch {
	case set[both] > 0 && len(families) > 1:
		return nil, both + " cannot be used with networks of two families; write " + only4 + " and " + only6
	case set[both] > 0 && (set[only4] > 0 || set[only6] > 0):
		return nil, both + " stands beside " + only4 + " or " + only6 + "; remove one"
	case set[only4] > 0 && !slices.Contains(families, true):
		return nil, only4 + " is set and cluster-cidr has no IPv4 network; write " + only6
	case set[only6] > 0 && !slices.Contains(families, false):
		return nil, only6 + " is set and cluster-cidr has no IPv6 network; write " + only4
	}
	return func(four bool) int {
		name, usual := only6, 64
		if four {
			name, usual = only4, 24
		}
		for _, n := range []int{set[both], set[name]} {
			if n > 0 {
				return n
			}
		}
		return usual
	}, ""
}

// words tells families as people write them.
func words(families []bool) string {
	var out []string
	for _, four := range families {
		if four {
			out = append(out, "IPv4")
		} else {
			out = append(out, "IPv6")
		}
	}
	return strings.Join(out, ",")
}

func is4[T any](all []T, addr func(T) netip.Addr) []bool {
	out := make([]bool, len(all))
	for i, v := range all {
		out[i] = addr(v).Is4()
	}
	return out
}

func ofFamily(all []netip.Addr, four bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is4() != four })
}

func hasFamily(all []netip.Addr, four bool) bool { return len(ofFamily(all, four)) > 0 }
