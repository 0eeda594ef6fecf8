package cluster

import (
	"encoding/json"
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
	c.tellTheirStatus(client)
}

// tellTheirStatus asks `node status` on every machine.
func (c *cluster) tellTheirStatus(client *kube.Client) {
	c.t.Helper()
	leaders := 0
	for name, m := range c.all {
		text, err := client.RunOnNode(within(c.t, changeLimit), workloadImage, m.name, "/usr/bin/node", "status", "-o", "json")
		if err != nil {
			c.t.Error(err)
			continue
		}
		var s struct {
			State, Role, Node string
			Trust             struct{ Authority, How string }
			Etcd              *struct {
				Role, Error string
				Leader      bool
				Members     []struct{ Role string }
			}
			Balancers   []struct{ Servers []struct{ State string } }
			NextRenewal *struct{ File string }
			Waiting     []struct{ For string }
			Problems    []string
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			c.t.Errorf("%s: %v: %s", name, err, text)
			continue
		}
		if s.State != "up" || s.Node != m.name || len(s.Trust.Authority) != 64 || s.Trust.How == "" || s.NextRenewal == nil || len(s.Waiting)+len(s.Problems) != 0 {
			c.t.Errorf("%s tells %s", name, text)
		}
		if len(s.Balancers) == 0 || len(s.Balancers[0].Servers) == 0 || s.Balancers[0].Servers[0].State != "ACTIVE" {
			c.t.Errorf("%s: no server has its connections: %s", name, text)
		}
		switch {
		case s.Role == "agent" && s.Etcd == nil:
		case s.Role == "server" && s.Etcd != nil && s.Etcd.Role == "voter" && len(s.Etcd.Members) == 3 && s.Etcd.Error == "":
			if s.Etcd.Leader {
				leaders++
			}
		default:
			c.t.Errorf("%s: its part is not told: %s", name, text)
		}
	}
	if leaders != 1 {
		c.t.Errorf("%d servers call themselves etcd's leader, want one", leaders)
	}
}
