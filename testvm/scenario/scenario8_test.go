package scenario

import (
	"testing"
	"time"
)

// A second server joins: its etcd votes, its node is Ready, and both kube-apiservers are endpoints of the cluster.
func TestScenario8SecondServer(t *testing.T) {
	needVM(t)
	ms := newMachines(t, "server", "server")
	start(t, ms.all[0])
	client := becomesReady(t, ms.all[0])
	start(t, ms.all[1])
	for _, milestone := range []string{"cluster found", "etcd ready", "apiserver ready", "node Ready"} {
		line, err := ms.all[1].Milestone(within(t, readyLimit), milestone)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("second server: %s", line.Text)
	}
	ctx := within(t, 5*time.Minute)
	if err := client.NodesReady(ctx, "keelson-1", "keelson-2"); err != nil {
		t.Error(err)
	}
	if err := client.APIServersAre(ctx, lanAddress(1)+":6443", lanAddress(2)+":6443"); err != nil {
		t.Error(err)
	}
}
