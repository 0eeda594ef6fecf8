package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/init/netconfig"
	"keelson/init/userdata"
)

// pair is a cable between two names of our choice.
func pair(t *testing.T, near, far string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far}); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(far)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// parsed is the plan of a document of version 2.
func parsed(t *testing.T, text string) netconfig.Plan {
	t.Helper()
	plan, problems := netconfig.Load([]userdata.Document{{Source: "network-config", Data: []byte("version: 2\n" + text)}})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	return plan
}

// ownSys shows the links of this network in /sys.
func ownSys(t *testing.T) {
	t.Helper()
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("sysfs", "/sys", "sysfs", 0, "")); err != nil {
		t.Skipf("needs a /sys of its own: %v", err)
	}
}

// needKind skips where the kernel lacks a kind of link.
func needKind(t *testing.T, l netlink.Link) {
	t.Helper()
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTSUP) {
		t.Skipf("this kernel makes no %s", l.Type())
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
}

func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

func bytesOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Two cards in a bond, a VLAN on it with the addresses, and a far end that
// speaks the VLAN on the first cable.
func TestBondWithVLAN(t *testing.T) {
	if !namespace(t) {
		return
	}
	ownSys(t)
	needKind(t, netlink.NewLinkBond(named("bond9")))
	needKind(t, &netlink.Dummy{LinkAttrs: named("probe0")})
	far := pair(t, "port0", "far0")
	second := pair(t, "port1", "far1")
	attrs := named("far0.7")
	attrs.ParentIndex = far.Attrs().Index
	tagged := &netlink.Vlan{LinkAttrs: attrs, VlanId: 7}
	if err := netlink.LinkAdd(tagged); err != nil {
		t.Skipf("this kernel makes no VLAN: %v", err)
	}
	mustUp(t, far, "203.0.113.1/24")
	mustUp(t, second, "203.0.113.2/24")
	mustUp(t, tagged, "192.0.2.1/24")
	n, _ := start(t, parsed(t, `
ethernets:
  a: {match: {name: port0}}
  b: {match: {name: port1}}
bonds:
  bond0:
    interfaces: [a, b]
    mtu: 1400
    macaddress: "52:54:00:00:00:0b"
    parameters: {mode: active-backup, primary: a, mii-monitor-interval: 50, primary-reselect-policy: always}
vlans:
  lan: {id: 7, link: bond0, addresses: [192.0.2.10/24], routes: [{to: default, via: 192.0.2.1}]}
`))
	if err := n.Wait(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	const bonding = "/sys/class/net/bond0/bonding/"
	for file, want := range map[string]string{
		bonding + "mode": "active-backup 1", bonding + "miimon": "50", bonding + "primary": "port0", bonding + "primary_reselect": "always 0",
		"/sys/class/net/bond0/mtu": "1400", "/sys/class/net/bond0/address": "52:54:00:00:00:0b", "/sys/class/net/lan/mtu": "1400",
		"/proc/sys/net/ipv6/conf/port1/disable_ipv6": "1",
	} {
		if got := bytesOf(t, file); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	if got := strings.Fields(bytesOf(t, bonding+"slaves")); len(got) != 2 {
		t.Errorf("members: got %q", got)
	}
	l, err := netlink.LinkByName("lan")
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := l.(*netlink.Vlan); !ok || v.VlanId != 7 {
		t.Errorf("got %+v, want VLAN 7", l)
	}
	if got := n.Status().Addresses; len(got) != 1 || got[0].String() != "192.0.2.10/24" {
		t.Errorf("addresses: got %v", got)
	}
}

func TestBridge(t *testing.T) {
	if !namespace(t) {
		return
	}
	ownSys(t)
	needKind(t, &netlink.Bridge{LinkAttrs: named("br9")})
	mustUp(t, pair(t, "port0", "far0"), "192.0.2.1/24")
	n, _ := start(t, parsed(t, `
ethernets:
  port0: {}
bridges:
  br0:
    interfaces: [port0]
    addresses: [192.0.2.10/24]
    parameters: {stp: true, forward-delay: 2, priority: 4096, hello-time: 1, max-age: 6}
  br1:
    addresses: [198.51.100.1/24]
    parameters: {ageing-time: 10}
`))
	// Without a default route in the plan, none is waited for.
	if err := n.Wait(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"br0/bridge/stp_state": "1", "br0/bridge/forward_delay": "200", "br0/bridge/priority": "4096",
		"br0/bridge/hello_time": "100", "br0/bridge/max_age": "600", "br1/bridge/ageing_time": "1000"} {
		if got := bytesOf(t, "/sys/class/net/"+file); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	if got := bytesOf(t, "/sys/class/net/port0/master/uevent"); !strings.Contains(got, "INTERFACE=br0") {
		t.Errorf("port0 is in %q", got)
	}
}

// A link of the name that a plan wants is replaced where it is of the same
// kind, and left alone where it is another.
func TestNameIsTaken(t *testing.T) {
	if !namespace(t) {
		return
	}
	needKind(t, &netlink.Bridge{LinkAttrs: named("br9")})
	r := runnerFor(t, netconfig.Plan{})
	for range 2 {
		if err := r.makeLink(&netlink.Bridge{LinkAttrs: named("br0")}); err != nil {
			t.Fatal(err)
		}
	}
	pair(t, "br1", "far1")
	if err := r.makeLink(&netlink.Bridge{LinkAttrs: named("br1")}); err == nil || !strings.Contains(err.Error(), "make bridge br1: another link has this name") {
		t.Errorf("got %v", err)
	}
	r.takeBack()
	if _, err := netlink.LinkByName("br0"); err == nil {
		t.Error("want our own links gone")
	}
	if _, err := netlink.LinkByName("br1"); err != nil {
		t.Errorf("want what we did not make still there: %v", err)
	}
}

func TestBondNumbers(t *testing.T) {
	none := 0
	if got := bond(named("b"), netconfig.Bond{Notices: &none}).NumPeerNotif; got != 0 {
		t.Errorf("notices: got %d, want none", got)
	}
	if got := bond(named("b"), netconfig.Bond{}).NumPeerNotif; got != -1 {
		t.Errorf("notices: got %d, want the kernel's own value", got)
	}
	all := bond(named("b"), netconfig.Bond{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4", Select: "bandwidth", FailOverMAC: "active",
		PrimaryReselect: "better", MIIMonitor: 100, UpDelay: 200, DownDelay: 300, MinLinks: 2})
	got := fmt.Sprint(all.Mode, all.LacpRate, all.XmitHashPolicy, int(all.AdSelect), all.FailOverMac, int(all.PrimaryReselect), all.Miimon, all.UpDelay, all.DownDelay, all.MinLinks)
	if want := "802.3ad fast layer3+4 1 active 1 100 200 300 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	arp := bond(named("b"), netconfig.Bond{MIIMonitor: 100, ARPInterval: 250, ARPTargets: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	if arp.Miimon != -1 || arp.ArpInterval != 250 || len(arp.ArpIpTargets) != 1 {
		t.Errorf("got %+v, want one way to look at members", arp)
	}
	if none := bond(named("b"), netconfig.Bond{}); none.Mode != -1 || none.Miimon != -1 {
		t.Errorf("got %+v, want the kernel's own values", none)
	}
}

func TestLeads(t *testing.T) {
	for text, want := range map[string]bool{
		"ethernets: {eth0: {addresses: [192.0.2.1/24]}}":                      false,
		"ethernets: {eth0: {addresses: [192.0.2.1/24]}, eth1: {dhcp4: true}}": true,
		"ethernets: {eth0: {addresses: [192.0.2.1/24], gateway4: 192.0.2.9}}": true,
		"ethernets: {eth0: {}}": true,
		"ethernets: {eth0: {}}\nbonds: {bond0: {interfaces: [eth0], addresses: [192.0.2.1/24]}}":     false,
		"ethernets: {eth0: {addresses: [192.0.2.1/24], routes: [{to: 10.0.0.0/8, via: 192.0.2.9}]}}": false,
	} {
		if got := runnerFor(t, parsed(t, text)).leads(); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestTold(t *testing.T) {
	for _, c := range []struct {
		o    netconfig.Overrides
		want string
	}{{netconfig.Overrides{}, "own"}, {netconfig.Overrides{Hostname: "other"}, "other"}, {netconfig.Overrides{Anonymous: true, Hostname: "other"}, ""}} {
		if got := told("own", c.o); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.o, got, c.want)
		}
	}
}
