package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"keelson/init/netconfig"
)

// Timing of RFC 2131 4.1 and 4.4.5, with a shorter first wait: a switch port or
// a virtual network that is ready answers in milliseconds.
const (
	firstAnswer = time.Second
	maxPause    = 64 * time.Second
	minRenewal  = time.Minute
)

// client4 keeps a lease for one link until ctx ends.
func (r *runner) client4(ctx context.Context, index int, name string, plan netconfig.Link) {
	r.keep4(ctx, index, func(ctx context.Context, current *nclient4.Lease, wait time.Duration) (*nclient4.Lease, error) {
		return r.ask4(ctx, name, plan, current, wait)
	})
}

// keep4 is client4 with its exchanges given, so that hours of it can be tested.
func (r *runner) keep4(ctx context.Context, index int, ask func(context.Context, *nclient4.Lease, time.Duration) (*nclient4.Lease, error)) {
	var current *nclient4.Lease
	var expires time.Time
	for pause := firstAnswer; ctx.Err() == nil; {
		next, err := ask(ctx, current, pause)
		var l *lease
		if err == nil {
			if l = lease4(next.ACK); len(l.addrs) == 0 {
				err = errors.New("the DHCP server gave no usable address")
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.send(ctx, report{index: index, family: 4, err: err})
			if _, refused := err.(*nclient4.ErrNak); current != nil && (refused || time.Now().After(expires)) {
				current = nil
				r.send(ctx, report{index: index, family: 4})
			}
			rest(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, maxPause)
			continue
		}
		current, expires, pause = next, next.CreationTime.Add(l.valid), firstAnswer
		r.send(ctx, report{index: index, family: 4, lease: l})
		rest(ctx, renewal(next.ACK.IPAddressRenewalTime(0), l.valid))
	}
}

// told is the name that a server hears.
func told(own string, o netconfig.Overrides) string {
	switch {
	case o.Anonymous:
		return ""
	case o.Hostname != "":
		return o.Hostname
	}
	return own
}

// renewal is when to ask again: at the server's T1, or at half of the lease
// where it gave none or one that comes after the end (RFC 2131 4.4.5).
func renewal(t1, valid time.Duration) time.Duration {
	if t1 <= 0 || t1 >= valid {
		t1 = valid / 2
	}
	return max(t1, minRenewal)
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ask4 renews a lease; where that is not answered, and at first, it asks anew.
func (r *runner) ask4(ctx context.Context, name string, plan netconfig.Link, current *nclient4.Lease, wait time.Duration) (*nclient4.Lease, error) {
	client, err := nclient4.New(name, nclient4.WithTimeout(wait), nclient4.WithRetry(2))
	if err != nil {
		return nil, fmt.Errorf("open DHCP socket: %w", err)
	}
	defer client.Close()
	with := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionHostName,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionClasslessStaticRoute,
		dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue)}
	if told := told(r.cfg.Hostname, plan.DHCP4Overrides); told != "" {
		with = append(with, dhcpv4.WithOption(dhcpv4.OptHostName(told)))
	}
	if current != nil {
		renewed, err := client.Renew(ctx, current, with...)
		if _, refused := err.(*nclient4.ErrNak); err == nil || refused {
			return renewed, err
		}
		with = append(with, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(current.ACK.YourIPAddr)))
	}
	lease, err := client.Request(ctx, with...)
	if err != nil {
		return nil, fmt.Errorf("no lease from a DHCP server: %w", err)
	}
	return lease, nil
}

// lease4 takes from an answer what a node uses (RFC 2132, RFC 3442).
func lease4(ack *dhcpv4.DHCPv4) *lease {
	l := &lease{valid: ack.IPAddressLeaseTime(time.Hour)}
	if names := domains(ack.HostName()); len(names) > 0 {
		l.hostname = names[0]
	}
	own, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || own.IsUnspecified() || own.IsLoopback() || own.IsMulticast() {
		return l
	}
	bits := 32
	if mask := ack.SubnetMask(); mask != nil {
		if ones, size := mask.Size(); size == 32 && ones > 0 {
			bits = ones
		}
	}
	prefix := netip.PrefixFrom(own, bits)
	l.addrs = []netip.Prefix{prefix}
	via := func(ip net.IP) (netip.Addr, bool) {
		a, ok := netip.AddrFromSlice(ip.To4())
		return a, ok && !a.IsMulticast() && !a.IsLoopback()
	}
	add := func(to netip.Prefix, gw netip.Addr) {
		route := netconfig.Route{To: to}
		if !gw.IsUnspecified() {
			route.Via, route.OnLink = gw, !prefix.Contains(gw)
		}
		l.routes = append(l.routes, route)
	}
	// RFC 3442: a client that knows option 121 ignores the routers.
	if classless := ack.ClasslessStaticRoute(); len(classless) > 0 {
		for _, route := range classless {
			ones, size := route.Dest.Mask.Size()
			to, ok := netip.AddrFromSlice(route.Dest.IP.To4())
			if gw, good := via(route.Router); ok && good && size == 32 {
				add(netip.PrefixFrom(to, ones).Masked(), gw)
			}
		}
	} else if routers := ack.Router(); len(routers) > 0 {
		if gw, ok := via(routers[0]); ok && !gw.IsUnspecified() {
			add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gw)
		}
	}
	for _, ip := range ack.DNS() {
		if a, ok := via(ip); ok && !a.IsUnspecified() {
			l.dns = append(l.dns, a)
		}
	}
	for _, ip := range ack.NTPServers() {
		if a, ok := via(ip); ok && !a.IsUnspecified() {
			l.ntp = append(l.ntp, a.String())
		}
	}
	if search := ack.DomainSearch(); search != nil && len(search.Labels) > 0 {
		l.search = domains(search.Labels...)
	} else {
		l.search = domains(ack.DomainName())
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		l.mtu = int(mtu)
	}
	return l
}
