package flannel

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetwork moves the test's thread into a network namespace of its own, in which eth0 has addresses; the thread ends
// with the test. It returns eth0.
func ownNetwork(t *testing.T) netlink.Link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		t.Skipf("a network namespace is not to be had: %v", err)
	}
	// A bridge stands for a card: not every kernel has dummy.
	card := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	if err := netlink.LinkAdd(card); err != nil {
		t.Skipf("a link cannot be made here: %v", err)
	}
	for _, text := range []string{"192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64", "2001:db8::9/64"} {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(card, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(card); err != nil {
		t.Fatal(err)
	}
	return card
}

func parsed(t *testing.T, backend string) *subnet.Config {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"EnableIPv6": true, "Network": "10.42.0.0/16", "IPv6Network": "fd00:42::/56", "Backend": map[string]string{"Type": backend},
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := subnet.ParseConfig(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// A machine has what two backends left, and routes of others; each backend takes away what is not its own.
func TestLeaveOthers(t *testing.T) {
	const (
		tunnel, tunnel6 = "10.42.1.0/24 flannel.1", "fd00:42:0:1::/64 flannel-v6.1"
		gateway         = "10.42.2.0/24 eth0"
		gateway6        = "fd00:42:0:2::/64 eth0"
		foreign         = "10.99.0.0/24 eth0"
		foreign6        = "fd00:99::/64 eth0"
	)
	for backend, want := range map[string][]string{
		"vxlan":     {tunnel, tunnel6, foreign, foreign6},
		"wireguard": {foreign, foreign6},
		"host-gw":   {gateway, gateway6, foreign, foreign6},
	} {
		t.Run(backend, func(t *testing.T) {
			card := ownNetwork(t)
			for name, id := range map[string]int{"flannel.1": 1, "flannel-v6.1": 2} {
				link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, VxlanId: id, Port: 8472 + id}
				if err := netlink.LinkAdd(link); err != nil {
					t.Skipf("a vxlan link cannot be made here: %v", err)
				}
				if err := netlink.LinkSetUp(link); err != nil {
					t.Fatal(err)
				}
			}
			for _, r := range []struct{ to, gw, link string }{
				{"10.42.1.0/24", "10.42.1.0", "flannel.1"}, {"fd00:42:0:1::/64", "fd00:42:0:1::", "flannel-v6.1"},
				{"10.42.2.0/24", "192.0.2.2", "eth0"}, {"fd00:42:0:2::/64", "2001:db8::2", "eth0"},
				{"10.99.0.0/24", "192.0.2.2", "eth0"}, {"fd00:99::/64", "2001:db8::2", "eth0"},
			} {
				addRoute(t, r.to, r.gw, r.link)
			}
			if err := leaveOthers(parsed(t, backend), card.Attrs().Index); err != nil {
				t.Fatal(err)
			}
			got := routes(t)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %q\nwant %q", got, want)
			}
		})
	}
}

func addRoute(t *testing.T, to, gw, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(gw), LinkIndex: link.Attrs().Index, Flags: int(netlink.FLAG_ONLINK)}); err != nil {
		t.Fatalf("%s: %v", to, err)
	}
}

// routes are those by way of a gateway, with their links.
func routes(t *testing.T) (all []string) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteList(nil, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Gw == nil {
				continue
			}
			link, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(r.Dst, " ", link.Attrs().Name))
		}
	}
	return all
}

// The interface and both addresses are those that the node is known by, not the first that the interface has.
func TestInterfaceOfTwoAddresses(t *testing.T) {
	ownNetwork(t)
	both := subnet.Config{EnableIPv4: true, EnableIPv6: true}
	for _, c := range []struct {
		name   string
		o      Options
		stored nodes
		config subnet.Config
		want   string // address, public address, and those of IPv6
	}{
		{"both", Options{Interfaces: list{"192.0.2.9,2001:db8::9"}}, nodes{}, both, "192.0.2.9 192.0.2.9 2001:db8::9 2001:db8::9"},
		{"IPv6 first", Options{Interfaces: list{"2001:db8::9,192.0.2.9"}}, nodes{}, both, "192.0.2.9 192.0.2.9 2001:db8::9 2001:db8::9"},
		{"annotated", Options{Interfaces: list{"192.0.2.9,2001:db8::9"}}, nodes{v4: "203.0.113.1", v6: "2001:db8:1::1"}, both, "192.0.2.9 203.0.113.1 2001:db8::9 2001:db8:1::1"},
		{"IPv4 alone", Options{Interfaces: list{"192.0.2.9"}}, nodes{}, subnet.Config{EnableIPv4: true}, "192.0.2.9 192.0.2.9 <nil> <nil>"},
		{"IPv4 alone, of a node that has both", Options{Interfaces: list{"192.0.2.9,2001:db8::9"}}, nodes{}, subnet.Config{EnableIPv4: true}, "192.0.2.9 192.0.2.9 <nil> <nil>"},
		{"IPv6 alone, of a node that has both", Options{Interfaces: list{"192.0.2.9,2001:db8::9"}}, nodes{}, subnet.Config{EnableIPv6: true}, "<nil> <nil> 2001:db8::9 2001:db8::9"},
		{"IPv6 alone", Options{Interfaces: list{"2001:db8::9"}}, nodes{}, subnet.Config{EnableIPv6: true}, "<nil> <nil> 2001:db8::9 2001:db8::9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A subtest has a goroutine of its own, which must be in the namespace too.
			ownNetwork(t)
			iface, err := externalInterface(t.Context(), c.o, c.stored, &c.config)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(iface.IfaceAddr, iface.ExtAddr, iface.IfaceV6Addr, iface.ExtV6Addr); got != c.want || iface.Iface.Name != "eth0" {
				t.Errorf("got %s on %s, want %s", got, iface.Iface.Name, c.want)
			}
		})
	}
}
