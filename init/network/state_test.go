package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
)

func addresses(all ...string) (out []netip.Addr) {
	for _, s := range all {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func runnerFor(t *testing.T, plan netconfig.Plan) *runner {
	t.Helper()
	n, err := New(Config{Plan: plan, ResolvConf: filepath.Join(t.TempDir(), "resolv.conf"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &runner{Network: n, links: map[int]*link{}}
}

// Fields of an acknowledgement beside address and routes.
func TestLease4Fields(t *testing.T) {
	mtu := func(v uint16) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, v)))
	}
	tests := []struct {
		name string
		with dhcpv4.Modifier
		want string
	}{
		{"nothing", dhcpv4.WithLeaseTime(60), `1m0s mtu=0 host="" ntp=[]`},
		{"no lease time", dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), `1h0m0s mtu=0 host="" ntp=[]`},
		{"infinite", dhcpv4.WithLeaseTime(0xffffffff), `1193046h28m15s mtu=0 host="" ntp=[]`},
		{"mtu", mtu(1450), `1h0m0s mtu=1450 host="" ntp=[]`},
		{"smallest mtu", mtu(576), `1h0m0s mtu=576 host="" ntp=[]`},
		{"mtu that cuts a link off", mtu(68), `1h0m0s mtu=0 host="" ntp=[]`},
		{"host name", dhcpv4.WithOption(dhcpv4.OptHostName("node-7")), `1h0m0s mtu=0 host="node-7" ntp=[]`},
		{"host name with zeroes", dhcpv4.WithOption(dhcpv4.OptHostName("node-7\x00\x00")), `1h0m0s mtu=0 host="node-7" ntp=[]`},
		{"host name with a line", dhcpv4.WithOption(dhcpv4.OptHostName("a\n127.0.0.1 b")), `1h0m0s mtu=0 host="" ntp=[]`},
		{"time servers", dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(192, 0, 2, 4), net.IPv4zero, net.IPv4(224, 0, 1, 1), net.IPv4(127, 0, 0, 1))),
			`1h0m0s mtu=0 host="" ntp=[192.0.2.4]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := lease4(ack(t, tt.with))
			if got := fmt.Sprintf("%s mtu=%d host=%q ntp=%v", l.valid, l.mtu, l.hostname, l.ntp); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// Addresses that no machine can have are never put on a link.
func TestLease4Addresses(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "239.255.255.255"} {
		if l := lease4(ack(t, dhcpv4.WithYourIP(net.ParseIP(s)))); len(l.addrs) > 0 {
			t.Errorf("%s: got %v, want no address", s, l.addrs)
		}
	}
	for mask, want := range map[string]string{"ffffff00": "192.0.2.9/24", "ffffffff": "192.0.2.9/32", "fffffffe": "192.0.2.9/31", "00000000": "192.0.2.9/32", "ff00ff00": "192.0.2.9/32"} {
		if l := lease4(ack(t, dhcpv4.WithNetmask(net.IPMask(netmask(t, mask))))); len(l.addrs) != 1 || l.addrs[0].String() != want {
			t.Errorf("mask %s: got %v, want %s", mask, l.addrs, want)
		}
	}
}

func netmask(t *testing.T, hex string) []byte {
	t.Helper()
	var v uint32
	if _, err := fmt.Sscanf(hex, "%x", &v); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.AppendUint32(nil, v)
}

func TestLease6Refuses(t *testing.T) {
	reply := func(kind dhcpv6.MessageType, with ...dhcpv6.Modifier) *dhcpv6.Message {
		m, err := dhcpv6.NewMessage(with...)
		if err != nil {
			t.Fatal(err)
		}
		m.MessageType = kind
		return m
	}
	own := func(s string, valid time.Duration) dhcpv6.Modifier {
		return dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(s), ValidLifetime: valid})
	}
	status := dhcpv6.WithOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "none\nleft"})
	tests := []struct {
		name     string
		m        *dhcpv6.Message
		stateful bool
		want     string
	}{
		{"an offer", reply(dhcpv6.MessageTypeAdvertise, own("2001:db8::7", time.Hour)), true, "DHCPv6 server: answered ADVERTISE where a reply was wanted"},
		{"no addresses left", reply(dhcpv6.MessageTypeReply, status), true, `DHCPv6 server: NoAddrsAvail: "none\nleft"`},
		{"multicast", reply(dhcpv6.MessageTypeReply, own("ff02::1", time.Hour)), true, "DHCPv6 server: gave no address"},
		{"loopback", reply(dhcpv6.MessageTypeReply, own("::1", time.Hour)), true, "DHCPv6 server: gave no address"},
		{"IPv4 in IPv6", reply(dhcpv6.MessageTypeReply, own("192.0.2.1", time.Hour)), true, "DHCPv6 server: gave no address"},
		{"status does not matter for names", reply(dhcpv6.MessageTypeReply, status), false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := lease6(tt.m, tt.stateful)
			if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
				t.Errorf("got %+v %v, want %q", l, err, tt.want)
			}
		})
	}
	both := dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::7"), ValidLifetime: 3 * time.Hour},
		dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::8"), ValidLifetime: time.Hour})
	two, err := lease6(reply(dhcpv6.MessageTypeReply, both), true)
	if err != nil || len(two.addrs) != 2 || two.valid != time.Hour {
		t.Errorf("got %+v %v, want the shortest time of the addresses", two, err)
	}
}

// What a link tells: the plan before leases, and nothing that is ignored.
func TestTell(t *testing.T) {
	full := func(p netconfig.Link) *link {
		return &link{name: "eth0", plan: p, raDNS: addresses("fe80::1", "2001:db8::3"),
			lease4: &lease{dns: addresses("192.0.2.1"), search: []string{"four.example"}, ntp: []string{"192.0.2.4"}, hostname: "a"},
			lease6: &lease{dns: addresses("2001:db8::2"), search: []string{"six.example"}, hostname: "b"}}
	}
	tests := []struct {
		name string
		plan netconfig.Link
		want string
	}{
		{"all", netconfig.Link{AcceptRA: true, Nameservers: addresses("192.0.2.9"), Search: []string{"plan.example"}},
			"[192.0.2.9 192.0.2.1 2001:db8::2 fe80::1%eth0 2001:db8::3] [plan.example four.example six.example]"},
		{"no advertisements", netconfig.Link{}, "[192.0.2.1 2001:db8::2] [four.example six.example]"},
		{"not of DHCPv4", netconfig.Link{AcceptRA: true, DHCP4Overrides: netconfig.Overrides{IgnoreDNS: true}}, "[2001:db8::2 fe80::1%eth0 2001:db8::3] [six.example]"},
		{"not of DHCPv6 and routers", netconfig.Link{AcceptRA: true, DHCP6Overrides: netconfig.Overrides{IgnoreDNS: true}}, "[192.0.2.1] [four.example]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Status
			full(tt.plan).tell(&s)
			if got := fmt.Sprint(s.Nameservers, s.Search); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if s.Hostname != "a" || !slices.Equal(s.NTP, []string{"192.0.2.4"}) {
				t.Errorf("got %q %v, want the first name and the time server", s.Hostname, s.NTP)
			}
		})
	}
}

// Limits of resolvers, and names that would add lines.
func TestResolvConfLimits(t *testing.T) {
	var s Status
	for i := range 40 {
		s.Search = append(s.Search, fmt.Sprintf("d%d.example", i))
		s.Nameservers = append(s.Nameservers, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	text := string(Render(s))
	if got := strings.Count(text, "nameserver "); got != maxNameservers {
		t.Errorf("got %d name servers", got)
	}
	if got := strings.Count(text, ".example"); got != maxSearch || !strings.HasSuffix(text, "d31.example\n") {
		t.Errorf("got %d domains", got)
	}
	got := domains("a.example.", "b\x00\x00", "", ".", "c d", "-e", "_f", "g\nh", strings.Repeat("i", 254))
	if want := []string{"a.example", "b", "_f"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := unique([]string{"a", "b", "a", "c", "b"}); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %v, want each once, in order", got)
	}
}

func TestWriteResolvConf(t *testing.T) {
	r := runnerFor(t, netconfig.Plan{})
	s := Status{Nameservers: addresses("192.0.2.1")}
	if err := r.writeResolvConf(s); err != nil {
		t.Fatal(err)
	}
	has(t, r.cfg.ResolvConf, "nameserver 192.0.2.1\n")
	// Unchanged text is not written again: somebody's own change stays.
	if err := os.WriteFile(r.cfg.ResolvConf, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.writeResolvConf(s); err != nil {
		t.Fatal(err)
	}
	has(t, r.cfg.ResolvConf, "mine\n")
	if left, err := os.ReadDir(filepath.Dir(r.cfg.ResolvConf)); err != nil || len(left) != 1 {
		t.Errorf("got %v %v, want the one file", left, err)
	}
	r.cfg.ResolvConf = filepath.Join(t.TempDir(), "absent", "resolv.conf")
	if err := r.writeResolvConf(Status{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want an error for an absent folder", err)
	}
}

func TestReason(t *testing.T) {
	one := []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}
	tests := []struct {
		name  string
		l     link
		addrs []netip.Prefix
		want  string
	}{
		{"no cable", link{failure: "x"}, one, "no carrier"},
		{"nothing yet", link{carrier: true}, nil, "no address yet"},
		{"DHCP has failed", link{carrier: true, failure: "no lease"}, nil, "no lease"},
		{"no route", link{carrier: true, index: 1 << 20}, one, "no default route yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.l.reason(tt.addrs, true); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Which part of the plan a link gets.
func TestChoose(t *testing.T) {
	dev := func(name string, edit func(*netlink.LinkAttrs)) netlink.Link {
		attrs := netlink.LinkAttrs{Name: name, EncapType: "ether", HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}}
		if edit != nil {
			edit(&attrs)
		}
		return &netlink.Device{LinkAttrs: attrs}
	}
	byName := netconfig.Link{ID: "n", Match: netconfig.Match{Name: "eth0"}}
	byMAC := netconfig.Link{ID: "m", Match: netconfig.Match{MAC: "52:54:00:00:00:01"}}
	every := netconfig.Link{ID: "e", Match: netconfig.Match{Name: "*"}}
	tests := []struct {
		name  string
		links []netconfig.Link
		l     netlink.Link
		want  string
	}{
		{"default", nil, dev("eth0", nil), "default"},
		{"default leaves veth alone", nil, &netlink.Veth{LinkAttrs: *dev("eth0", nil).Attrs()}, ""},
		{"loopback", nil, dev("lo", func(a *netlink.LinkAttrs) { a.Flags = net.FlagLoopback }), ""},
		{"no ethernet", []netconfig.Link{every}, dev("tun0", func(a *netlink.LinkAttrs) { a.EncapType = "none" }), ""},
		{"first that fits", []netconfig.Link{byName, every}, dev("eth0", nil), "n"},
		{"later one", []netconfig.Link{byName, every}, dev("eth1", nil), "e"},
		{"by MAC", []netconfig.Link{byName, byMAC}, dev("ens3", nil), "m"},
		{"none", []netconfig.Link{byName}, dev("eth1", nil), ""},
		{"bridge by its own name", []netconfig.Link{byName}, &netlink.Bridge{LinkAttrs: *dev("eth0", nil).Attrs()}, "n"},
		{"bridge by MAC is not hardware", []netconfig.Link{byMAC}, &netlink.Bridge{LinkAttrs: *dev("br0", nil).Attrs()}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := runnerFor(t, netconfig.Plan{Links: tt.links}).choose(tt.l)
			if ok != (tt.want != "") || ok && got.ID != tt.want {
				t.Errorf("got %q %v, want %q", got.ID, ok, tt.want)
			}
		})
	}
}

// Metrics: static routes as written, learned ones by the order of the links.
func TestRouteMetric(t *testing.T) {
	to := netip.MustParsePrefix("0.0.0.0/0")
	via := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name     string
		l        link
		r        netconfig.Route
		protocol netlink.RouteProtocol
		metric   int
	}{
		{"static", link{order: 3}, netconfig.Route{To: to, Via: via}, unix.RTPROT_STATIC, 0},
		{"static with metric", link{}, netconfig.Route{To: to, Via: via, Metric: 7}, unix.RTPROT_STATIC, 7},
		{"learned, first link", link{}, netconfig.Route{To: to, Via: via}, unix.RTPROT_DHCP, 100},
		{"learned, later link", link{order: 3}, netconfig.Route{To: to, Via: via}, unix.RTPROT_DHCP, 103},
		{"learned, by the plan", link{order: 3, plan: netconfig.Link{Metric: 50}}, netconfig.Route{To: to, Via: via}, unix.RTPROT_DHCP, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.l.route(tt.r, tt.protocol)
			if got.Priority != tt.metric || got.Gw.String() != "192.0.2.1" || got.Scope != netlink.SCOPE_UNIVERSE || got.Flags != 0 {
				t.Errorf("got %+v, want the metric %d", got, tt.metric)
			}
		})
	}
	direct := (&link{}).route(netconfig.Route{To: to}, unix.RTPROT_STATIC)
	if direct.Scope != netlink.SCOPE_LINK || direct.Gw != nil {
		t.Errorf("got %+v, want a route on the link itself", direct)
	}
	if got := (&link{}).route(netconfig.Route{To: to, Via: via, OnLink: true}, unix.RTPROT_STATIC); got.Flags != int(netlink.FLAG_ONLINK) {
		t.Errorf("got flags %d, want onlink", got.Flags)
	}
}

// Messages of the kernel beside those of routers, whole and cut short.
func TestParseMessages(t *testing.T) {
	info := func(family byte, index int32) []byte {
		b := make([]byte, unix.SizeofIfInfomsg)
		b[0] = family
		binary.NativeEndian.PutUint32(b[4:], uint32(index))
		return b
	}
	tests := []struct {
		name string
		kind uint16
		data []byte
		want message
		ok   bool
	}{
		{"link", unix.RTM_NEWLINK, info(unix.AF_UNSPEC, 5), message{index: 5, link: true}, true},
		{"link is gone", unix.RTM_DELLINK, info(unix.AF_UNSPEC, 5), message{index: 5, gone: true}, true},
		{"bridge port", unix.RTM_NEWLINK, info(unix.AF_BRIDGE, 5), message{}, false},
		{"bridge port is gone", unix.RTM_DELLINK, info(unix.AF_BRIDGE, 5), message{}, false},
		{"IPv6 of a link without flags", unix.RTM_NEWLINK, info(unix.AF_INET6, 5), message{index: 5}, true},
		{"link cut short", unix.RTM_NEWLINK, info(unix.AF_UNSPEC, 5)[:15], message{}, false},
		{"address", unix.RTM_NEWADDR, []byte{2, 24, 0, 0, 6, 0, 0, 0}, message{index: 6}, true},
		{"address is gone", unix.RTM_DELADDR, []byte{10, 64, 0, 0, 6, 0, 0, 0}, message{index: 6}, true},
		{"address cut short", unix.RTM_NEWADDR, []byte{2, 24, 0, 0}, message{}, false},
		{"route", unix.RTM_NEWROUTE, nil, message{}, true},
		{"option of IPv4", unix.RTM_NEWNDUSEROPT, make([]byte, 40), message{}, false},
		{"neighbour", unix.RTM_NEWNEIGH, make([]byte, 40), message{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parse(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: tt.kind}, Data: tt.data})
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) || ok != tt.ok {
				t.Errorf("got %+v %v, want %+v %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestReportOfFailure(t *testing.T) {
	r := runnerFor(t, netconfig.Plan{})
	r.links[1] = &link{index: 1, name: "eth0", carrier: true}
	r.report(report{index: 1, family: 4, err: errors.New("go away\nkeelson: boot: complete\x1b[2J")})
	if got, want := r.links[1].reason(nil, true), "go away?keelson: boot: complete?[2J"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.report(report{index: 9, err: errors.New("of a link that is gone")})
}

func TestNewAndStatus(t *testing.T) {
	if n, err := New(Config{}); err == nil || n != nil {
		t.Errorf("got %v %v, want an error without a logger", n, err)
	}
	n, err := New(Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil || n.cfg.ResolvConf != DefaultResolvConf {
		t.Errorf("got %+v %v", n, err)
	}
	if err := n.Wait(t.Context(), 0); !errors.Is(err, ErrNotReady) || err.Error() != "network is not ready after 0s: network is not started" {
		t.Errorf("got %v", err)
	}
	n.status = Status{Search: []string{"a"}, NTP: []string{"b"}, Nameservers: addresses("192.0.2.1"), Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}}
	s := n.Status()
	s.Search[0], s.NTP[0], s.Nameservers[0], s.Addresses[0] = "x", "x", netip.Addr{}, netip.Prefix{}
	if got := n.Status(); got.Search[0] != "a" || got.NTP[0] != "b" || !got.Nameservers[0].IsValid() || !got.Addresses[0].IsValid() {
		t.Errorf("got %+v, want a status of its own", got)
	}
}
