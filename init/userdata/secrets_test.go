package userdata

import (
	"strings"
	"testing"
)

// public loads a document as the kernel command line gives it.
func public(text string) []Problem {
	_, problems := Load(Documents{User: []Document{{Source: "cmdline", Data: []byte("#cloud-config\n" + text), Public: true}}})
	return problems
}

func TestSecretsOnTheCommandLine(t *testing.T) {
	const why = "is a secret, and every program can read this source; give it by a cidata volume or fw_cfg"
	const file = "FATAL cmdline: content of /etc/rancher/rke2/config.yaml: line 1: token: " + why
	tests := []struct{ name, text, want string }{
		{"no secret", "hostname: a\nrke2: {tls-san: [a.example]}\n", ""},
		{"name of a file with it", "rke2: {token-file: /etc/a}\n", ""},
		{"token", "rke2:\n  token: s3cr3t\n", "FATAL cmdline: line 3: rke2.token: " + why},
		{"agent token", "rke2:\n  agent-token: s3cr3t\n", "FATAL cmdline: line 3: rke2.agent-token: " + why},
		{"both, each with its line", "rke2:\n  token: s3cr3t\n  agent-token: s3cr3t\n",
			"FATAL cmdline: line 3: rke2.token: " + why + "\nFATAL cmdline: line 4: rke2.agent-token: " + why},
		{"by an alias", "x-a: &a s3cr3t\nrke2:\n  token: *a\n",
			"note cmdline: line 2: x-a: is not known (passed over)\nFATAL cmdline: line 4: rke2.token: " + why},
		{"in the main file", "write_files: [{path: /etc/rancher/rke2/config.yaml, content: 'token: s3cr3t'}]\n", file},
		{"appended to the main file", "write_files: [{path: /etc/rancher/rke2/config.yaml, append: true, content: 'token: s3cr3t'}]\n", file},
		{"packed", "write_files: [{path: /etc/rancher/rke2/config.yaml, encoding: gz+b64, content: " + b64(zip(t, "token: s3cr3t")) + "}]\n", file},
		{"in an addition", "write_files: [{path: /etc/rancher/rke2/config.yaml.d/1.yaml, content: 'agent-token: s3cr3t'}]\n",
			"FATAL cmdline: content of /etc/rancher/rke2/config.yaml.d/1.yaml: line 1: agent-token: " + why},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := render(public(tt.text)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// Keys with a secret that this version refuses anyway are named as secrets too.
func TestSecretKeysAreAllKnown(t *testing.T) {
	for _, key := range []string{"token", "agent-token", "datastore-endpoint", "etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token", "vpn-auth"} {
		for _, form := range []string{key, key + "+"} {
			t.Run(form, func(t *testing.T) {
				got := render(public("rke2: {" + form + ": s3cr3t}\n"))
				if !strings.Contains(got, "rke2."+form+": is a secret") || strings.Contains(got, "s3cr3t") {
					t.Errorf("got %s, want %s named as a secret", got, form)
				}
			})
		}
	}
}

func TestSecretsArePrivateElsewhere(t *testing.T) {
	for _, docs := range []Documents{
		{User: []Document{doc("cidata", "#cloud-config\nrke2: {token: s3cr3t}\n")}},
		{Vendor: []Document{doc("vendor", "#cloud-config\nrke2: {token: s3cr3t}\n")}},
	} {
		if _, problems := Load(docs); len(problems) > 0 {
			t.Errorf("got %v, want a private source taken without a word", problems)
		}
	}
}

// Only the public document is judged, whatever stands beside it.
func TestPublicityIsOfOneDocument(t *testing.T) {
	cfg, problems := Load(Documents{User: []Document{
		doc("cidata", "#cloud-config\nrke2: {token: s3cr3t}\n"),
		{Source: "cmdline", Data: []byte("#cloud-config\nhostname: a\n"), Public: true},
	}})
	if len(problems) > 0 || cfg.Hostname != "a" || !strings.Contains(string(cfg.Files[0].Data), "s3cr3t") {
		t.Errorf("got %v and %+v, want both documents", problems, cfg)
	}
}

// No mistake around a secret may show it: consoles are logged by clouds.
func TestMistakesNeverShowSecrets(t *testing.T) {
	const secret = "s3cr3t"
	tests := []struct{ name, text, want string }{
		{"token taken for an alias", "rke2:\n  token: *" + secret + "\n",
			"FATAL ud: line 3: not valid YAML: a value that begins with * and is not in quotes; correct the indentation, quoting or brackets there"},
		{"no blank after the colon", "rke2: {role: server, token:" + secret + "}\n", "FATAL ud: line 2: rke2.token: lacks the blank after its colon"},
		{"no blank in a file", "write_files:\n- path: /etc/rancher/rke2/config.yaml\n  content: '{token:" + secret + "}'\n",
			"FATAL ud: content of /etc/rancher/rke2/config.yaml: line 1: token: lacks the blank after its colon"},
		{"a list", "rke2: {token: [" + secret + "]}\n", "FATAL ud: line 2: rke2.token: is a list; give one value"},
		{"a map", "rke2: {token: {" + secret + ": " + secret + "}}\n", "FATAL ud: line 2: rke2.token: is a mapping; give a value or a list of values"},
		{"on a line of its own", "rke2: " + secret + "\n", "FATAL ud: line 2: rke2: is a text where a map of keys is wanted"},
		{"twice", "rke2:\n  token: " + secret + "\n  token: " + secret + "2\n", "FATAL ud: line 4: rke2.token: is given twice, first in line 3; keep one"},
		{"open quote", "rke2:\n  token: \"" + secret + "\n", "FATAL ud: line 3: not valid YAML: found unexpected end of stream; correct the indentation, quoting or brackets there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Load(user("#cloud-config\n" + tt.text))
			got := render(problems)
			if strings.Contains(got, secret) {
				t.Fatalf("%q shows the secret", got)
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
