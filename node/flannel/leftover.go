package flannel

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leaveOthers takes away the links and routes of a backend that this machine had before another was chosen. Their
// routes to single nodes are narrower than a backend's route to the whole network: pods' traffic would go on in clear
// where it is to be encrypted, or nowhere. card is the interface that host-gw routes through.
func leaveOthers(config *subnet.Config, card int) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, link := range links {
		name := link.Attrs().Name
		if !strings.HasPrefix(name, "flannel") || link.Type() != "vxlan" && link.Type() != "wireguard" || link.Type() == config.BackendType {
			continue
		}
		if err := netlink.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("delete link %s: %w", name, err))
		}
	}
	if config.BackendType == "host-gw" {
		return errors.Join(errs...)
	}
	for family, network := range map[int]*net.IPNet{netlink.FAMILY_V4: config.Network.ToIPNet(), netlink.FAMILY_V6: config.IPv6Network.ToIPNet()} {
		errs = append(errs, deleteRoutes(family, network, card))
	}
	return errors.Join(errs...)
}

// deleteRoutes removes routes by way of other nodes into a network of pods.
func deleteRoutes(family int, network *net.IPNet, card int) error {
	whole, _ := network.Mask.Size()
	if whole == 0 {
		return nil // the cluster has no network of the family
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: card}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw == nil || r.Dst == nil || !network.Contains(r.Dst.IP) {
			continue
		}
		if ones, _ := r.Dst.Mask.Size(); ones <= whole {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route to %s: %w", r.Dst, err)
		}
	}
	return nil
}
