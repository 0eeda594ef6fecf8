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

// Enough tells whether the machine has what Resolve needs of it: an address of each family of the cluster's networks or,
// where none is set, of IPv4, which the defaults are of. Where node-ip is set, any address will do.
func (c Config) Enough(h Host) bool {
	if len(h.Addresses) == 0 || len(c.NodeIP) > 0 {
		return len(h.Addresses) > 0
	}
	networks := slices.Concat(c.ClusterCIDR, c.ServiceCIDR)
	if len(networks) == 0 {
		return slices.ContainsFunc(h.Addresses, netip.Addr.Is4)
	}
	return !slices.ContainsFunc(networks, func(p netip.Prefix) bool { return !hasFamily(h.Addresses, p.Addr().Is4()) })
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
	c.resolveNetworks()
	// A host with addresses of two families and a cluster of one serves the cluster's, and begins with the cluster's
	// first; a node-ip that was set is not touched but validated.
	if !given {
		var own []netip.Addr
		for _, p := range c.ClusterCIDR {
			own = append(own, ofFamily(c.NodeIP, p.Addr().Is4())...)
		}
		c.NodeIP = onePerFamily(own)
	}
	if !c.AdvertiseAddress.IsValid() && len(c.ServiceCIDR) > 0 {
		for _, a := range ofFamily(slices.Concat(c.NodeExternalIP, c.NodeIP), c.ServiceCIDR[0].Addr().Is4()) {
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
		fail("node-ip", "is not set and the machine has no address of the family of cluster-cidr; set it or give the machine an address")
	}
	if c.Server != "" && c.Token == "" {
		fail("server", "is set and token is not; add the token of the cluster, which stands in /var/lib/rancher/rke2/server/token of its servers")
	}
	if len(c.ServerAlternatives) > 0 && c.Server == "" {
		fail("server-alternatives", "is set and server is not; name one of them in server, or remove the list")
	}
	c.checkRoles(fail)
	if c.ClusterReset && c.Server != "" {
		fail("cluster-reset", "is set beside server; a cluster is reset on one server, which joins nobody: remove server here, and give it to the others")
	}
	if c.ClusterResetRestorePath != "" && !c.ClusterReset {
		fail("cluster-reset-restore-path", "is set and cluster-reset is not; add cluster-reset: true, or remove it")
	}
	switch {
	case c.TokenRecoverUnsealed && !c.TokenRecover:
		fail("token-recover-unsealed", "is set and token-recover is not; add token-recover: true, or remove it")
	case c.TokenRecover && c.Token == "":
		fail("token-recover", "is set and token is not; add the new token, which the cluster is to have")
	case c.TokenRecover && c.DisableEtcd:
		fail("token-recover", "is set on a server without etcd; set it on one that has the cluster's data")
	}
	if c.AgentToken != "" && c.AgentToken == c.Token {
		fail("agent-token", "is the same as token; choose another, or remove it")
	}
	c.checkNetworks(fail)
	return problems.err()
}
