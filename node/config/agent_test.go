package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCheckAgent(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		keys   string
	}{
		{"all there", func(*Config) {}, ""},
		{"no server", func(c *Config) { c.Server = "" }, "server"},
		{"no token", func(c *Config) { c.Token = "" }, "token"},
		{"nothing", func(c *Config) { c.Server, c.Token = "", "" }, "server token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := Default()
			settings.Server, settings.Token = "https://10.0.0.1:9345", "secret"
			c.change(&settings)
			var problems Problems
			if err := settings.CheckAgent(); err != nil && !errors.As(err, &problems) {
				t.Fatalf("got %v, want Problems", err)
			}
			var keys []string
			for _, p := range problems {
				keys = append(keys, p.Key)
			}
			if got := strings.Join(keys, " "); got != c.keys {
				t.Errorf("got problems of %q, want of %q", got, c.keys)
			}
		})
	}
}

// TestLoadAgent: files that servers and agents share. What only servers use is told once, with its place, and cannot keep
// an agent from starting; its own keys are held to the same rules as on a server.
func TestLoadAgent(t *testing.T) {
	const pass = ": only servers use it; this machine is an agent and passes it over"
	for _, c := range []struct {
		name     string
		files    map[string]string
		warnings []string
		err      string // part; empty: none
	}{
		{"an agent's own", map[string]string{"config.yaml": "server: https://10.0.0.1:9345\ntoken: x\nnode-label: [a=b]\nkubelet-arg: [max-pods=50]\ncni: none\n"}, nil, ""},
		{"a server's", map[string]string{"config.yaml": "token: x\n\ntls-san: [a.example]\nwrite-kubeconfig-mode: 0644\n"}, []string{
			"config.yaml: line 3: tls-san" + pass, "config.yaml: line 4: write-kubeconfig-mode" + pass,
		}, ""},
		{"in two files", map[string]string{"config.yaml": "tls-san: [a]\n", "10-more.yaml": "debug: true\ntls-san+: [b]\n"}, []string{"10-more.yaml: line 2: tls-san" + pass}, ""},
		{"values that a server would refuse", map[string]string{"config.yaml": "tls-san: ['b c']\ncluster-cidr: nonsense\ndatastore-endpoint: postgres://u:hush@db\ncluster-reset: true\nkube-apiserver-image: a:1\n"}, []string{
			"config.yaml: line 1: tls-san" + pass, "config.yaml: line 2: cluster-cidr" + pass, "config.yaml: line 3: datastore-endpoint" + pass,
			"config.yaml: line 4: cluster-reset" + pass, "config.yaml: line 5: kube-apiserver-image" + pass,
		}, ""},
		{"not even a value", map[string]string{"config.yaml": "etcd-arg: {a: b}\n"}, []string{"config.yaml: line 1: etcd-arg" + pass}, ""},
		{"twice in a file", map[string]string{"config.yaml": "disable: a\ndisable: b\n"}, []string{"config.yaml: line 1: disable" + pass}, ""},
		{"a file of servers that is not here", map[string]string{"config.yaml": "agent-token-file: /no/such/file\n"}, []string{"config.yaml: line 1: agent-token-file" + pass}, ""},
		{"mistake in its own", map[string]string{"config.yaml": "tls-san: a\nnode-ip: nonsense\n"}, []string{"config.yaml: line 1: tls-san" + pass}, "line 2: node-ip"},
		{"refused on agents too", map[string]string{"config.yaml": "selinux: true\n"}, nil, "line 1: selinux: is not supported"},
		{"nobody's key", map[string]string{"config.yaml": "tls-sam: a\n"}, nil, "did you mean tls-san?"},
		{"no YAML", map[string]string{"config.yaml": "a: [\n"}, nil, "is not valid YAML"},
		{"nothing", nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			main := write(t, c.files)
			settings, warnings, err := LoadAgent(main)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			var got []string
			for _, w := range warnings {
				got = append(got, strings.ReplaceAll(strings.ReplaceAll(w.Error(), main+".d/", ""), main, "config.yaml"))
			}
			if !slices.Equal(got, c.warnings) {
				t.Errorf("warnings: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.warnings, "\n"))
			}
			// What was passed over has not reached the settings.
			if len(settings.TLSSAN)+len(settings.ClusterCIDR) > 0 || settings.ClusterReset {
				t.Errorf("settings of servers were taken over: %+v", settings)
			}
		})
	}
}

func TestLoadAgentCannotRead(t *testing.T) {
	if _, _, err := LoadAgent(t.TempDir()); err == nil || !strings.Contains(err.Error(), "read settings") {
		t.Errorf("a folder: got %v", err)
	}
}

func TestAgentKeysAreKeys(t *testing.T) {
	all := map[string]bool{}
	for _, k := range Keys() {
		all[k.Name] = true
	}
	seen := map[string]bool{}
	for _, name := range agentKeys() {
		if !all[name] || seen[name] {
			t.Errorf("%s is no key, or is there twice", name)
		}
		seen[name] = true
	}
	for name, want := range map[string]bool{"tls-san": true, "etcd-arg": true, "datastore-endpoint": true, "token": false, "node-name": false, "cni": false, "no-such-key": false, "flannel-iface": false} {
		if ForServers(name) != want {
			t.Errorf("%s: for servers alone: %t, want %t", name, !want, want)
		}
	}
}
