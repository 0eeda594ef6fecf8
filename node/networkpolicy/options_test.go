package networkpolicy

import (
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseArguments(t *testing.T) {
	net4, net6 := netip.MustParsePrefix("10.43.0.0/16"), netip.MustParsePrefix("fd00:43::/112")
	for _, c := range []struct {
		name string
		args []string
		want Options
		err  string
	}{
		{"least", []string{"--service-cluster-ip-range=10.43.0.0/16", "--hostname-override=cp-1"},
			Options{Services: []netip.Prefix{net4}, NodePorts: "30000-32767", SyncPeriod: 5 * time.Minute, Node: "cp-1"}, ""},
		{"all", []string{"--service-cluster-ip-range=fd00:43::/112,10.43.0.0/16", "--hostname-override=cp-1", "--service-node-port-range=20000-20100",
			"--iptables-sync-period=1m", "--kubeconfig=/k"},
			Options{Services: []netip.Prefix{net6, net4}, NodePorts: "20000-20100", SyncPeriod: time.Minute, Node: "cp-1", Kubeconfig: "/k"}, ""},
		{"no services", []string{"--hostname-override=cp-1"}, Options{}, `--service-cluster-ip-range: "" is not a network`},
		{"not a network", []string{"--service-cluster-ip-range=10.43.0.0/16,x", "--hostname-override=a"}, Options{}, `"x" is not a network`},
		{"one family twice", []string{"--service-cluster-ip-range=10.43.0.0/16,10.44.0.0/16", "--hostname-override=a"}, Options{}, "one network of each family at most"},
		{"three", []string{"--service-cluster-ip-range=10.43.0.0/16,fd00::/112,10.44.0.0/16", "--hostname-override=a"}, Options{}, "one network of each family at most"},
		{"no node", []string{"--service-cluster-ip-range=10.43.0.0/16"}, Options{}, "the Node's name is missing"},
		{"too often", []string{"--service-cluster-ip-range=10.43.0.0/16", "--hostname-override=a", "--iptables-sync-period=1ms"}, Options{}, "shorter than a second"},
		{"an argument", []string{"--service-cluster-ip-range=10.43.0.0/16", "run"}, Options{}, `"run" is not a flag`},
		{"unknown", []string{"--run-router"}, Options{}, "run-router"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseArguments(c.args, io.Discard)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestConfigFollowsTheFamilies(t *testing.T) {
	for _, c := range []struct {
		services   string
		four, six  bool
		wantRanges []string
	}{
		{"10.43.0.0/16", true, false, []string{"10.43.0.0/16"}},
		{"fd00:43::/112", false, true, []string{"fd00:43::/112"}},
		{"fd00:43::/112,10.43.0.0/16", true, true, []string{"fd00:43::/112", "10.43.0.0/16"}},
	} {
		o, err := ParseArguments([]string{"--service-cluster-ip-range=" + c.services, "--hostname-override=cp-1"}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		got := o.config()
		if got.EnableIPv4 != c.four || got.EnableIPv6 != c.six || !slices.Equal(got.ClusterIPCIDRs, c.wantRanges) {
			t.Errorf("%s: got %v, %v, %q", c.services, got.EnableIPv4, got.EnableIPv6, got.ClusterIPCIDRs)
		}
		if got.HostnameOverride != "cp-1" || got.NodePortRange != "30000-32767" || got.IPTablesSyncPeriod != 5*time.Minute {
			t.Errorf("%s: got %q, %q, %v", c.services, got.HostnameOverride, got.NodePortRange, got.IPTablesSyncPeriod)
		}
	}
}
