package scenario

import (
	"context"
	"flag"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
	"keelson/testvm/lan"
)

var flagSlow = flag.Bool("slow", false, "with -vm: run what takes half an hour, too")

// slowLimit is for anything that three emulated servers do together on two cores.
const slowLimit = 20 * time.Minute

// scaled are settings of servers that are some ten times slower than real ones: etcd and the leader elections wait as
// much longer, and what the scenario does not look at does not run.
func scaled() map[string]any {
	election := []string{"leader-elect-lease-duration=150s", "leader-elect-renew-deadline=100s", "leader-elect-retry-period=20s"}
	return map[string]any{
		"etcd-arg":                    []string{"heartbeat-interval=2000", "election-timeout=20000"},
		"kube-controller-manager-arg": election,
		"kube-scheduler-arg":          election,
		"disable":                     []string{"rke2-coredns"},
	}
}

// Three servers, each a virtual machine, on a bad network and then with one of them cut off: the others take writes, it
// takes none, and it comes back without help.
func TestScenario10ThreeServers(t *testing.T) {
	needVM(t)
	if !*flagSlow {
		t.Skip("SKIPPED: three servers in QEMU take half an hour; ask for it with -slow (make vm-test SLOW=1)")
	}
	// Three machines with two emulated processors each on a host with two: the kernel of one ended in an int3 that another
	// of its processors was writing (a static branch, under QEMU's multi-threaded emulation). One processor has no others.
	ms := newMachinesWith(t, 1, scaled(), "server", "server", "server")
	var clients []*kube.Client
	for i, m := range ms.all {
		start(t, m)
		client, err := m.Client(within(t, slowLimit))
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
		t.Logf("kube-apiserver %d serves %.0f s after the machine's power-on", i+1, time.Since(m.Started()).Seconds())
	}
	whole := func() {
		t.Helper()
		ctx := within(t, slowLimit)
		if err := clients[0].NodesReady(ctx, "keelson-1", "keelson-2", "keelson-3"); err != nil {
			t.Fatal(err)
		}
		if err := clients[0].APIServersAre(ctx, lanAddress(1)+":6443", lanAddress(2)+":6443", lanAddress(3)+":6443"); err != nil {
			t.Fatal(err)
		}
	}
	whole()

	for _, port := range []string{"1", "2", "3"} {
		ms.fault(port, lan.Fault{Loss: 0.02, Delay: 20 * time.Millisecond})
	}
	for i, client := range clients {
		t.Logf("with loss and delay, server %d took a write after %.1f s", i+1, written(t, client).Seconds())
	}
	for _, port := range []string{"1", "2", "3"} {
		ms.fault(port, lan.Fault{})
	}

	ms.fault("3", lan.Fault{Cut: true})
	for i, client := range clients[:2] {
		t.Logf("without server 3, server %d took a write after %.1f s", i+1, written(t, client).Seconds())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := write(ctx, clients[2]); err == nil {
		t.Error("server 3, which is cut off, took a write")
	}
	ms.fault("3", lan.Fault{})
	t.Logf("server 3 took a write %.1f s after the cable was mended", written(t, clients[2]).Seconds())
	whole()
}

// fault sets what happens on a machine's cable.
func (ms *machines) fault(port string, f lan.Fault) {
	ms.t.Helper()
	if err := ms.net.Set(port, f); err != nil {
		ms.t.Fatal(err)
	}
}

func write(ctx context.Context, client *kube.Client) error {
	_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "write-"}}, metav1.CreateOptions{})
	return err
}

// written writes until it is told that a write has succeeded, and returns how long that took.
func written(t *testing.T, client *kube.Client) time.Duration {
	t.Helper()
	ctx, began := within(t, slowLimit), time.Now()
	tick := time.NewTicker(time.Second) // servers that have lost their leader answer with errors; there is no event for the end of that
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, time.Minute)
		err := write(once, client)
		cancel()
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no write succeeds: %v", err)
		}
	}
}
