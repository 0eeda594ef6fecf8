package cluster

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/testvm/cidata"
	"keelson/testvm/kube"
)

// A server is replaced: its Node is deleted, and a machine of the same name with an empty disk takes its place. So is
// the server that all others were told to join, and an agent. A server that was removed and comes back with its old
// disk joins anew by itself. A machine that has a name which is still taken is refused until that Node is deleted.
func TestScenario4Replacements(t *testing.T) {
	c := newHA(t)
	client := c.client(c.all["server-1"])
	service := c.ensureWeb(client)

	old := c.all["server-3"]
	cut(t, old)
	c.forget(client, old.name)
	c.votersAre(within(t, changeLimit), c.all["server-1"], c.all["server-1"], c.all["server-2"])
	began := time.Now()
	c.start(old)
	c.whole(client)
	t.Logf("a removed server is back with its old disk after %.1f s", time.Since(began).Seconds())

	cut(t, old)
	c.forget(client, old.name)
	began = time.Now()
	c.start(c.anew(old, joins(1)))
	c.whole(client)
	t.Logf("a server is replaced after %.1f s", time.Since(began).Seconds())

	// The first server's user-data names nobody to join; its replacement's must, or it would be a cluster of its own.
	client = c.client(c.all["server-2"])
	first := c.all["server-1"]
	cut(t, first)
	c.forget(client, first.name)
	began = time.Now()
	c.start(c.anew(first, joins(2)))
	c.whole(client)
	t.Logf("the first server is replaced after %.1f s", time.Since(began).Seconds())

	agent := c.all["agent-1"]
	cut(t, agent)
	agent = c.anew(agent, joins(2))
	c.start(agent)
	if _, err := agent.Expect(within(t, readyLimit), "agent-1.*delete that node"); err != nil {
		t.Error(err)
	}
	began = time.Now()
	c.forget(client, agent.name)
	c.whole(client)
	t.Logf("an agent is replaced %.1f s after its Node was deleted", time.Since(began).Seconds())
	c.ensureWeb(client)
	c.answersFromEach(client, service)
}

// forget deletes a machine's Node.
func (c *cluster) forget(client *kube.Client, name string) {
	c.t.Helper()
	if err := client.CoreV1().Nodes().Delete(within(c.t, changeLimit), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// anew makes a machine of the same name, role and address with an empty disk.
func (c *cluster) anew(old *member, change func(*cidata.CloudConfig)) *member {
	c.t.Helper()
	if err := old.Remove(); err != nil {
		c.t.Fatal(err)
	}
	return c.add(old.name, old.role, old.n, change)
}
