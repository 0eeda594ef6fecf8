package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"
)

func ack(t *testing.T, with ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 9))}, with...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func show(l *lease) string {
	var b strings.Builder
	for _, a := range l.addrs {
		b.WriteString(a.String() + " ")
	}
	for _, r := range l.routes {
		b.WriteString(r.To.String() + ">")
		if r.Via.IsValid() {
			b.WriteString(r.Via.String())
		}
		if r.OnLink {
			b.WriteString("!")
		}
		b.WriteString(" ")
	}
	for _, d := range l.dns {
		b.WriteString("dns=" + d.String() + " ")
	}
	return b.String() + strings.Join(l.search, ",")
}

func TestLease4(t *testing.T) {
	mask := dhcpv4.WithNetmask(net.CIDRMask(24, 32))
	tests := []struct {
		name string
		with []dhcpv4.Modifier
		want string
	}{
		{"bare", nil, "192.0.2.9/32 "},
		{"usual", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 3))},
			"192.0.2.9/24 0.0.0.0/0>192.0.2.1 dns=192.0.2.3 "},
		{"router beyond a /32, as clouds have it", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(32, 32)), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1))},
			"192.0.2.9/32 0.0.0.0/0>10.0.0.1! "},
		{"classless routes hide the router", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 1, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(192, 0, 2, 2)},
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(169, 254, 169, 254), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero}))},
			"192.0.2.9/24 10.1.0.0/16>192.0.2.2 169.254.169.254/32> "},
		{"no address", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, ""},
		{"bad router and dns", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(224, 0, 0, 1)), dhcpv4.WithDNS(net.IPv4zero)}, "192.0.2.9/24 "},
		{"domain", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("a.example."))}, "192.0.2.9/32 a.example"},
		{"a domain that would add a line", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("a\nnameserver 6.6.6.6"))}, "192.0.2.9/32 "},
		{"search list before domain", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("a.example")),
			dhcpv4.WithDomainSearchList("b.example", "c.example")}, "192.0.2.9/32 b.example,c.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(lease4(ack(t, tt.with...))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLease6(t *testing.T) {
	reply := func(with ...dhcpv6.Modifier) *dhcpv6.Message {
		m, err := dhcpv6.NewMessage(with...)
		if err != nil {
			t.Fatal(err)
		}
		m.MessageType = dhcpv6.MessageTypeReply
		return m
	}
	address := dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::7"), ValidLifetime: time.Hour})
	dns := dhcpv6.WithDNS(net.ParseIP("2001:db8::53"))
	tests := []struct {
		name     string
		m        *dhcpv6.Message
		stateful bool
		want     string // "" for an error
	}{
		{"address", reply(address, dns), true, "2001:db8::7/128 dns=2001:db8::53 "},
		{"names alone", reply(dns, dhcpv6.WithDomainSearchList("a.example")), false, "dns=2001:db8::53 a.example"},
		{"no address", reply(dns), true, ""},
		{"address without a lifetime", reply(dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::7")})), true, ""},
		{"link-local", reply(dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fe80::7"), ValidLifetime: time.Hour})), true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := lease6(tt.m, tt.stateful)
			if (err != nil) != (tt.want == "") {
				t.Fatalf("got %v", err)
			}
			if err == nil && show(l) != tt.want {
				t.Errorf("got %q, want %q", show(l), tt.want)
			}
		})
	}
}

func TestRender(t *testing.T) {
	a := netip.MustParseAddr
	s := Status{Search: []string{"a.example", "b.example"}, Nameservers: []netip.Addr{
		a("192.0.2.1"), a("2001:db8::1"), a("fe80::1%eth0"), a("192.0.2.4")}}
	const head = "# Written by init from network-config, DHCP and router advertisements.\n"
	want := head + "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nsearch a.example b.example\n"
	if got := string(Render(s)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(Render(Status{})); got != head {
		t.Errorf("got %q, want the comment alone", got)
	}
}

// option builds a kernel message with one neighbour discovery option.
func option(index int, opt []byte) []byte {
	b := make([]byte, 16, 16+len(opt))
	b[0] = unix.AF_INET6
	binary.NativeEndian.PutUint16(b[2:], uint16(len(opt)))
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return append(b, opt...)
}

func rdnss(lifetime byte) []byte {
	addr := netip.MustParseAddr("2001:db8::53").As16()
	return append([]byte{25, 3, 0, 0, 0, 0, 0, lifetime}, addr[:]...)
}

func TestParseOption(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want int
	}{
		{"one server", option(3, rdnss(60)), 1},
		{"two options", option(3, append(rdnss(60), rdnss(60)...)), 2},
		{"withdrawn", option(3, rdnss(0)), 0},
		{"short", option(3, rdnss(60)[:12]), 0},
		{"no length", option(3, make([]byte, 16)), 0},
		{"empty", nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := parse(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWNDUSEROPT}, Data: tt.data})
			if len(m.rdnss) != tt.want || ok != (tt.want > 0) || ok && m.index != 3 {
				t.Errorf("got %+v %v, want %d servers", m, ok, tt.want)
			}
		})
	}
}

func TestParseFlags(t *testing.T) {
	flags := []byte{8, 0, unix.IFLA_INET6_FLAGS, 0, raManaged, 0, 0, 0}
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0], b[4] = unix.AF_INET6, 7
	b = append(b, 4+byte(len(flags)), 0, unix.IFLA_PROTINFO, 0x80) // NLA_F_NESTED
	b = append(b, flags...)
	m, ok := parse(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWLINK}, Data: b})
	if !ok || m.index != 7 || m.raFlags == nil || *m.raFlags != raManaged || m.link {
		t.Errorf("got %+v %v, want the managed flag of link 7", m, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWNDUSEROPT), option(3, rdnss(60)))
	f.Add(uint16(unix.RTM_NEWLINK), make([]byte, 64))
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		m, ok := parse(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: data})
		if !ok && (m.link || m.gone) {
			t.Error("half a message")
		}
	})
}

func FuzzLease4(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 9)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		l := lease4(m)
		for _, r := range l.routes {
			if !r.To.IsValid() {
				t.Error("invalid route")
			}
		}
		if text := string(Render(Status{Nameservers: l.dns, Search: l.search})); strings.Count(text, "\n") > 2+maxNameservers {
			t.Errorf("more lines than settings: %q", text)
		}
	})
}

func FuzzLease6(f *testing.F) {
	f.Add([]byte{7, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := dhcpv6.MessageFromBytes(data); err == nil {
			_, _ = lease6(m, true)
			_, _ = lease6(m, false)
		}
	})
}
