package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"keelson/init/netconfig"
)

const inside = "KEELSON_TEST_NETNS"

// namespace runs a test anew in a process with a network of its own, so that
// real links, real routes and a real DHCP server can be had. It is true in that
// process; elsewhere the test was run when it returns.
func namespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "operation not permitted") {
		t.Skipf("network namespaces are forbidden here: %v %s", err, out)
	}
	if err != nil {
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// cable makes a pair of links; the near end is ours to configure.
func cable(t *testing.T) (far netlink.Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0"}); err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("far0")
	if err != nil {
		t.Fatal(err)
	}
	return far
}

func mustUp(t *testing.T, l netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.AddrReplace(l, addr), netlink.LinkSetUp(l)); err != nil {
		t.Fatal(err)
	}
}

// start runs a network until the test ends.
func start(t *testing.T, plan netconfig.Plan) (*Network, string) {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	n, err := New(Config{Plan: plan, Hostname: "node-1", ResolvConf: resolv, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return n, resolv
}

func has(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(got), want) {
		t.Errorf("%s: got %q %v, want it to hold %q", path, got, err, want)
	}
}

func TestStaticAddress(t *testing.T) {
	if !namespace(t) {
		return
	}
	far := cable(t)
	mustUp(t, far, "192.0.2.1/24")
	n, resolv := start(t, netconfig.Plan{Links: []netconfig.Link{{
		ID: "a", Match: netconfig.Match{Name: "eth0"}, SetName: "lan0", MTU: 1400, AcceptRA: true,
		Addresses:   []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")},
		Routes:      []netconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}},
		Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Search: []string{"a.example"},
	}}})
	if err := n.Wait(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("lan0")
	if err != nil || l.Attrs().MTU != 1400 {
		t.Errorf("got %v %v, want the link renamed with its mtu", l, err)
	}
	has(t, resolv, "nameserver 192.0.2.53\nsearch a.example\n")
	has(t, "/proc/sys/net/ipv6/conf/lan0/accept_ra", "2")
	if got := n.Status().Addresses; len(got) != 1 || got[0].String() != "192.0.2.10/24" {
		t.Errorf("got %v", got)
	}
}

// serve is a DHCP server on the far end that counts what it was asked.
func serve(t *testing.T, far netlink.Link, asked *atomic.Int32) {
	t.Helper()
	for _, name := range []string{"accept_local", "rp_filter"} {
		value := map[string]string{"accept_local": "1", "rp_filter": "0"}[name]
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+far.Attrs().Name+"/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	server, err := server4.NewServer(far.Attrs().Name, &net.UDPAddr{IP: net.IPv4zero, Port: 67}, func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		asked.Add(1)
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		answer, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(net.IPv4(198, 51, 100, 1)),
			dhcpv4.WithYourIP(net.IPv4(198, 51, 100, 77)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(net.IPv4(198, 51, 100, 1)), dhcpv4.WithDNS(net.IPv4(198, 51, 100, 3)), dhcpv4.WithLeaseTime(3600),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(198, 51, 100, 1))),
			dhcpv4.WithOption(dhcpv4.OptDomainName("b.example")), dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(198, 51, 100, 4))))
		if err != nil {
			t.Error(err)
			return
		}
		if m.HostName() != "node-1" {
			t.Errorf("got the host name %q", m.HostName())
		}
		if _, err := conn.WriteTo(answer.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve() }() // ends with Close
	t.Cleanup(func() { server.Close(); <-done })
}

func TestDHCP(t *testing.T) {
	if !namespace(t) {
		return
	}
	far := cable(t)
	var asked atomic.Int32
	n, resolv := start(t, netconfig.Plan{Links: []netconfig.Link{{ID: "a", Match: netconfig.Match{Name: "eth0"}, DHCP4: true}}})
	mustUp(t, far, "198.51.100.1/24") // the cable is plugged in after the boot
	serve(t, far, &asked)
	if err := n.Wait(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	st := n.Status()
	if len(st.Addresses) != 1 || st.Addresses[0].String() != "198.51.100.77/24" || len(st.NTP) != 1 {
		t.Errorf("got %+v", st)
	}
	has(t, resolv, "nameserver 198.51.100.3\nsearch b.example\n")
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range routes {
		found = found || isDefault(r) && r.Gw.String() == "198.51.100.1" && r.Priority == 100
	}
	if !found {
		t.Errorf("got %v, want a default route by the router", routes)
	}
	// Renewal asks the same server once more and keeps the address.
	before := asked.Load()
	first, err := n.ask(t, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if first.addrs[0].String() != "198.51.100.77/24" || asked.Load() <= before {
		t.Errorf("got %v after %d questions", first.addrs, asked.Load()-before)
	}
}

// ask makes an exchange and renews what it gave.
func (n *Network) ask(t *testing.T, name string) (*lease, error) {
	t.Helper()
	r := &runner{Network: n}
	first, err := r.ask4(t.Context(), name, netconfig.Link{}, nil, 5*time.Second)
	if err != nil {
		return nil, err
	}
	renewed, err := r.ask4(t.Context(), name, netconfig.Link{}, first, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	return lease4(renewed.ACK), nil
}

func TestNotReady(t *testing.T) {
	if !namespace(t) {
		return
	}
	cable(t)
	n, _ := start(t, netconfig.Plan{Links: []netconfig.Link{{ID: "a", Match: netconfig.Match{Name: "eth0"}, DHCP4: true}}})
	for range 1000 {
		err := n.Wait(t.Context(), 5*time.Millisecond)
		if !errors.Is(err, ErrNotReady) {
			t.Fatalf("got %v, want ErrNotReady", err)
		}
		if strings.Contains(err.Error(), "eth0: no carrier") {
			return
		}
		runtime.Gosched()
	}
	t.Error("the error never said that eth0 has no carrier")
}

// Pods come and go with links of their own; a plan by pattern leaves them alone.
func TestPatternsMeanHardware(t *testing.T) {
	if !namespace(t) {
		return
	}
	cable(t)
	n, _ := start(t, netconfig.Plan{Links: []netconfig.Link{{ID: "a", Match: netconfig.Match{Name: "*"}, DHCP4: true}}})
	for range 1000 {
		err := n.Wait(t.Context(), 5*time.Millisecond)
		if err != nil && strings.Contains(err.Error(), "no ethernet link") {
			return
		}
	}
	t.Error("a veth was taken for hardware")
}

// A router that is the only source of everything: address, route and DNS.
func TestRouterAdvertisement(t *testing.T) {
	if !namespace(t) {
		return
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("the kernel has no IPv6")
	}
	far := cable(t)
	for _, s := range []string{"eth0/dad_transmits", "far0/dad_transmits", "far0/accept_ra"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+s, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	mustUp(t, far, "192.0.2.1/24")
	n, resolv := start(t, netconfig.Plan{Links: []netconfig.Link{{ID: "a", Match: netconfig.Match{Name: "eth0"}, AcceptRA: true}}})
	stop := advertise(t, far.Attrs().Index)
	defer stop()
	if err := n.Wait(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := n.Status().Addresses; len(got) != 1 || !netip.MustParsePrefix("2001:db8:1::/64").Contains(got[0].Addr()) {
		t.Errorf("got %v, want one address of the advertised prefix", got)
	}
	has(t, resolv, "nameserver 2001:db8:1::53\n")
}

// advertise sends router advertisements (RFC 4861 4.2) until it is stopped.
func advertise(t *testing.T, index int) (stop func()) {
	t.Helper()
	prefix := netip.MustParseAddr("2001:db8:1::").As16()
	dns := netip.MustParseAddr("2001:db8:1::53").As16()
	ra := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	ra = append(ra, 3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0)
	ra = append(ra, prefix[:]...)
	ra = append(ra, 25, 3, 0, 0, 0, 0, 0x0e, 0x10)
	ra = append(ra, dns[:]...)
	conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.IPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, 255),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, index))
	}); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	done := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				// Fails until the far end has its own link-local address.
				_, _ = conn.WriteTo(ra, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: "far0"})
			}
		}
	}()
	return func() { close(done); <-over; ticker.Stop(); conn.Close() }
}
