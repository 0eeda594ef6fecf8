package cluster

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/kube"
)

// recovery is how long the loss of a server may keep the API from taking writes.
const recovery = 15 * time.Second

// renewal is how often a kubelet renews its lease (nodeLeaseDurationSeconds of 40 s, a quarter of it).
const renewal = 10 * time.Second

// Each server loses its power in turn, then all of them at once.
func TestScenario2LossOfEachServerAndOfAll(t *testing.T) {
	c := newHA(t)
	clients := c.clients()
	h := watchWrites(t, clients...)
	for i, s := range c.servers() {
		left := clients[(i+1)%len(clients)]
		agent := watchLease(t, left, "agent-1")
		h.begin()
		cut(t, s)
		if err := h.success(within(t, recovery), time.Now()); err != nil {
			t.Errorf("without %s: %v", s.name, err)
		}
		// Elections and timeouts of connections may follow; what counts is the longest pause of all.
		if err := left.NodeIs(within(t, changeLimit), s.name, corev1.ConditionUnknown); err != nil {
			t.Fatal(err)
		}
		pause, lease := h.longest(), agent.longest()
		t.Logf("without %s: writes paused %.1f s, the agent's lease %.1f s", s.name, pause.Seconds(), lease.Seconds())
		if pause > recovery {
			t.Errorf("without %s: writes paused %s, want at most %s", s.name, pause, recovery)
		}
		if most := recovery + renewal; lease > most {
			t.Errorf("without %s: the agent's lease was not renewed for %s, want at most %s", s.name, lease, most)
		}
		began := time.Now()
		c.start(s)
		clients[i] = c.client(s)
		c.whole(left)
		t.Logf("%s back, the cluster whole %.1f s after its power-on", s.name, time.Since(began).Seconds())
	}
	if err := h.check(within(t, changeLimit), clients[0]); err != nil {
		t.Error(err)
	}

	clients = c.clients()
	h = watchWrites(t, clients...)
	if err := h.success(within(t, changeLimit), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.servers() {
		cut(t, s)
	}
	began := time.Now()
	c.start(c.servers()...)
	client := c.client(c.servers()[0])
	c.whole(client)
	t.Logf("all servers back, the cluster whole %.1f s after their power-on", time.Since(began).Seconds())
	if err := h.check(within(t, changeLimit), client); err != nil {
		t.Error(err)
	}
	c.answersFromEach(client, c.ensureWeb(client))
}

func cut(t *testing.T, m *member) {
	t.Helper()
	if err := m.PowerCut(within(t, stopLimit)); err != nil {
		t.Fatal(err)
	}
}

// lease follows a node's lease.
type lease struct {
	renewed chan time.Duration // asks for the longest pause
}

// watchLease looks at a node's lease as long as the test runs.
func watchLease(t *testing.T, client *kube.Client, node string) *lease {
	t.Helper()
	l := &lease{renewed: make(chan time.Duration)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		last, gap := time.Now(), time.Duration(0)
		for {
			select {
			case l.renewed <- max(gap, time.Since(last)):
			case <-ctx.Done():
				return
			case <-tick.C:
				look, cancel := context.WithTimeout(ctx, oneTry)
				object, err := client.CoordinationV1().Leases("kube-node-lease").Get(look, node, metav1.GetOptions{})
				cancel()
				if err == nil && object.Spec.RenewTime != nil && object.Spec.RenewTime.After(last) {
					gap, last = max(gap, object.Spec.RenewTime.Sub(last)), object.Spec.RenewTime.Time
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// longest is the longest time without a renewal.
func (l *lease) longest() time.Duration { return <-l.renewed }
