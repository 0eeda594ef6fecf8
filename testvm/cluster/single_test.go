package cluster

import (
	"testing"
	"time"
)

// One server becomes Ready with all of its system pods, is shut down, and comes back.
func TestSingleServer(t *testing.T) {
	c := newCluster(t)
	s := c.add("one", "server", 1, nil)
	for boot := range 2 {
		c.start(s)
		client := c.client(s)
		ctx := within(t, readyLimit)
		if err := client.NodesReady(ctx, "one"); err != nil {
			t.Fatal(err)
		}
		t.Logf("boot %d: Ready %.1f s after power-on", boot+1, time.Since(s.Started()).Seconds())
		if _, err := client.PodsReady(ctx, "kube-system", "etcd-one", "kube-apiserver-one", "kube-proxy-one", "coredns-", "kube-flannel-ds-"); err != nil {
			t.Fatal(err)
		}
		t.Logf("boot %d: system pods Ready %.1f s after power-on", boot+1, time.Since(s.Started()).Seconds())
		if err := s.Shutdown(within(t, stopLimit)); err != nil {
			t.Fatal(err)
		}
	}
}
