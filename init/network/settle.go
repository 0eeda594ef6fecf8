package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
)

// settle brings everything that follows from the links up to date: what Status
// tells, resolv.conf, and whether the network is ready.
func (r *runner) settle() {
	status := Status{Nameservers: slices.Clone(r.cfg.Plan.Nameservers), Search: slices.Clone(r.cfg.Plan.Search)}
	ready := false
	var waiting []string
	for _, l := range r.ordered() {
		addrs, err := globals(l)
		if err != nil {
			r.cfg.Logger.Warn("network: list addresses", "link", l.name, "error", err)
		}
		status.Addresses = append(status.Addresses, addrs...)
		l.tell(&status)
		if len(addrs) > 0 && !l.routed {
			l.routed = true // once: the kernel tells of every route, which would end up here again
			r.routes(l)
		}
		if !r.ready && !l.plan.Member {
			reason := l.reason(addrs, r.leads())
			ready = ready || reason == ""
			waiting = append(waiting, l.name+": "+reason)
		}
	}
	status.Nameservers, status.Search = unique(status.Nameservers), unique(status.Search)
	r.mu.Lock()
	r.status = status
	r.mu.Unlock()
	if err := r.writeResolvConf(status); err != nil {
		r.cfg.Logger.Error("network: resolv.conf", "error", err)
	}
	if r.ready {
		return
	}
	if r.broken != "" {
		waiting = append(waiting, r.broken)
	}
	if len(r.links) == 0 && r.broken == "" {
		waiting = []string{"no ethernet link that the plan wants was found"}
	}
	r.explain(waiting)
	if ready {
		r.ready = true
		close(r.Network.ready)
	}
}

func (r *runner) explain(waiting []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = waiting
}

func (r *runner) ordered() []*link {
	out := make([]*link, 0, len(r.links))
	for _, l := range r.links {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *link) int { return a.order - b.order })
	return out
}

// routes adds the routes of version 1 whose gateway this link reaches.
func (r *runner) routes(l *link) {
	for _, route := range r.cfg.Plan.Routes {
		if !slices.ContainsFunc(l.plan.Addresses, func(p netip.Prefix) bool { return p.Contains(route.Via) }) {
			continue
		}
		if err := l.addRoute(route, unix.RTPROT_STATIC); err != nil {
			l.failure = err.Error()
		}
	}
}

// tell adds what the link knows: its plan first, then its leases.
func (l *link) tell(s *Status) {
	s.Nameservers = append(s.Nameservers, l.plan.Nameservers...)
	s.Search = append(s.Search, l.plan.Search...)
	for i, lease := range []*lease{l.lease4, l.lease6} {
		if lease == nil {
			continue
		}
		without := []netconfig.Overrides{l.plan.DHCP4Overrides, l.plan.DHCP6Overrides}[i]
		if !without.IgnoreNTP {
			s.NTP = append(s.NTP, lease.ntp...)
		}
		if s.Hostname == "" {
			s.Hostname = lease.hostname
		}
		if !without.IgnoreDNS {
			s.Nameservers = append(s.Nameservers, lease.dns...)
			if !without.IgnoreDomains {
				s.Search = append(s.Search, lease.search...)
			}
		}
	}
	if l.plan.AcceptRA && !l.plan.DHCP6Overrides.IgnoreDNS {
		for _, a := range l.raDNS {
			if a.IsLinkLocalUnicast() {
				a = a.WithZone(l.name)
			}
			s.Nameservers = append(s.Nameservers, a)
		}
	}
}

// leads says whether the plan has a way out of its own networks. A machine with
// static addresses alone, in a network without a router, waits for none.
func (r *runner) leads() bool {
	toAll := func(route netconfig.Route) bool { return route.To.Bits() == 0 }
	return len(r.cfg.Plan.Links) == 0 || slices.ContainsFunc(r.cfg.Plan.Routes, toAll) ||
		slices.ContainsFunc(r.cfg.Plan.Links, func(l netconfig.Link) bool {
			return l.DHCP4 || l.DHCP6 || !l.Member && len(l.Addresses) == 0 || slices.ContainsFunc(l.Routes, toAll)
		})
}

// reason says what a link waits for, "" when it is usable; leads, whether a
// default route is one of its needs.
func (l *link) reason(addrs []netip.Prefix, leads bool) string {
	switch {
	case !l.carrier:
		return "no carrier"
	case len(addrs) == 0 && l.failure != "":
		return l.failure
	case len(addrs) == 0:
		return "no address yet"
	case !leads:
		return ""
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		is4 := family == netlink.FAMILY_V4
		if !slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 }) {
			continue
		}
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: l.index}, netlink.RT_FILTER_OIF)
		if err == nil && slices.ContainsFunc(routes, isDefault) {
			return ""
		}
	}
	return "no default route yet"
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// globals lists the usable addresses of global scope.
func globals(l *link) ([]netip.Prefix, error) {
	all, err := netlink.AddrList(l.device(), netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Scope != int(netlink.SCOPE_UNIVERSE) || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		ones, _ := a.Mask.Size()
		out = append(out, netip.PrefixFrom(addr.Unmap(), ones))
	}
	return out, nil
}

// Limits of resolvers (resolv.conf(5)): three name servers, and the search
// domains that Kubernetes lets through (pkg/apis/core/validation, 32).
const (
	maxNameservers = 3
	maxSearch      = 32
)

// Render makes a resolv.conf.
func Render(s Status) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by init from network-config, DHCP and router advertisements.\n")
	for _, a := range s.Nameservers[:min(len(s.Nameservers), maxNameservers)] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if search := s.Search[:min(len(s.Search), maxSearch)]; len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	return b.Bytes()
}

// writeResolvConf replaces the file when its text changes. It lies on a tmpfs,
// so that there is nothing to sync.
func (r *runner) writeResolvConf(s Status) error {
	text := Render(s)
	if r.rendered == string(text) {
		return nil
	}
	temp := filepath.Join(filepath.Dir(r.cfg.ResolvConf), ".resolv.conf.new")
	if err := os.WriteFile(temp, text, 0o644); err != nil {
		return err
	}
	if err := os.Rename(temp, r.cfg.ResolvConf); err != nil {
		return err
	}
	r.rendered = string(text)
	return nil
}

// domains keeps the names that are fit for resolv.conf: they come from the wire.
func domains(names ...string) (out []string) {
	for _, name := range names {
		name = strings.TrimSuffix(strings.TrimRight(name, "\x00"), ".")
		if regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`).MatchString(name) {
			out = append(out, name)
		}
	}
	return out
}

func unique[T comparable](in []T) (out []T) {
	for _, v := range in {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
