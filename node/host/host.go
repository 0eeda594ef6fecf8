// Package host reads from the kernel what the settings may leave open: the machine's name and its addresses, the one
// of the default route first. It changes nothing. node/config's Resolve takes what it gives.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/node/config"
)

// Patience is for how long a host that has an address may lack what else is wanted of it: an answer of DHCP after that
// of a router, or the other way round.
const Patience = 30 * time.Second

// Wait returns the host's name and addresses as soon as they are enough, woken by the kernel's own messages about
// addresses and routes. A host that has enough already is answered at once; one that has any address at all when the
// patience is over is answered with what it has.
func Wait(ctx context.Context, patience time.Duration, enough func(config.Host) bool) (config.Host, error) {
	done := make(chan struct{})
	defer close(done)
	addresses, routes := make(chan netlink.AddrUpdate, 16), make(chan netlink.RouteUpdate, 16)
	if err := netlink.AddrSubscribe(addresses, done); err != nil {
		return config.Host{}, fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		return config.Host{}, fmt.Errorf("watch routes: %w", err)
	}
	over := false
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		h, err := Load()
		if err != nil || enough(h) || over && len(h.Addresses) > 0 {
			return h, err
		}
		select {
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return config.Host{}, fmt.Errorf("wait for an address of this machine: %w", context.Cause(ctx))
		case _, open := <-addresses:
			if !open {
				return config.Host{}, errors.New("watch addresses: the kernel closed the subscription")
			}
		case _, open := <-routes:
			if !open {
				return config.Host{}, errors.New("watch routes: the kernel closed the subscription")
			}
		}
	}
}

// Load reads name and addresses as they are now.
func Load() (config.Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return config.Host{}, fmt.Errorf("read host name: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return config.Host{}, fmt.Errorf("list links: %w", err)
	}
	byIndex := map[int]netlink.Link{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
	}
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return config.Host{}, fmt.Errorf("list addresses: %w", err)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return config.Host{}, fmt.Errorf("list routes: %w", err)
	}
	var candidates []candidate
	for _, a := range all {
		link := byIndex[a.LinkIndex]
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || link == nil || !usable(link, a) {
			continue
		}
		ip = ip.Unmap()
		candidates = append(candidates, candidate{addr: ip, metric: metric(routes, a.LinkIndex, ip.Is4())})
	}
	return config.Host{Name: name, Addresses: order(candidates)}, nil
}

// candidate is an address and the metric of the default route of its family through its link.
type candidate struct {
	addr   netip.Addr
	metric int // noRoute without a default route
}

const noRoute = int(^uint(0) >> 1)

// order puts the addresses of default routes first, the cheaper route before the dearer, IPv4 before IPv6.
func order(all []candidate) []netip.Addr {
	slices.SortStableFunc(all, func(a, b candidate) int {
		if a.addr.Is4() != b.addr.Is4() {
			if a.addr.Is4() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.metric, b.metric)
	})
	var out []netip.Addr
	for _, c := range all {
		out = append(out, c.addr)
	}
	return out
}

// usable tells whether an address may stand for the node: global, not of a container network's own link, not still
// under duplicate address detection and not a short-lived privacy address.
func usable(link netlink.Link, a netlink.Addr) bool {
	const unfit = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED
	if a.Flags&unfit != 0 || link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().Flags&net.FlagLoopback != 0 {
		return false
	}
	switch link.Type() {
	case "veth", "dummy", "vxlan":
		return false
	case "wireguard":
		if strings.HasPrefix(link.Attrs().Name, "flannel") {
			return false
		}
	case "bridge":
		if link.Attrs().Name == "cni0" {
			return false
		}
	}
	return a.IP.IsGlobalUnicast()
}

// metric is that of the cheapest default route of the family through the link.
func metric(routes []netlink.Route, link int, v4 bool) int {
	best := noRoute
	for _, r := range routes {
		if r.LinkIndex != link || (r.Family == netlink.FAMILY_V4) != v4 {
			continue
		}
		if ones := 0; r.Dst != nil {
			if ones, _ = r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		best = min(best, r.Priority)
	}
	return best
}
