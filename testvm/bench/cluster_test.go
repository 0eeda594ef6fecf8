package bench

import (
	"strings"
	"testing"
)

func TestClusterNumbers(t *testing.T) {
	if got := clusterNumbers(nil); got != nil {
		t.Errorf("no cluster: got %v, want no lines", got)
	}
	got := map[string]float64{}
	for _, n := range clusterNumbers([]Joined{
		{First: 100, Agent: 80, Voter: 150, Second: 200}, {First: 200, Agent: 100, Voter: 250, Second: 400}, {First: 100, Agent: 90, Voter: 120, Second: 210},
	}) {
		if n.Runs != 3 {
			t.Errorf("%s: got %d runs, want 3", n.Name, n.Runs)
		}
		got[n.Name] = n.Median
	}
	for name, want := range map[string]float64{ // ratios are the median of each cluster's own
		"cluster: first server to Node Ready": 100, "cluster: agent to Node Ready": 90, "cluster: agent over first server": 0.8,
		"cluster: second server to etcd voter": 150, "cluster: second server's vote over first server": 1.25, "cluster: second server to Node Ready": 210,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
}

func TestClusterSeed(t *testing.T) {
	for _, c := range []struct {
		n              int
		role           string
		joins          bool
		address, other string
	}{{1, "server", false, "10.77.0.1", "role: server"}, {2, "agent", true, "10.77.0.2", "role: agent"}, {3, "server", true, "10.77.0.3", "role: server"}} {
		seed, err := clusterSeed(c.n, c.role, "secret")
		if err != nil {
			t.Fatal(err)
		}
		doc := string(seed.UserData)
		if got := strings.Contains(doc, "https://10.77.0.1:9345"); got != c.joins {
			t.Errorf("machine %d: joins %v, want %v:\n%s", c.n, got, c.joins, doc)
		}
		for _, want := range []string{"token: secret", c.address, c.other} {
			if !strings.Contains(doc, want) {
				t.Errorf("machine %d: got %s, want %q in it", c.n, doc, want)
			}
		}
		if network := string(seed.NetworkConfig); !strings.Contains(network, "["+c.address+"/24]") {
			t.Errorf("machine %d: network %s, want %s in it", c.n, network, c.address)
		}
	}
}
