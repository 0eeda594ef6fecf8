// Package networkpolicy keeps NetworkPolicies on one machine: it runs kube-router's network policy controller, which
// writes them as iptables rules and ipsets.
//
// Upstream's own program brings a router and a service proxy along, so this is a small one on upstream's controller, as
// k3s has it (k3s pkg/agent/netpol). It never touches routes or Services, and leaves its rules where they are when it
// ends: what was forbidden stays so while a new version starts. Flags are upstream's (kube-router docs/user-guide.md).
// Its input is the cluster's Pods, Namespaces and NetworkPolicies; the programs iptables and ipset must be there. The
// bundle runs it, in the pods of configs/manifests/network-policy.yaml.
package networkpolicy

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
)

// Options are the settings of one run, by upstream's flag names.
type Options struct {
	Services   []netip.Prefix // one of each family at most; their families are the cluster's
	NodePorts  string         // "30000-32767"
	SyncPeriod time.Duration  // everything is looked at anew after this long, whatever happened
	Node       string         // this machine's
	Kubeconfig string         // empty in a pod
}

// ParseArguments reads the command line.
func ParseArguments(args []string, out io.Writer) (Options, error) {
	var o Options
	var services string
	f := flag.NewFlagSet("network-policy", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&services, "service-cluster-ip-range", "", "networks of services, with a comma between them")
	f.StringVar(&o.NodePorts, "service-node-port-range", "30000-32767", "ports of services on nodes")
	f.DurationVar(&o.SyncPeriod, "iptables-sync-period", 5*time.Minute, "how often all rules are looked at anew")
	f.StringVar(&o.Node, "hostname-override", "", "this machine's Node")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig; empty in a pod")
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	if f.NArg() > 0 {
		return Options{}, fmt.Errorf("parse arguments: %q is not a flag", f.Arg(0))
	}
	for _, text := range strings.Split(services, ",") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return Options{}, fmt.Errorf("parse arguments: --service-cluster-ip-range: %q is not a network; write one of each family at most, such as 10.43.0.0/16", text)
		}
		o.Services = append(o.Services, p)
	}
	if len(o.Services) > 2 || len(o.Services) == 2 && o.Services[0].Addr().Is4() == o.Services[1].Addr().Is4() {
		return Options{}, fmt.Errorf("parse arguments: --service-cluster-ip-range: %s: write one network of each family at most", services)
	}
	if o.Node == "" {
		return Options{}, fmt.Errorf("parse arguments: --hostname-override: the Node's name is missing")
	}
	if o.SyncPeriod < time.Second {
		return Options{}, fmt.Errorf("parse arguments: --iptables-sync-period: %v is shorter than a second", o.SyncPeriod)
	}
	return o, nil
}

// config is what upstream's controller reads of its own settings.
func (o Options) config() *options.KubeRouterConfig {
	c := options.NewKubeRouterConfig()
	c.ClusterIPCIDRs = nil
	for _, p := range o.Services {
		c.ClusterIPCIDRs = append(c.ClusterIPCIDRs, p.String())
		c.EnableIPv4 = c.EnableIPv4 || p.Addr().Is4()
		c.EnableIPv6 = c.EnableIPv6 || p.Addr().Is6()
	}
	c.NodePortRange, c.IPTablesSyncPeriod, c.HostnameOverride = strings.ReplaceAll(o.NodePorts, ":", "-"), o.SyncPeriod, o.Node
	return c
}
