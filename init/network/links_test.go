package network

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"keelson/init/netconfig"
)

// routed lists the routes of a link as "to via", those of the kernel left out.
func routed(t *testing.T, index int) (out []string) {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: index}, netlink.RT_FILTER_OIF)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Gw != nil {
			to := "default"
			if !isDefault(r) {
				to = r.Dst.String()
			}
			out = append(out, to+" "+r.Gw.String())
		}
	}
	slices.Sort(out)
	return out
}

// A lease that changes takes its old address and routes with it.
func TestLeaseIsReplaced(t *testing.T) {
	if !namespace(t) {
		return
	}
	mustUp(t, cable(t), "192.0.2.1/24")
	near, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(near); err != nil {
		t.Fatal(err)
	}
	l := &link{index: near.Attrs().Index, name: "eth0", carrier: true}
	made := func(own, router string, mtu int) *lease {
		return &lease{valid: time.Hour, mtu: mtu, addrs: []netip.Prefix{netip.MustParsePrefix(own)},
			routes: []netconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(router)}}}
	}
	first, second := made("192.0.2.10/24", "192.0.2.1", 1400), made("198.51.100.10/24", "198.51.100.1", 0)
	steps := []struct {
		name        string
		old, now    *lease
		addr, route string
	}{
		{"first", nil, first, "192.0.2.10/24", "default 192.0.2.1"},
		{"the same once more", first, first, "192.0.2.10/24", "default 192.0.2.1"},
		{"another network", first, second, "198.51.100.10/24", "default 198.51.100.1"},
		{"over", second, nil, "", ""},
		{"over once more", second, nil, "", ""},
	}
	for _, s := range steps {
		if err := l.applyLease(s.old, s.now); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		addrs, err := globals(l)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range addrs {
			if a.Addr().Is4() {
				got = append(got, a.String())
			}
		}
		want, wantRoute := []string{s.addr}, []string{s.route}
		if s.addr == "" {
			want, wantRoute = nil, nil
		}
		if routes := routed(t, l.index); !slices.Equal(got, want) || !slices.Equal(routes, wantRoute) {
			t.Errorf("%s: got %v and %v, want %v and %v", s.name, got, routes, want, wantRoute)
		}
	}
	if fresh, err := netlink.LinkByIndex(l.index); err != nil || fresh.Attrs().MTU != 1400 {
		t.Errorf("got %v %v, want the mtu of the first lease", fresh, err)
	}
}

// A second card that is found when the network is long ready gets its address
// and the routes of version 1 that go through it.
func TestLinkThatComesLate(t *testing.T) {
	if !namespace(t) {
		return
	}
	mustUp(t, cable(t), "192.0.2.1/24")
	static := func(name, own string) netconfig.Link {
		return netconfig.Link{ID: name, Match: netconfig.Match{Name: name}, Addresses: []netip.Prefix{netip.MustParsePrefix(own)}}
	}
	first := static("eth0", "192.0.2.10/24")
	first.Routes = []netconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}}
	n, _ := start(t, netconfig.Plan{Links: []netconfig.Link{first, static("eth1", "198.51.100.10/24")},
		Routes: []netconfig.Route{{To: netip.MustParsePrefix("203.0.113.0/24"), Via: netip.MustParseAddr("198.51.100.1")}}})
	if err := n.Wait(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	updates, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.RouteSubscribe(updates, done); err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth1"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far1"}); err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("far1")
	if err != nil {
		t.Fatal(err)
	}
	mustUp(t, far, "198.51.100.1/24")
	limit := time.After(10 * time.Second)
	for {
		select {
		case u := <-updates:
			if u.Dst != nil && u.Dst.String() == "203.0.113.0/24" && u.Gw.String() == "198.51.100.1" {
				return
			}
		case <-limit:
			t.Fatal("the route through the second link never came")
		}
	}
}

// A plan that says disabled leaves every link alone.
func TestDisabledPlan(t *testing.T) {
	if !namespace(t) {
		return
	}
	mustUp(t, cable(t), "192.0.2.1/24")
	n, _ := start(t, netconfig.Plan{Disabled: true})
	for range 1000 {
		if err := n.Wait(t.Context(), time.Millisecond); err != nil && err.Error() == "network is not ready after 1ms: network-config says disabled" {
			near, err := netlink.LinkByName("eth0")
			if err != nil || near.Attrs().Flags&1 != 0 {
				t.Errorf("got %v %v, want the link down as it was", near, err)
			}
			return
		}
	}
	t.Error("nobody said that the plan is disabled")
}

// What a plan put on the links is gone when another one comes in force.
func TestReplacedPlan(t *testing.T) {
	if !namespace(t) {
		return
	}
	mustUp(t, cable(t), "192.0.2.1/24")
	n, err := New(Config{ResolvConf: filepath.Join(t.TempDir(), "resolv.conf"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Plan: netconfig.Plan{Links: []netconfig.Link{{ID: "a", Match: netconfig.Match{Name: "eth0"},
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24"), netip.MustParsePrefix("2001:db8::10/64")},
			Routes:    []netconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	if err := n.Wait(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	cancel(ErrReplaced)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err1 := netlink.AddrList(l, netlink.FAMILY_ALL)
	routes, err2 := netlink.RouteList(l, netlink.FAMILY_ALL)
	if err := errors.Join(err1, err2); err != nil || len(addrs) != 0 || len(routes) != 0 {
		t.Errorf("got %v %v %v, want nothing left", addrs, routes, err)
	}
}
