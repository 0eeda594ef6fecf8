package scenario

import (
	"testing"
	"time"

	"keelson/testvm/machine"
)

// An agent joins: its node is Ready, and kube-apiserver reads the logs of a pod of its through its tunnel.
func TestScenario8Agent(t *testing.T) {
	needVM(t)
	ms := newMachines(t, "server", "agent")
	start(t, ms.all[0])
	client := becomesReady(t, ms.all[0])
	start(t, ms.all[1])
	passes(t, ms.all[1], "cluster found", "cluster joined", "node Ready")
	ctx := within(t, 5*time.Minute)
	if err := client.NodesReady(ctx, "keelson-1", "keelson-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PodsReady(ctx, "kube-system", "kube-proxy-keelson-2"); err != nil {
		t.Fatal(err)
	}
	log, err := client.Logs(ctx, "kube-system", "kube-proxy-keelson-2")
	if err != nil || log == "" {
		t.Errorf("log of the agent's kube-proxy: %d bytes, %v", len(log), err)
	}
}

// A second server joins: its etcd votes, its node is Ready, and both kube-apiservers are endpoints of the cluster.
func TestScenario9SecondServer(t *testing.T) {
	needVM(t)
	ms := newMachines(t, "server", "server")
	start(t, ms.all[0])
	client := becomesReady(t, ms.all[0])
	start(t, ms.all[1])
	passes(t, ms.all[1], "cluster found", "etcd ready", "apiserver ready", "node Ready")
	ctx := within(t, 5*time.Minute)
	if err := client.NodesReady(ctx, "keelson-1", "keelson-2"); err != nil {
		t.Error(err)
	}
	if err := client.APIServersAre(ctx, lanAddress(1)+":6443", lanAddress(2)+":6443"); err != nil {
		t.Error(err)
	}
}

// passes waits for milestones of a machine.
func passes(t *testing.T, m *machine.Machine, milestones ...string) {
	t.Helper()
	for _, name := range milestones {
		line, err := m.Milestone(within(t, readyLimit), name)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(line.Text)
	}
}
