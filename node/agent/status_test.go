package agent

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/node/config"
	"keelson/node/sequence"
	"keelson/node/status"
)

// TestStatus is an agent that trusts the first authority it sees: its status tells so, and which server its connections
// go to.
func TestStatus(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, func(s *config.Config) { s.Token = agentPassword })
	if err := steps(t, within(t), a, joining()...); err != nil {
		t.Fatal(err)
	}
	a.live.Done()
	r := a.status(t.Context())
	if r.State != status.Up || r.Role != status.Agent || r.Node != "w-1" || r.Join != c.url(0) || len(r.Problems) != 0 || r.Etcd != nil {
		t.Errorf("got %+v", r)
	}
	if r.Trust.How != status.ByFirstUse || r.Trust.Authority != a.firstUsed || a.firstUsed == "" {
		t.Errorf("trust: got %+v, want %s", r.Trust, a.firstUsed)
	}
	if len(r.Balancers) != 2 || r.Balancers[0].Address != a.supervisors.Address() || r.Balancers[0].Servers[0].Address != a.join {
		t.Errorf("balancers: %+v", r.Balancers)
	}
	if r.NextRenewal == nil || !slices.ContainsFunc([]string{"serving-kubelet.crt", "client-kubelet.crt", "client-kube-proxy.crt", "client-rke2-controller.crt"}, func(name string) bool {
		return r.NextRenewal.File == a.agent(name)
	}) {
		t.Errorf("next renewal: %+v", r.NextRenewal)
	}
	text, err := status.Render(r, "text")
	if err != nil || !strings.Contains(string(text), "trusted on first use") || strings.Contains(string(text), agentPassword) {
		t.Errorf("got %s, %v", text, err)
	}
}

// TestStatusOfWhoWaits: an agent that is not taken in tells why, in the words of the console.
func TestStatusOfWhoWaits(t *testing.T) {
	c, m := newCluster(t, 1), newMachine(t)
	a, _ := m.start(t, c, func(s *config.Config) { s.Token = "wrong" })
	if err := steps(t, within(t), a, "folders", "system images", "node password", "load balancers"); err != nil {
		t.Fatal(err)
	}
	a.places.status = filepath.Join(t.TempDir(), "node", "s")
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	all := a.steps()
	all = slices.DeleteFunc(all, func(s sequence.Step) bool { return s.Name != "trust" })
	all[0].After = nil
	go func() { ended <- a.run(ctx, all, nil) }()
	await(t, ctx, "the console to say why", func() bool { return strings.Contains(m.console.String(), "waiting: the cluster: ") })
	r, err := status.Ask(t.Context(), a.places.status)
	if err != nil || r.State != status.Starting || len(r.Waiting) != 1 || r.Waiting[0].For != "trust" || !strings.Contains(r.Waiting[0].Reason, "copy the token from") {
		t.Errorf("got %+v, %v", r, err)
	}
	cancel()
	<-ended
}
