package server

import (
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"keelson/node/config"
)

// A server that has once run with networks keeps them where nothing is set: neither an address that is missing one day
// nor one that is new makes another cluster of it.
func TestNetworksAreKept(t *testing.T) {
	s := newServer(t, nil)
	open := s.cfg.Settings
	if got, err := s.recallNetworks(open); err != nil || len(got.ClusterCIDR) != 0 {
		t.Fatalf("before the first start: got %v, %v", got.ClusterCIDR, err)
	}
	if err := s.makeFolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.rememberNetworks(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := config.Host{Name: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("fd00::15")}}
	got, err := s.recallNetworks(open)
	if err != nil || !slices.Equal(got.ClusterCIDR, s.settings.ClusterCIDR) || !slices.Equal(got.ServiceCIDR, s.settings.ServiceCIDR) {
		t.Fatalf("got %v, %v, %v", got.ClusterCIDR, got.ServiceCIDR, err)
	}
	if got.Enough(late) {
		t.Error("an address of IPv6 is enough for a cluster of IPv4")
	}
	if _, err := got.Resolve(late); err == nil || !strings.Contains(err.Error(), "node-ip") {
		t.Errorf("without an address of IPv4: got %v, want node-ip named", err)
	}
	// What is set counts.
	open.ServiceCIDR = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
	if got, err := s.recallNetworks(open); err != nil || len(got.ClusterCIDR) != 0 || got.ServiceCIDR[0] != open.ServiceCIDR[0] {
		t.Errorf("beside a network that is set: got %v, %v, %v", got.ClusterCIDR, got.ServiceCIDR, err)
	}
}

func TestNetworksThatCannotBeRead(t *testing.T) {
	for name, content := range map[string]string{"cut off": `{"cluster-cidr":["10.42.0.0/16"`, "no network": `{"cluster-cidr":["10.42.0.0"]}`, "empty": ""} {
		s := newServer(t, nil)
		if err := s.makeFolders(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.networksPath(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.recallNetworks(s.cfg.Settings); err == nil || !strings.Contains(err.Error(), s.networksPath()) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: got %v, want the file named and what to do", name, err)
		}
	}
}

func FuzzNetworks(f *testing.F) {
	f.Add([]byte(`{"cluster-cidr":["10.42.0.0/16","fd00:42::/56"],"service-cidr":["10.43.0.0/16","fd00:43::/112"]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		c := config.Default()
		c.DataDir = dir
		s, err := New(Config{Settings: c, Log: slog.New(slog.DiscardHandler), Console: io.Discard})
		if err != nil {
			t.Skip(err)
		}
		if err := s.makeFolders(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.networksPath(), content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.recallNetworks(c)
		if err != nil {
			return
		}
		// Whatever was read is judged like settings: it does not get past Resolve unless it holds.
		if got, err := got.Resolve(config.Host{Name: "n", Addresses: []netip.Addr{netip.MustParseAddr("10.0.2.15")}}); err == nil && len(got.ServiceCIDR) == 0 {
			t.Errorf("%q: no network of services", content)
		}
	})
}
