package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
)

// link is one interface that the plan gave to us.
type link struct {
	index   int
	order   int // of discovery: earlier links have the better routes
	name    string
	plan    netconfig.Link
	carrier bool
	failure string // the last thing that went wrong
	routed  bool   // has its routes of version 1

	managed, stateful bool // what the router advertisement asks for
	raDNS             []netip.Addr
	lease4, lease6    *lease
	cancel4, cancel6  context.CancelFunc
}

// lease is what a DHCP server gave.
type lease struct {
	addrs    []netip.Prefix
	routes   []netconfig.Route
	dns      []netip.Addr
	search   []string
	ntp      []string
	hostname string
	mtu      int
	valid    time.Duration
}

// stop ends the clients; leases and addresses stay, for a cable may be back in
// a moment, and a new client then asks again.
func (l *link) stop() {
	if l.cancel4 != nil {
		l.cancel4()
		l.cancel4 = nil
	}
	l.stop6()
}

func (l *link) stop6() {
	if l.cancel6 != nil {
		l.cancel6()
		l.cancel6 = nil
	}
}

// configure does what needs no answer from anybody.
func (l *link) configure(nl netlink.Link) error {
	if want := l.plan.SetName; want != "" && want != l.name {
		if err := errors.Join(netlink.LinkSetDown(nl), netlink.LinkSetName(nl, want)); err != nil {
			return fmt.Errorf("rename link %s to %s: %w", l.name, want, err)
		}
		l.name = want
		nl.Attrs().Name = want
	}
	// A node forwards, and a forwarding link hears routers only with the value 2
	// (Linux Documentation/networking/ip-sysctl.rst, accept_ra).
	accept := "0"
	if l.plan.AcceptRA && !l.plan.Member {
		accept = "2"
	}
	conf := filepath.Join("/proc/sys/net/ipv6/conf", l.name, "accept_ra")
	if err := os.WriteFile(conf, []byte(accept), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("accept_ra of %s: %w", l.name, err)
	}
	if l.plan.MAC != "" {
		hw, err := net.ParseMAC(l.plan.MAC)
		if err == nil {
			err = netlink.LinkSetHardwareAddr(nl, hw)
		}
		if err != nil {
			return fmt.Errorf("set address %s of link %s: %w", l.plan.MAC, l.name, err)
		}
	}
	if l.plan.MTU > 0 {
		if err := netlink.LinkSetMTU(nl, l.plan.MTU); err != nil {
			return fmt.Errorf("set mtu %d of link %s: %w", l.plan.MTU, l.name, err)
		}
	}
	if l.plan.Member {
		return nil // it comes up with what takes it in
	}
	if err := netlink.LinkSetUp(nl); err != nil {
		return fmt.Errorf("set link %s up: %w", l.name, err)
	}
	for _, a := range l.plan.Addresses {
		if err := l.addAddress(a, 0); err != nil {
			return err
		}
	}
	for _, route := range l.plan.Routes {
		if err := l.addRoute(route, unix.RTPROT_STATIC); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) addAddress(a netip.Prefix, valid time.Duration) error {
	addr := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() && valid > 0 {
		addr.ValidLft, addr.PreferedLft = int(valid.Seconds()), int(valid.Seconds())
	}
	if err := netlink.AddrReplace(l.device(), addr); err != nil {
		return fmt.Errorf("add address %s to %s: %w", a, l.name, err)
	}
	return nil
}

func (l *link) device() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index, Name: l.name}}
}

// route makes the kernel's form of a route. Learned ones come after static
// ones, and those of later links after those of earlier ones.
func (l *link) route(r netconfig.Route, protocol netlink.RouteProtocol) *netlink.Route {
	out := &netlink.Route{LinkIndex: l.index, Dst: ipNet(r.To), Protocol: protocol, Priority: r.Metric}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		out.Flags |= int(netlink.FLAG_ONLINK)
	}
	if protocol == unix.RTPROT_DHCP && out.Priority == 0 {
		if out.Priority = l.plan.Metric; out.Priority == 0 {
			out.Priority = 100 + l.order
		}
	}
	return out
}

func (l *link) addRoute(r netconfig.Route, protocol netlink.RouteProtocol) error {
	if err := netlink.RouteReplace(l.route(r, protocol)); err != nil {
		return fmt.Errorf("add route to %s via %s on %s: %w", r.To, r.Via, l.name, err)
	}
	return nil
}

// applyLease puts a lease in force and takes back what the old one had more.
func (l *link) applyLease(old, now *lease) error {
	if old == nil {
		old = &lease{}
	}
	if now == nil {
		now = &lease{}
	}
	var errs []error
	if now.mtu > 0 && l.plan.MTU == 0 {
		errs = append(errs, netlink.LinkSetMTU(l.device(), now.mtu))
	}
	for _, a := range now.addrs {
		errs = append(errs, l.addAddress(a, now.valid))
	}
	for _, r := range now.routes {
		errs = append(errs, l.addRoute(r, unix.RTPROT_DHCP))
	}
	for _, r := range old.routes {
		if !slices.Contains(now.routes, r) {
			_ = netlink.RouteDel(l.route(r, unix.RTPROT_DHCP)) // gone with its address, perhaps
		}
	}
	for _, a := range old.addrs {
		if !slices.Contains(now.addrs, a) {
			err := netlink.AddrDel(l.device(), &netlink.Addr{IPNet: ipNet(a)})
			if !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// takeBack leaves the links as they were found. A link that is down has no
// routes and no addresses of IPv6 (Linux Documentation/networking/ip-sysctl.rst,
// keep_addr_on_down).
func (r *runner) takeBack() {
	for _, l := range r.ordered() {
		addrs, err := netlink.AddrList(l.device(), netlink.FAMILY_V4)
		for _, a := range addrs {
			err = errors.Join(err, netlink.AddrDel(l.device(), &a))
		}
		if l.plan.Member {
			err = errors.Join(err, os.WriteFile(disableIPv6(l.name), []byte("0"), 0))
		}
		if err = errors.Join(err, netlink.LinkSetDown(l.device())); err != nil {
			r.cfg.Logger.Warn("network: take back", "link", l.name, "error", err)
		}
	}
	for _, name := range slices.Backward(r.made) {
		if nl, err := netlink.LinkByName(name); err == nil {
			if err := netlink.LinkDel(nl); err != nil {
				r.cfg.Logger.Warn("network: take back", "link", name, "error", err)
			}
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// driver names the kernel driver of a link, "" for one without hardware.
func driver(name string) string {
	to, err := os.Readlink(filepath.Join("/sys/class/net", name, "device/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}
