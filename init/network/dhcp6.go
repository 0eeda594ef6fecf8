package network

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
)

// client6 keeps what a DHCPv6 server gives: an address and names where the
// router says managed, names alone where it says other (RFC 4861 4.2, RFC 8415).
func (r *runner) client6(ctx context.Context, index int, name string, stateful bool) {
	r.keep6(ctx, index, func(ctx context.Context, wait time.Duration) (*lease, error) {
		return ask6(ctx, name, stateful, wait)
	})
}

// keep6 is client6 with its exchanges given, so that hours of it can be tested.
func (r *runner) keep6(ctx context.Context, index int, ask func(context.Context, time.Duration) (*lease, error)) {
	var expires time.Time
	for pause := firstAnswer; ctx.Err() == nil; {
		l, err := ask(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.send(ctx, report{index: index, family: 6, err: err})
			if !expires.IsZero() && time.Now().After(expires) {
				expires = time.Time{}
				r.send(ctx, report{index: index, family: 6})
			}
			rest(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, maxPause)
			continue
		}
		expires, pause = time.Now().Add(l.valid), firstAnswer
		r.send(ctx, report{index: index, family: 6, lease: l})
		rest(ctx, renewal(0, l.valid))
	}
}

// ask6 makes one exchange. A renewal is a new exchange: the server knows the
// client by its identifier and gives the same address again.
func ask6(ctx context.Context, name string, stateful bool, wait time.Duration) (*lease, error) {
	client, err := nclient6.New(name, nclient6.WithTimeout(wait), nclient6.WithRetry(3))
	if err != nil {
		return nil, fmt.Errorf("open DHCPv6 socket: %w", err)
	}
	defer client.Close()
	options := dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList)
	var answer *dhcpv6.Message
	if stateful {
		answer, err = client.RapidSolicit(ctx, options)
	} else {
		answer, err = inform(ctx, client, options)
	}
	if err != nil {
		return nil, fmt.Errorf("no answer from a DHCPv6 server: %w", err)
	}
	return lease6(answer, stateful)
}

// inform asks for names alone (RFC 8415 18.2.6).
func inform(ctx context.Context, client *nclient6.Client, options dhcpv6.Modifier) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage()
	if err != nil {
		return nil, err
	}
	m.MessageType = dhcpv6.MessageTypeInformationRequest
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: client.InterfaceAddr()}))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	options(m)
	to := &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: dhcpv6.DefaultServerPort}
	return client.SendAndRead(ctx, to, m, nclient6.IsMessageType(dhcpv6.MessageTypeReply))
}

func lease6(m *dhcpv6.Message, stateful bool) (*lease, error) {
	l := &lease{valid: 24 * time.Hour}
	if m.MessageType != dhcpv6.MessageTypeReply {
		return nil, fmt.Errorf("DHCPv6 server: answered %s where a reply was wanted", m.MessageType)
	}
	if stateful {
		if status := m.Options.Status(); status != nil && status.StatusCode != 0 {
			return nil, fmt.Errorf("DHCPv6 server: %s: %.80q", status.StatusCode, status.StatusMessage)
		}
		for _, ia := range m.Options.IANA() {
			for _, a := range ia.Options.Addresses() {
				addr, ok := netip.AddrFromSlice(a.IPv6Addr.To16())
				if !ok || !addr.Is6() || addr.Is4In6() || !addr.IsGlobalUnicast() || a.ValidLifetime <= 0 {
					continue
				}
				// RFC 8415 18.2.10.1: the router says what is on the link.
				l.addrs = append(l.addrs, netip.PrefixFrom(addr, 128))
				l.valid = min(l.valid, a.ValidLifetime)
			}
		}
		if len(l.addrs) == 0 {
			return nil, fmt.Errorf("DHCPv6 server: gave no address")
		}
	}
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To16()); ok && !a.IsMulticast() && !a.IsUnspecified() {
			l.dns = append(l.dns, a.Unmap())
		}
	}
	if search := m.Options.DomainSearchList(); search != nil {
		l.search = domains(search.Labels...)
	}
	return l, nil
}
