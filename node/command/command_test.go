package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerbs(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(broken, []byte("node-name: a\nno-such-key: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(empty, []byte("node-name: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(nobody, []byte("data-dir: "+t.TempDir()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(shared, []byte("node-name: a\n# of the servers\ntls-san: x.example\nembedded-registry: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string // parts
	}{
		{"nothing", nil, 2, "", "usage: node <verb>"},
		{"help", []string{"help"}, 0, "server [--config FILE]", ""},
		{"version", []string{"version"}, 0, "node v1\n", ""},
		{"unknown verb", []string{"dance"}, 2, "", `unknown verb "dance"`},
		{"agent, unknown flag", []string{"agent", "--colour"}, 1, "", "-colour"},
		{"agent, no settings", []string{"agent", "--config", empty}, 1, "keelson: node: agent: settings: server: is not set", "token: is not set"},
		{"agent, settings of servers", []string{"agent", "--config", shared}, 1, "keelson: node: " + shared + ": line 3: tls-san: only servers use it; this machine is an agent and passes it over\nkeelson: node: " + shared + ": line 4: ", `level=WARN msg=settings file=` + shared + ` line=3 key=tls-san`},
		{"status of nobody", []string{"status", "--socket", filepath.Join(t.TempDir(), "s"), "--config", nobody}, 0, "node          does not run, version v1; what follows is what its files say\nrole          none yet", ""},
		{"status of nobody, JSON", []string{"status", "-o", "json", "--socket", filepath.Join(t.TempDir(), "s"), "--config", nobody}, 0, `"state": "stopped"`, ""},
		{"status with broken settings", []string{"status", "--socket", filepath.Join(t.TempDir(), "s"), "--config", broken}, 0, broken + ": line 2: no-such-key", ""},
		{"status in another form", []string{"status", "-o", "xml"}, 1, "", `status: output "xml" is neither text nor json`},
		{"status of something", []string{"status", "etcd"}, 1, "", `"etcd" is one too many`},
		{"unknown flag", []string{"server", "--colour"}, 1, "", "-colour"},
		{"broken settings", []string{"server", "--config", broken}, 1, "", broken},
		{"broken settings name the key", []string{"server", "--config", broken}, 1, "keelson: node: server: " + broken, "no-such-key"},
		{"certificate without a verb", []string{"certificate"}, 1, "", "usage: node certificate"},
		{"certificate, unknown verb", []string{"certificate", "melt"}, 1, "", `unknown verb "melt"`},
		{"certificates of no cluster", []string{"certificate", "check", "--data-dir", t.TempDir()}, 1, "", "part of a cluster?"},
		{"authorities without a token", []string{"certificate", "rotate-ca", "--data-dir", t.TempDir()}, 1, "", "read the server token: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := Main(c.args, "v1", &stdout, &stderr); got != c.status {
				t.Errorf("status: got %d, want %d (%s)", got, c.status, stderr.String())
			}
			if !strings.Contains(stdout.String(), c.stdout) {
				t.Errorf("stdout: got %q, want %q in it", stdout.String(), c.stdout)
			}
			if !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stderr: got %q, want %q in it", stderr.String(), c.stderr)
			}
		})
	}
}

func TestToolDefaultsLeadToThisMachine(t *testing.T) {
	for _, d := range toolDefaults() {
		if d.key == "" || d.value == "" {
			t.Errorf("%+v: both parts are needed", d)
		}
	}
	if err := tool("no-such-tool", nil); err == nil || !strings.Contains(err.Error(), "/usr/bin/no-such-tool") {
		t.Errorf("got %v, want an error that names the program", err)
	}
}
