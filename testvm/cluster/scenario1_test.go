package cluster

import (
	"strings"
	"testing"

	"keelson/testvm/kube"
)

// Three servers and an agent, from one image and four user-data files, started together: all Ready, three voters, a
// workload on each node answers by Service from each, logs and exec reach every node by way of every server.
func TestScenario1ThreeServersAndAnAgent(t *testing.T) {
	c := newHA(t)
	client := c.client(c.all["server-1"])
	service := c.ensureWeb(client)
	c.answersFromEach(client, service)
	pods := c.pods(client)
	for _, s := range c.servers() {
		by := c.client(s)
		ctx := within(t, changeLimit)
		for node, p := range pods {
			logs, err := by.Logs(ctx, p.Namespace, p.Name)
			if err != nil || !strings.Contains(logs, "serving as "+p.Name) {
				t.Errorf("logs from %s by way of %s: got %q, %v, want its first words", node, s.name, logs, err)
			}
			out, err := by.Exec(ctx, kube.WebSocket, p.Namespace, p.Name, "/workload", "echo", "from", node)
			if want := "from " + node + "\n"; err != nil || out != want {
				t.Errorf("exec on %s by way of %s: got %q, %v, want %q", node, s.name, out, err, want)
			}
		}
	}
	if _, err := client.PodsReady(within(t, readyLimit), "kube-system"); err != nil {
		t.Error(err)
	}
}
