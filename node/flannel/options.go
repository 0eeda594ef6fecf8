// Package flannel is flanneld for this system: it joins the nodes' pod networks by flannel's own backends and subnet
// manager, with nftables for masquerading and forwarding.
//
// Upstream's main package cannot be linked (one of its backends is not to be had, and its clean-up of iptables ends
// the program where there is no iptables), so this is a small one on upstream's packages: subnets from the Kubernetes
// API only, backends vxlan, wireguard and host-gw, nftables only. Flags, files and environment are upstream's (flannel
// Documentation/configuration.md). Its input is the network configuration that the add-on's ConfigMap mounts and the
// Node objects; the CNI plugin node/cni/flannel reads the subnet file that it writes. The bundle runs it.
package flannel

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// Options are the settings of one run, by upstream's flag names.
type Options struct {
	KubeSubnetMgr           bool
	KubeAPIURL              string
	Kubeconfig              string
	AnnotationPrefix        string
	NetConf                 string
	SetNetworkUnavailable   bool
	Interfaces              list
	InterfaceRegexes        list
	InterfaceReach          string
	PublicIP, PublicIPv6    string
	SubnetFile              string
	MasqueradePods          bool
	MasqueradeNoFullyRandom bool
	ForwardRules            bool
	HealthzIP               string
	HealthzPort             int
	Version                 bool
}

// list is a flag that may be given several times.
type list []string

// String joins the values, as package flag asks.
func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// ParseArguments reads the command line. Flags of upstream's that have no meaning here (those of its etcd manager and
// of iptables) are refused by name, as any unknown flag is.
func ParseArguments(args []string, out io.Writer) (Options, error) {
	var o Options
	f := flag.NewFlagSet("flanneld", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&o.KubeSubnetMgr, "kube-subnet-mgr", true, "take subnets from the Kubernetes API; the only way here")
	f.StringVar(&o.KubeAPIURL, "kube-api-url", "", "URL of the apiserver; empty in a pod")
	f.StringVar(&o.Kubeconfig, "kubeconfig-file", "", "kubeconfig; empty in a pod")
	f.StringVar(&o.AnnotationPrefix, "kube-annotation-prefix", "flannel.alpha.coreos.com", "prefix of the annotations on nodes")
	f.StringVar(&o.NetConf, "net-config-path", "/etc/kube-flannel/net-conf.json", "network configuration")
	f.BoolVar(&o.SetNetworkUnavailable, "set-node-network-unavailable", true, "clear the node's NetworkUnavailable condition when ready")
	f.Var(&o.Interfaces, "iface", "interface to use (name, address, or an IPv4 and an IPv6 address with a comma between them); may be given several times, the first that fits is taken")
	f.Var(&o.InterfaceRegexes, "iface-regex", "as iface, by regular expression, tried after those")
	f.StringVar(&o.InterfaceReach, "iface-can-reach", "", "use the interface by which this address is reached")
	f.StringVar(&o.PublicIP, "public-ip", "", "address by which other nodes reach this one")
	f.StringVar(&o.PublicIPv6, "public-ipv6", "", "IPv6 address by which other nodes reach this one")
	f.StringVar(&o.SubnetFile, "subnet-file", "/run/flannel/subnet.env", "where to write this node's subnet")
	f.BoolVar(&o.MasqueradePods, "ip-masq", false, "masquerade what pods send out of the cluster's network")
	f.BoolVar(&o.MasqueradeNoFullyRandom, "ip-masq-fully-random-disable", false, "do not choose ports of masqueraded connections at random")
	f.BoolVar(&o.ForwardRules, "iptables-forward-rules", true, "accept forwarded packets of the cluster's network")
	f.StringVar(&o.HealthzIP, "healthz-ip", "0.0.0.0", "address of /healthz and /readyz")
	f.IntVar(&o.HealthzPort, "healthz-port", 0, "port of /healthz and /readyz; 0 for none")
	f.BoolVar(&o.Version, "version", false, "print the version and exit")
	if err := f.Parse(args); err != nil {
		return Options{}, err
	}
	if f.NArg() > 0 {
		return Options{}, fmt.Errorf("parse arguments: %q is not a flag", f.Arg(0))
	}
	if !o.KubeSubnetMgr {
		return Options{}, fmt.Errorf("parse arguments: --kube-subnet-mgr=false: subnets come from the Kubernetes API only")
	}
	return o, nil
}
