package flannel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw" // backends register themselves
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	_ "github.com/flannel-io/flannel/pkg/backend/wireguard"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"k8s.io/klog/v2"
)

// Run joins the network and keeps the routes to other nodes until ctx ends. It logs with klog, as the packages do
// that it is made of.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	health := &health{}
	stop, err := health.serve(o.HealthzIP, o.HealthzPort, cancel)
	if err != nil {
		return err
	}
	defer stop()

	manager, err := kube.NewSubnetManager(ctx, o.KubeAPIURL, o.Kubeconfig, o.AnnotationPrefix, o.NetConf, o.SetNetworkUnavailable)
	if err != nil {
		return fmt.Errorf("watch nodes: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("read network configuration %s: %w", o.NetConf, err)
	}
	iface, err := externalInterface(ctx, o, manager, config)
	if err != nil {
		return err
	}
	klog.InfoS("Using interface", "name", iface.Iface.Name, "address", iface.IfaceAddr, "public", iface.ExtAddr,
		"address6", iface.IfaceV6Addr, "public6", iface.ExtV6Addr, "backend", config.BackendType)
	if err := leaveOthers(config, iface.Iface.Index); err != nil {
		return fmt.Errorf("undo what another backend did: %w", err)
	}

	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil) // before the wait above: everything that runs ends with ctx
	kind, err := backend.NewManager(ctx, manager, iface).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("choose backend %q: %w; vxlan, wireguard and host-gw are there", config.BackendType, err)
	}
	network, err := kind.RegisterNetwork(ctx, &running, config)
	if err != nil {
		return fmt.Errorf("register with backend %s: %w", config.BackendType, err)
	}
	if err := setRules(ctx, o, config, network); err != nil {
		return err
	}
	lease := network.Lease()
	if err := manager.HandleSubnetFile(o.SubnetFile, config, o.MasqueradePods, lease.Subnet, lease.IPv6Subnet, network.MTU()); err != nil {
		return fmt.Errorf("write %s: %w", o.SubnetFile, err)
	}
	health.ready.Store(true)
	klog.InfoS("Network is ready", "subnet", lease.Subnet.String(), "mtu", network.MTU(), "file", o.SubnetFile)

	running.Go(func() { network.Run(ctx) })
	if err := manager.CompleteLease(ctx, lease, &running); err != nil && ctx.Err() == nil {
		return fmt.Errorf("keep lease %s: %w", lease.Subnet, err)
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// externalInterface is the one by which other nodes reach this one: the first that a flag names, or the one of the
// address, or that of the default route.
func externalInterface(ctx context.Context, o Options, manager subnet.Manager, config *subnet.Config) (*backend.ExternalInterface, error) {
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return nil, fmt.Errorf("read network configuration %s: %w", o.NetConf, err)
	}
	// What an administrator annotated on the Node wins over the flags.
	if v4, v6 := manager.GetStoredPublicIP(ctx); v4 != "" || v6 != "" {
		o.PublicIP, o.PublicIPv6 = or(v4, o.PublicIP), or(v6, o.PublicIPv6)
	}
	var errs []error
	for _, try := range o.candidates() {
		public := ipmatch.PublicIPOpts{PublicIP: o.PublicIP, PublicIPv6: o.PublicIPv6}
		own6 := try.six != "" && config.EnableIPv6
		if own6 {
			public.PublicIPv6 = try.six // how upstream is told which address of an interface to use
		}
		if own6 && !config.EnableIPv4 {
			try.name = try.six
		}
		iface, err := ipmatch.LookupExtIface(try.name, try.regex, try.reach, stack, public)
		if err == nil && iface != nil {
			if own6 && o.PublicIPv6 != "" {
				iface.ExtV6Addr = net.ParseIP(o.PublicIPv6)
			}
			if !config.EnableIPv4 {
				iface.IfaceAddr = nil // upstream leaves the address of IPv6 there, and host-gw takes the difference to none for NAT
			}
			return iface, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find interface to other nodes: %w", errors.Join(errs...))
}

// candidate is one way to name an interface; all empty means that of the default route. six is the address of IPv6 to
// use on it, where name is one of IPv4.
type candidate struct{ name, six, regex, reach string }

func (o Options) candidates() []candidate {
	var all []candidate
	for _, name := range o.Interfaces {
		// Two addresses, one of each family, as status.hostIPs of a pod has them.
		a, b, _ := strings.Cut(name, ",")
		if ip := net.ParseIP(a); b != "" && ip != nil && ip.To4() == nil {
			a, b = b, a
		}
		all = append(all, candidate{name: a, six: b})
	}
	for _, regex := range o.InterfaceRegexes {
		all = append(all, candidate{regex: regex})
	}
	if o.InterfaceReach != "" {
		all = append(all, candidate{reach: o.InterfaceReach})
	}
	if len(all) == 0 {
		all = append(all, candidate{name: or(o.PublicIP, o.PublicIPv6)})
	}
	return all
}

// setRules puts the nftables rules in place. They are in flannel's own tables and replaced as a whole.
func setRules(ctx context.Context, o Options, config *subnet.Config, network backend.Network) error {
	rules := &nftables.NFTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return fmt.Errorf("start nftables: %w", err)
	}
	if o.MasqueradePods {
		// The previous network matters to the iptables manager only.
		err := rules.SetupAndEnsureMasqRules(ctx, config.Network, ip.IP4Net{}, ip.IP4Net{},
			config.IPv6Network, ip.IP6Net{}, ip.IP6Net{}, network.Lease(), 0, o.MasqueradeNoFullyRandom)
		if err != nil {
			return fmt.Errorf("masquerade pods: %w", err)
		}
	}
	if o.ForwardRules {
		rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, 0)
	}
	return nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
