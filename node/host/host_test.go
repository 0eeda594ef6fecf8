package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson/node/config"
)

func TestOrder(t *testing.T) {
	at := netip.MustParseAddr
	for _, c := range []struct {
		name string
		all  []candidate
		want []netip.Addr
	}{
		{"none", nil, nil},
		{"the default route's address first", []candidate{{at("10.1.0.1"), noRoute}, {at("10.0.0.1"), 100}}, []netip.Addr{at("10.0.0.1"), at("10.1.0.1")}},
		{"the cheaper route first", []candidate{{at("10.1.0.1"), 200}, {at("10.0.0.1"), 100}}, []netip.Addr{at("10.0.0.1"), at("10.1.0.1")}},
		{"IPv4 before IPv6", []candidate{{at("fd00::1"), 0}, {at("10.0.0.1"), 100}}, []netip.Addr{at("10.0.0.1"), at("fd00::1")}},
		{"as the kernel has it otherwise", []candidate{{at("10.0.0.2"), noRoute}, {at("10.0.0.1"), noRoute}}, []netip.Addr{at("10.0.0.2"), at("10.0.0.1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := order(c.all); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	attrs := func(name string, flags net.Flags) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Flags: flags}
	}
	ether := &netlink.Device{LinkAttrs: attrs("eth0", net.FlagUp)}
	addr := func(s string, flags int) netlink.Addr {
		n, err := netlink.ParseIPNet(s)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Addr{IPNet: n, Flags: flags}
	}
	for _, c := range []struct {
		name string
		link netlink.Link
		addr netlink.Addr
		want bool
	}{
		{"ethernet", ether, addr("10.0.2.15/24", 0), true},
		{"IPv6", ether, addr("fec0::15/64", 0), true},
		{"link-local", ether, addr("fe80::1/64", 0), false},
		{"tentative", ether, addr("fec0::15/64", unix.IFA_F_TENTATIVE), false},
		{"privacy address", ether, addr("fec0::15/64", unix.IFA_F_TEMPORARY), false},
		{"link down", &netlink.Device{LinkAttrs: attrs("eth0", 0)}, addr("10.0.2.15/24", 0), false},
		{"loopback", &netlink.Device{LinkAttrs: attrs("lo", net.FlagUp|net.FlagLoopback)}, addr("10.9.0.1/32", 0), false},
		{"flannel's link", &netlink.Vxlan{LinkAttrs: attrs("flannel.1", net.FlagUp)}, addr("10.42.0.0/32", 0), false},
		{"flannel's encrypted link", &netlink.Wireguard{LinkAttrs: attrs("flannel-wg", net.FlagUp)}, addr("10.42.0.0/32", 0), false},
		{"a tunnel of the operator's", &netlink.Wireguard{LinkAttrs: attrs("wg0", net.FlagUp)}, addr("10.9.0.1/24", 0), true},
		{"the pods' bridge", &netlink.Bridge{LinkAttrs: attrs("cni0", net.FlagUp)}, addr("10.42.0.1/24", 0), false},
		{"a bridge of the operator's", &netlink.Bridge{LinkAttrs: attrs("br0", net.FlagUp)}, addr("10.0.0.5/24", 0), true},
		{"a container's veth", &netlink.Veth{LinkAttrs: attrs("veth1", net.FlagUp)}, addr("10.0.0.5/24", 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := usable(c.link, c.addr); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// ownNetwork moves the test's thread into a network namespace of its own; the thread ends with the test.
func ownNetwork(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		t.Skipf("a network namespace is not to be had: %v", err)
	}
}

func addLink(t *testing.T, name, addr string) {
	t.Helper()
	// A bridge stands for an ethernet device: a dummy would rightly be refused.
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("a bridge cannot be made here: %v", err)
	}
	parsed, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, parsed); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func TestLoadPutsTheDefaultRouteFirst(t *testing.T) {
	ownNetwork(t)
	addLink(t, "br0", "10.1.0.5/24")
	addLink(t, "br1", "10.2.0.5/24")
	route := &netlink.Route{Gw: net.ParseIP("10.2.0.1")}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	h, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("10.2.0.5"), netip.MustParseAddr("10.1.0.5")}
	if !slices.Equal(h.Addresses, want) {
		t.Errorf("got %v, want %v", h.Addresses, want)
	}
	if h.Name == "" {
		t.Error("no host name")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ownNetwork(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := Wait(ctx, time.Millisecond, any); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline: this network has no address", err)
	}
}

func TestWaitIsWokenByAnAddress(t *testing.T) {
	ownNetwork(t)
	// Both ends use this thread's namespace: the subscription is made before Wait first looks, and the address is
	// there when it does, or its message wakes it.
	addLink(t, "br0", "10.1.0.5/24")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h, err := Wait(ctx, time.Hour, any)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Addresses) != 1 || h.Addresses[0] != netip.MustParseAddr("10.1.0.5") {
		t.Errorf("got %v, want 10.1.0.5", h.Addresses)
	}
}

// any is content with one address of whatever kind.
func any(h config.Host) bool { return len(h.Addresses) > 0 }

// What is wanted besides the first address is waited for, but not for ever.
func TestWaitForASecondFamily(t *testing.T) {
	ownNetwork(t)
	addLink(t, "br0", "10.1.0.5/24")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	both := func(h config.Host) bool { return len(h.Addresses) == 2 }
	h, err := Wait(ctx, time.Millisecond, both)
	if err != nil || len(h.Addresses) != 1 {
		t.Errorf("after the patience: got %v, %v, want the one address", h.Addresses, err)
	}
	looked := 0
	h, err = Wait(ctx, time.Hour, func(h config.Host) bool {
		if looked++; looked == 1 { // the subscription is made: what comes now wakes it
			link, err := netlink.LinkByName("br0")
			if err != nil {
				t.Fatal(err)
			}
			second := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fd00::5"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
			if err := netlink.AddrAdd(link, second); err != nil {
				t.Skipf("IPv6 is not to be had: %v", err)
			}
			return false
		}
		return both(h)
	})
	if want := []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}; err != nil || !slices.Equal(h.Addresses, want) {
		t.Errorf("got %v, %v, want %v", h.Addresses, err, want)
	}
}
