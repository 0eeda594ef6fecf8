package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"keelson/node/config"
)

// document is what of /v1-rke2/config concerns an agent, under the names of k3s's fields (pkg/daemons/config, Control).
type document struct {
	ClusterDNS       net.IP
	ClusterDNSs      []net.IP
	ClusterDomain    string
	ClusterIPRange   *net.IPNet
	ClusterIPRanges  []*net.IPNet
	ServiceIPRange   *net.IPNet
	ServiceIPRanges  []*net.IPNet
	DisableCCM       bool
	DisableKubeProxy bool
	SupervisorPort   int
	EmbeddedRegistry bool
	CNI              string // our servers alone say it; of an RKE2 server the agent keeps its own
}

func parseDocument(content []byte) (document, error) {
	var d document
	if err := json.Unmarshal(content, &d); err != nil {
		return document{}, fmt.Errorf("read the cluster's settings: %w", err)
	}
	if len(d.ClusterDNSs) == 0 && d.ClusterDNS != nil {
		d.ClusterDNSs = []net.IP{d.ClusterDNS}
	}
	if len(d.ClusterIPRanges) == 0 && d.ClusterIPRange != nil {
		d.ClusterIPRanges = []*net.IPNet{d.ClusterIPRange}
	}
	if len(d.ServiceIPRanges) == 0 && d.ServiceIPRange != nil {
		d.ServiceIPRanges = []*net.IPNet{d.ServiceIPRange}
	}
	if d.ClusterDomain == "" || len(d.ClusterDNSs) == 0 || len(d.ClusterIPRanges) == 0 || len(d.ServiceIPRanges) == 0 {
		return document{}, errors.New("read the cluster's settings: networks, DNS address or domain are not among them; is it a server of a cluster that answers there?")
	}
	return d, nil
}

// lay lays the cluster's settings over the machine's, which keep what is the node's own. The result is to be resolved.
func (d document) lay(c config.Config) (config.Config, error) {
	c.ClusterDomain = d.ClusterDomain
	c.DisableCloudController = d.DisableCCM
	c.EmbeddedRegistry = d.EmbeddedRegistry
	c.DisableKubeProxy = c.DisableKubeProxy || d.DisableKubeProxy
	c.DisableControllerManager = true // an agent has none, and does not know how the servers' deals networks out
	switch d.CNI {
	case "":
	case config.CNIFlannel, config.CNINone:
		c.CNI = d.CNI
	default:
		return c, fmt.Errorf("the cluster's pod network is %q, which this version does not know; boot the image that the servers run", d.CNI)
	}
	c.ClusterDNS, c.ClusterCIDR, c.ServiceCIDR = nil, nil, nil
	for _, ip := range d.ClusterDNSs {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return c, fmt.Errorf("the cluster's DNS address %q is none", ip)
		}
		c.ClusterDNS = append(c.ClusterDNS, a.Unmap())
	}
	var err error
	if c.ClusterCIDR, err = prefixes(d.ClusterIPRanges); err != nil {
		return c, fmt.Errorf("the cluster's networks of pods: %w", err)
	}
	if c.ServiceCIDR, err = prefixes(d.ServiceIPRanges); err != nil {
		return c, fmt.Errorf("the cluster's networks of services: %w", err)
	}
	return c, nil
}

// port is where each server's supervisor listens. The server of the settings may be an address before several, with a
// port of its own.
func (d document) port() string {
	if d.SupervisorPort <= 0 || d.SupervisorPort > 65535 {
		return supervisorPort
	}
	return strconv.Itoa(d.SupervisorPort)
}

func prefixes(all []*net.IPNet) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, n := range all {
		if n == nil {
			return nil, errors.New("one is missing")
		}
		a, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if a = a.Unmap(); !ok || bits != a.BitLen() {
			return nil, fmt.Errorf("%q is none", n.String())
		}
		out = append(out, netip.PrefixFrom(a, ones).Masked())
	}
	return out, nil
}
