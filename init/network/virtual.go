package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
)

// makeLinks makes the bonds and bridges of the plan; VLANs come with the link
// that they are on.
func (r *runner) makeLinks() error {
	var errs []error
	for _, p := range r.cfg.Plan.Links {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = p.Match.Name
		var err error
		switch p.Kind {
		case netconfig.KindBond:
			err = r.makeLink(bond(attrs, p.Bond))
		case netconfig.Bridge:
			if err = r.makeLink(&netlink.Bridge{LinkAttrs: attrs}); err == nil {
				err = bridgeSettings(attrs.Name, p.Bridge)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// makeLink adds a link. One of that kind and name that is there already is
// replaced: the bonding module brings a bond0 of its own.
func (r *runner) makeLink(l netlink.Link) error {
	name := l.Attrs().Name
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EEXIST) {
		old, lerr := netlink.LinkByName(name)
		if lerr != nil || old.Type() != l.Type() {
			return fmt.Errorf("make %s %s: another link has this name", l.Type(), name)
		}
		if err = netlink.LinkDel(old); err == nil {
			err = netlink.LinkAdd(l)
		}
	}
	if err != nil {
		return fmt.Errorf("make %s %s: %w", l.Type(), name, err)
	}
	r.made = append(r.made, name)
	return nil
}

// makeVLANs makes the VLANs on a link that came up. The kernel tells of each as
// of any new link.
func (r *runner) makeVLANs(parent *link) error {
	var errs []error
	for _, p := range r.cfg.Plan.Links {
		if p.Kind != netconfig.VLAN || p.Parent != parent.plan.ID || parent.plan.ID == "" {
			continue
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = p.Match.Name, parent.index
		errs = append(errs, r.makeLink(&netlink.Vlan{LinkAttrs: attrs, VlanId: p.VLAN}))
	}
	return errors.Join(errs...)
}

// bond turns the words of a plan into the kernel's numbers.
func bond(attrs netlink.LinkAttrs, b netconfig.Bond) *netlink.Bond {
	out := netlink.NewLinkBond(attrs)
	if b.Mode != "" {
		out.Mode = netlink.StringToBondMode(b.Mode)
	}
	if b.LACPRate != "" {
		out.LacpRate = netlink.StringToBondLacpRate(b.LACPRate)
	}
	if b.HashPolicy != "" {
		out.XmitHashPolicy = netlink.StringToBondXmitHashPolicy(b.HashPolicy)
	}
	if v, ok := netlink.StringToBondAdSelectMap[b.Select]; ok {
		out.AdSelect = v
	}
	if v, ok := netlink.StringToBondFailOverMacMap[b.FailOverMAC]; ok {
		out.FailOverMac = v
	}
	if v, ok := netlink.StringToBondPrimaryReselectMap[b.PrimaryReselect]; ok {
		out.PrimaryReselect = v
	}
	set := func(to *int, v int) {
		if v > 0 {
			*to = v
		}
	}
	set(&out.MinLinks, b.MinLinks)
	if b.Notices != nil {
		out.NumPeerNotif = *b.Notices
	}
	if b.ARPInterval > 0 { // the kernel takes one way to look at members, not both
		out.ArpInterval = b.ARPInterval
		for _, a := range b.ARPTargets {
			out.ArpIpTargets = append(out.ArpIpTargets, a.AsSlice())
		}
		return out
	}
	set(&out.Miimon, b.MIIMonitor)
	set(&out.UpDelay, b.UpDelay)
	set(&out.DownDelay, b.DownDelay)
	return out
}

// bridgeSettings writes what a bridge is to do other than the kernel would;
// times are in hundredths of a second there (net/bridge/br_sysfs_br.c).
func bridgeSettings(name string, b netconfig.BridgeSettings) error {
	write := func(file string, value int) error {
		path := filepath.Join("/sys/class/net", name, "bridge", file)
		if err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0); err != nil {
			return fmt.Errorf("set %s of bridge %s: %w", file, name, err)
		}
		return nil
	}
	var errs []error
	if b.Priority != nil {
		errs = append(errs, write("priority", *b.Priority))
	}
	for _, t := range []struct {
		file  string
		value *int
	}{{"forward_delay", b.Forward}, {"hello_time", b.Hello}, {"max_age", b.MaxAge}, {"ageing_time", b.Aging}} {
		if t.value != nil {
			errs = append(errs, write(t.file, *t.value*100))
		}
	}
	if b.STP {
		errs = append(errs, write("stp_state", 1))
	}
	return errors.Join(errs...)
}

// enslave puts a member into what takes it in. A bond takes only links that are
// down, and one that was moved before stays where it is.
func (r *runner) enslave(l *link) error {
	at := slices.IndexFunc(r.cfg.Plan.Links, func(p netconfig.Link) bool { return slices.Contains(p.Members, l.plan.ID) })
	if at < 0 {
		return nil
	}
	master := r.cfg.Plan.Links[at]
	nl, err := netlink.LinkByName(master.Match.Name)
	if err != nil {
		return fmt.Errorf("put %s into %s: %w", l.name, master.Match.Name, err)
	}
	// Members have no addresses: not even those that IPv6 makes of itself.
	if err := os.WriteFile(disableIPv6(l.name), []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put %s into %s: %w", l.name, master.Match.Name, err)
	}
	if err := errors.Join(netlink.LinkSetDown(l.device()), netlink.LinkSetMaster(l.device(), nl), netlink.LinkSetUp(l.device())); err != nil {
		return fmt.Errorf("put %s into %s: %w", l.name, master.Match.Name, err)
	}
	if master.Bond.Primary == l.plan.ID {
		path := filepath.Join("/sys/class/net", master.Match.Name, "bonding/primary")
		if err := os.WriteFile(path, []byte(l.name), 0); err != nil {
			return fmt.Errorf("make %s the primary of %s: %w", l.name, master.Match.Name, err)
		}
	}
	return nil
}

func disableIPv6(name string) string {
	return filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
}
