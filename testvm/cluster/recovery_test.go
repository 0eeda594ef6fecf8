package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/testvm/cidata"
)

// A server has lost its token and so has everybody: it says what helps, gets another by its settings, and an agent
// joins with that. Then the disk loses it again while everything runs, and an operator gives the cluster a third: what the
// recovery has left in etcd is enough for the second to hold for a while, as after any rotation.
func TestTokenRecovered(t *testing.T) {
	c := newCluster(t)
	s := c.add("server-1", "server", 1, nil)
	c.start(s)
	client := c.client(s)
	c.whole(client)
	note(t, client, "kept")

	cut(t, s)
	c.loseToken(s)
	c.reseed(s, func(doc *cidata.CloudConfig) { doc.RKE2["token"] = "a wrong one" })
	c.start(s)
	if _, err := s.Expect(within(t, readyLimit), "encrypted with different token.*token-recover"); err != nil {
		t.Fatal(err)
	}

	cut(t, s)
	c.reseed(s, func(doc *cidata.CloudConfig) { doc.RKE2["token"], doc.RKE2["token-recover"] = nextToken, true })
	c.start(s)
	if _, err := s.Expect(within(t, readyLimit), "the cluster's token was lost, and is the one of the settings now"); err != nil {
		t.Fatal(err)
	}
	client = c.client(s)
	c.whole(client)
	if !noted(t, client, "kept") {
		t.Error("an object of before is gone")
	}
	joinsWith := func(token string) func(*cidata.CloudConfig) {
		return func(doc *cidata.CloudConfig) {
			joins(1)(doc)
			doc.RKE2["token"] = token
		}
	}
	c.start(c.add("agent-1", "agent", 2, joinsWith(nextToken)))
	c.whole(client)

	c.loseToken(s)
	output, err := client.RunOnNode(within(t, changeLimit), workloadImage, s.name, "/usr/bin/node", "token", "recover")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"It is rotated", "agent-1, server-1"} {
		if !strings.Contains(output, want) {
			t.Errorf("the verb does not say %q", want)
		}
	}
	full := ""
	for _, word := range strings.Fields(output) {
		if strings.HasPrefix(word, "K10") {
			full = word
		}
	}
	if full == "" {
		t.Fatal("the verb prints no token")
	}
	c.start(c.add("agent-2", "agent", 3, joinsWith(full)))
	c.whole(client)
	c.logsHoldNot(s, full)
	c.refuses(t, 4, "agent", "server does not take the token.*; copy the token from", map[string]any{"token": clusterToken})
}

// One server's disk loses the token while another server is away. The one that runs takes the recovered token over
// without a restart, the one that comes back with it in its settings when it starts, and agents join by each.
func TestTokenRecoveredEverywhere(t *testing.T) {
	c := newHA(t)
	first, second, away := c.all["server-1"], c.all["server-2"], c.all["server-3"]
	client := c.client(first)
	cut(t, away)
	c.loseToken(first)
	output, err := client.RunOnNode(within(t, changeLimit), workloadImage, first.name, "/usr/bin/node", "token", "recover", "--new-token", nextToken)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(output, "opens nothing any more") {
		t.Error("the verb does not say that the token was recovered")
	}
	for _, m := range c.servers() { // this test's own way in, and what the next start reads
		c.reseed(m, func(doc *cidata.CloudConfig) {
			if m != first {
				joins(1)(doc)
			}
			doc.RKE2["token"] = nextToken
		})
	}
	c.votersAre(within(t, changeLimit), second, c.servers()...) // asked with the new token
	c.start(away)
	c.whole(client)
	for i := range 2 {
		c.start(c.add(fmt.Sprintf("agent-%d", 2+i), "agent", 5+i, func(doc *cidata.CloudConfig) {
			joins(2 + i)(doc)
			doc.RKE2["token"] = nextToken
		}))
	}
	c.whole(client)
	c.refuses(t, 7, "agent", "server does not take the token.*; copy the token from", map[string]any{"token": clusterToken})
	cut(t, second)
	c.start(second)
	c.whole(client)
}

// logsHoldNot looks for the password of a token in what a machine has logged.
func (c *cluster) logsHoldNot(m *member, full string) {
	c.t.Helper()
	_, password, _ := strings.Cut(full, "::server:")
	logs, err := filepath.Glob(filepath.Join(c.state(m), "log/keelson/*.log"))
	if err != nil || len(logs) == 0 {
		c.t.Fatalf("no logs: %v", err)
	}
	for _, log := range append(logs, filepath.Join(filepath.Dir(c.state(m)), "console.log")) {
		text, err := os.ReadFile(log)
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(string(text), password) {
			c.t.Errorf("%s holds the token", log)
		}
	}
}

// state is where the host has a machine's /var.
func (c *cluster) state(m *member) string {
	return filepath.Join(the.dir, slug(c.t), m.name, "state")
}

// loseToken removes every trace of the token from a server's disk.
func (c *cluster) loseToken(m *member) {
	c.t.Helper()
	for _, name := range []string{"cred/passwd", "cred/passwd-previous.json", "token", "node-token", "agent-token"} {
		path := filepath.Join(c.state(m), "lib/rancher/rke2/server", name)
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			c.t.Fatal(fmt.Errorf("lose the token: %w", err))
		}
	}
	if _, err := os.Stat(filepath.Join(c.state(m), "lib/rancher/rke2/server/tls/server-ca.key")); err != nil {
		c.t.Fatal(err)
	}
}
