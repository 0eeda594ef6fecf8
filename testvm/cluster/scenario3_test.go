package cluster

import (
	"testing"
	"time"

	"keelson/testvm/lan"
)

// apart is how long a server is cut off: longer than etcd's election and than the kubelets' leases.
const apart = 45 * time.Second

// Each server is cut off in turn, one of them being etcd's leader. It serves no writes meanwhile, the others do, and
// it comes back without help.
func TestScenario3PartitionOfTheLeader(t *testing.T) {
	c := newHA(t)
	clients := c.clients()
	for i, s := range c.servers() {
		others := append(append(clients[:0:0], clients[:i]...), clients[i+1:]...)
		h := watchWrites(t, others...)
		if err := h.success(within(t, changeLimit), time.Now()); err != nil {
			t.Fatal(err)
		}
		h.begin()
		began := time.Now()
		if err := c.lan.Set(s.name, lan.Fault{Cut: true}); err != nil {
			t.Fatal(err)
		}
		alone := 0
		for time.Since(began) < apart {
			n, sent, err := raise(within(t, changeLimit), clients[i])
			if err == nil {
				t.Errorf("%s wrote %d %s after it was cut off", s.name, n, time.Since(began))
			}
			h.other(sent)
			alone++
		}
		if pause := h.longest(); pause > recovery {
			t.Errorf("without %s: writes paused %s, want at most %s", s.name, pause, recovery)
		}
		t.Logf("%s cut off: its %d writes failed, the others' paused %.1f s", s.name, alone, h.longest().Seconds())
		if err := c.lan.Set(s.name, lan.Fault{}); err != nil {
			t.Fatal(err)
		}
		healed := time.Now()
		c.whole(others[0])
		for tick := time.NewTicker(again); ; <-tick.C {
			_, sent, err := raise(within(t, changeLimit), clients[i])
			h.other(sent)
			if err == nil {
				tick.Stop()
				break
			}
			if time.Since(healed) > changeLimit {
				t.Fatalf("%s does not take writes again: %v", s.name, err)
			}
		}
		t.Logf("%s takes writes again %.1f s after the cable was mended", s.name, time.Since(healed).Seconds())
		if err := h.check(within(t, changeLimit), others[0]); err != nil {
			t.Error(err)
		}
	}
}
