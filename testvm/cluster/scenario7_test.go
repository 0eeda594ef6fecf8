package cluster

import (
	"bytes"
	"testing"
	"time"

	"keelson/testvm/cidata"
)

// nextToken is what the cluster's token becomes.
const nextToken = "0d1c2b3a4958677685949392a1b0cfde"

// Token and authorities change while everything runs: the workload's pods stay as they are, nodes stay Ready, machines
// join with the token before and after, and servers come back.
func TestScenario7Rotation(t *testing.T) {
	c := newHA(t)
	first := c.all["server-1"]
	client := c.client(first)
	c.ensureWeb(client)
	before := c.pods(client)
	h := watchWrites(t, c.clients()...)

	if _, err := client.RunOnNode(within(t, changeLimit), workloadImage, first.name, "/usr/bin/node", "token", "rotate", "--new-token", nextToken); err != nil {
		t.Fatal(err)
	}
	for i, token := range []string{nextToken, clusterToken} { // the one before holds for a while
		a := c.add([]string{"agent-2", "agent-3"}[i], "agent", 5+i, func(doc *cidata.CloudConfig) {
			joins(2)(doc)
			doc.RKE2["token"] = token
		})
		c.start(a)
		if err := client.NodesReady(within(t, readyLimit), c.names()...); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.check(within(t, changeLimit), client); err != nil {
		t.Error(err)
	}

	old, err := first.Supervisor().Fetch(within(t, changeLimit))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.RunOnNode(within(t, changeLimit), workloadImage, first.name, "/usr/bin/node", "certificate", "rotate-ca"); err != nil {
		t.Fatal(err)
	}
	c.authoritiesChanged(first, old.ServerCA)
	for _, s := range c.servers() {
		c.whole(c.client(s))
	}
	client = c.client(first)
	service := c.ensureWeb(client)
	for node, p := range before {
		now := c.pods(client)[node]
		if now.UID != p.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("the workload's pod on %s: got %s with %d restarts, want %s with none", node, now.UID, now.Status.ContainerStatuses[0].RestartCount, p.UID)
		}
	}
	c.answersFromEach(client, service)
	a := c.add("agent-4", "agent", 7, func(doc *cidata.CloudConfig) {
		joins(3)(doc)
		doc.RKE2["token"] = nextToken
	})
	c.start(a)
	c.whole(client)
	for _, s := range c.servers() {
		cut(t, s)
		c.start(s)
		c.whole(c.client(s))
	}
	// The last thing: the settings of all these machines, and this test's own way in, have the token before.
	client = c.client(first)
	if _, err := client.RunOnNode(within(t, changeLimit), workloadImage, first.name, "/usr/bin/node", "token", "rotate", "--finish"); err != nil {
		t.Fatal(err)
	}
	c.refuses(t, 8, "agent", "server does not take the token.*; copy the token from", map[string]any{"token": clusterToken})
	if err := client.NodesReady(within(t, readyLimit), c.names()...); err != nil {
		t.Error(err)
	}
}

// authoritiesChanged waits until a server shows other authorities than those.
func (c *cluster) authoritiesChanged(s *member, old []byte) {
	c.t.Helper()
	ctx := within(c.t, changeLimit)
	tick := time.NewTicker(again) // of what a server shows there is no event outside
	defer tick.Stop()
	for {
		now, err := s.Supervisor().Fetch(ctx)
		if err == nil && !bytes.Equal(now.ServerCA, old) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("%s still shows the authorities of before: %v", s.name, err)
		}
	}
}
