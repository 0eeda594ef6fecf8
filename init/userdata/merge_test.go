package userdata

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
)

func TestDocumentsEmpty(t *testing.T) {
	d := []Document{{}}
	for name, docs := range map[string]Documents{"vendor": {Vendor: d}, "user": {User: d}, "meta": {Meta: d}, "network": {Network: d}} {
		if docs.Empty() {
			t.Errorf("%s-data alone is taken for nothing", name)
		}
	}
	if !(Documents{}).Empty() {
		t.Error("nothing is taken for something")
	}
}

func TestRefusedNeedsAFatalProblem(t *testing.T) {
	if Refused(nil) || Refused([]Problem{{}, {}}) || !Refused([]Problem{{}, {Fatal: true}}) {
		t.Error("want refusal for the list with a fatal problem, and for it alone")
	}
}

func TestMetaData(t *testing.T) {
	const help = "; use letters, digits and -, at most 63 between dots and 253 in all (passed over)"
	tests := []struct {
		name                     string
		docs                     []string
		instance, hostname, fqdn string
		want                     string
	}{
		{"nothing", []string{""}, "", "", "", ""},
		{"usual", []string{"instance-id: i-1\nlocal-hostname: Node-1\n"}, "i-1", "node-1", "", ""},
		{"json", []string{`{"instance-id": "i-1", "local-hostname": "a"}`}, "i-1", "a", "", ""},
		{"byte order mark", []string{"\xef\xbb\xbfinstance-id: i-1\n"}, "i-1", "", "", ""},
		{"with a domain", []string{"local-hostname: A.Example.com\n"}, "", "a", "a.example.com", ""},
		{"hostname", []string{"hostname: b\n"}, "", "b", "", ""},
		{"local-hostname first", []string{"local-hostname: a\nhostname: b\n"}, "", "a", "", ""},
		{"local-hostname last", []string{"hostname: b\nlocal-hostname: a\n"}, "", "a", "", ""},
		{"a later document wins", []string{"instance-id: x\nlocal-hostname: a\n", "instance-id: y\nhostname: b\n"}, "y", "b", "", ""},
		{"a later document without a name", []string{"local-hostname: a\n", "instance-id: y\n"}, "y", "a", "", ""},
		{"cloud's own keys", []string{"public-keys: [a]\nnetwork-interfaces: |\n  auto eth0\nplacement: {zone: a}\n"}, "", "", "", ""},
		{"instance number", []string{"instance-id: 17\n"}, "17", "", "", ""},
		{"bad name", []string{"instance-id: i\nlocal-hostname: a_b\n"}, "i", "", "", `note m0: line 2: local-hostname: "a_b" is not a host name` + help},
		{"endless name", []string{"hostname: " + strings.Repeat("a.", 130) + "\n"}, "", "", "", `note m0: line 1: hostname: "` + strings.Repeat("a.", 20) + `"... is too long for a host name` + help},
		{"instance is a map", []string{"instance-id: {a: b}\n"}, "", "", "", "FATAL m0: line 1: instance-id: is a map where a text is wanted"},
		{"a list", []string{"- a\n"}, "", "", "", "FATAL m0: line 1: is a list where a map of keys is wanted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var docs Documents
			for i, text := range tt.docs {
				docs.Meta = append(docs.Meta, doc("m"+string(rune('0'+i)), text))
			}
			cfg, problems := Load(docs)
			if got := render(problems); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if cfg.InstanceID != tt.instance || cfg.Hostname != tt.hostname || cfg.FQDN != tt.fqdn {
				t.Errorf("got %q %q %q, want %q %q %q", cfg.InstanceID, cfg.Hostname, cfg.FQDN, tt.instance, tt.hostname, tt.fqdn)
			}
		})
	}
}

// paths names the files but the rendered one.
func paths(cfg *Config) (out []string) {
	for _, f := range cfg.Files {
		if f.Path != layout.RKE2UserData {
			out = append(out, f.Path)
		}
	}
	return out
}

// Key by key, the later document wins; what it does not say stays.
func TestMergeOrder(t *testing.T) {
	const head = "#cloud-config\n"
	tests := []struct {
		name, vendor, user string
		want               func(*Config) bool
	}{
		{"host name of the user", "hostname: v\n", "hostname: u\n", func(c *Config) bool { return c.Hostname == "u" }},
		{"host name of the vendor stays", "hostname: v\n", "ntp: {}\n", func(c *Config) bool { return c.Hostname == "v" }},
		{"a new name takes the old domain away", "fqdn: v.example\n", "hostname: u\n", func(c *Config) bool { return c.Hostname == "u" && c.FQDN == "" }},
		{"server list replaced", "ntp: {servers: [v], enabled: false}\n", "ntp: {pools: [u]}\n",
			func(c *Config) bool { return slices.Equal(c.NTP.Servers, []string{"u"}) && c.NTP.Disabled }},
		{"server list emptied", "ntp: {servers: [v]}\n", "ntp: {servers: []}\n", func(c *Config) bool { return len(c.NTP.Servers) == 0 }},
		{"time servers on again", "ntp: {enabled: false}\n", "ntp: {enabled: true}\n", func(c *Config) bool { return !c.NTP.Disabled }},
		{"time zone", "timezone: Europe/Berlin\n", "timezone: UTC\n", func(c *Config) bool { return c.Timezone == "UTC" }},
		{"modules replaced", "modules: [a, b]\n", "modules: [c]\n", func(c *Config) bool { return slices.Equal(c.Modules, []string{"c"}) }},
		{"modules emptied", "modules: [a]\n", "modules:\n", func(c *Config) bool { return len(c.Modules) == 0 }},
		{"keys replaced", "ssh_authorized_keys: [ssh-ed25519 v]\n", "ssh_authorized_keys: [ssh-ed25519 u]\n", func(c *Config) bool { return slices.Equal(c.SSHKeys, []string{"ssh-ed25519 u"}) }},
		{"defaults stay removed", "ca_certs: {remove_defaults: true}\n", "ca_certs: {trusted: []}\n", func(c *Config) bool { return c.CACerts.RemoveDefaults }},
		{"settings one by one", "sysctls: {a.a: 1, a.b: 2}\n", "sysctls: {a.c: 3, a.a: 4}\n",
			func(c *Config) bool {
				return slices.Equal(c.Sysctls, []Sysctl{{"a.a", "4"}, {"a.b", "2"}, {"a.c", "3"}})
			}},
		{"files replaced", "write_files: [{path: /etc/v}]\n", "write_files: [{path: /etc/u}, {path: /etc/w}]\n",
			func(c *Config) bool { return slices.Equal(paths(c), []string{"/etc/u", "/etc/w"}) }},
		{"files emptied", "write_files: [{path: /etc/v}]\n", "write_files: []\n", func(c *Config) bool { return len(c.Files) == 0 }},
		{"role", "rke2: {role: server}\n", "rke2: {debug: true}\n", func(c *Config) bool { return c.Role == RoleServer }},
		{"rke2 key by key", "rke2: {tls-san: [v], token: t}\n", "rke2: {tls-san: [u], debug: true}\n",
			func(c *Config) bool {
				return strings.HasSuffix(string(c.Files[0].Data), "\ntls-san: [u]\ntoken: t\ndebug: true\n")
			}},
		{"additions stand beside", "rke2: {node-label: [a=b]}\n", "rke2: {node-label+: [c=d]}\n",
			func(c *Config) bool {
				return strings.HasSuffix(string(c.Files[0].Data), "\nnode-label: [a=b]\nnode-label+: [c=d]\n")
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := Load(Documents{Vendor: []Document{doc("vd", head+tt.vendor)}, User: []Document{doc("ud", head+tt.user)}})
			if Refused(problems) || !tt.want(cfg) {
				t.Errorf("got %+v and %v", cfg, problems)
			}
		})
	}
}

// What the sources call themselves is in every line, so that two mistakes in
// two documents can be told apart.
func TestProblemsNameTheirDocument(t *testing.T) {
	_, problems := Load(Documents{
		Meta:   []Document{doc("md", "local-hostname: a_b\n")},
		Vendor: []Document{doc("vd", "#cloud-config\nruncmd: [a]\n"), doc("vd2", "\x1f\x8b")},
		User:   []Document{doc("ud", "#cloud-config\nrke2: {role: worker}\n"), doc("ud2", "#!/bin/sh\n")},
	})
	want := `note md: line 1: local-hostname: "a_b" is not a host name; use letters, digits and -, at most 63 between dots and 253 in all (passed over)
note vd: line 2: runcmd: is not supported: there is no shell to run it (passed over)
note vd2: gzip: unexpected EOF; compress it anew (passed over)
note ud2: line 1: is a script; a node has no shell to run it. Give a #cloud-config document instead (passed over)
FATAL ud: line 2: rke2.role: "worker" is no role; write server or agent`
	if got := render(problems); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRole(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"server", "rke2: {role: server}\n", ""},
		{"agent", "rke2: {role: agent, server: \"https://10.0.0.1:9345\", token: x}\n", ""},
		{"nobody says", "rke2: {}\n", ""},
		{"empty", "rke2: {role: }\n", "FATAL ud: line 2: rke2.role: is empty where a text is wanted"},
		{"upper case", "rke2: {role: Server}\n", `FATAL ud: line 2: rke2.role: "Server" is no role; write server or agent`},
		{"endless", "rke2: {role: " + strings.Repeat("x", 99) + "}\n", `FATAL ud: line 2: rke2.role: "` + strings.Repeat("x", 40) + `" is no role; write server or agent`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, tt.text, tt.want)
			want := RoleServer
			if tt.name == "agent" {
				want = RoleAgent
			}
			if cfg.Role != want {
				t.Errorf("got the role %q, want %q", cfg.Role, want)
			}
			if tt.want == "" && strings.Contains(string(cfg.Files[0].Data), "role") {
				t.Errorf("got %q, want no role in node's settings", cfg.Files[0].Data)
			}
		})
	}
}

// The rendered file must read back as what was written, whatever the style.
// Settings of servers that an agent is given are shown, and do not keep it from starting; in whichever document, and
// wherever in it, the role stands.
func TestAgentPassesKeysOfServersOver(t *testing.T) {
	const (
		mistakes = "rke2:\n  tls-san: [\"a b\"]\n  datastore-endpoint: hush\n  etcd-arg: {a: b}\n"
		agent    = "  role: agent\n"
		told     = "ud: line 4: rke2.datastore-endpoint: is not supported: only the etcd on this node is supported as datastore; remove it"
		over     = " (passed over: only servers use it)"
	)
	for _, c := range []struct {
		name    string
		docs    []string
		refused bool
		told    string
	}{
		{"server", []string{mistakes}, true, "FATAL " + told},
		{"agent", []string{mistakes + agent}, false, "note " + told + over},
		{"agent by another document before", []string{"rke2: {role: agent}\n", mistakes}, false, "note " + told + over},
		{"agent by another document behind", []string{mistakes, "rke2: {role: agent}\n"}, false, "note " + told + over},
		{"a mistake in an agent's own key", []string{mistakes + agent + "  node-label: [\"=\"]\n"}, true, "note " + told + over},
		{"a key that nobody has", []string{mistakes + agent + "  tls-sam: a\n"}, true, "note " + told + over},
		{"no role at all is a server's", []string{mistakes + "  role: none\n"}, true, "FATAL " + told},
	} {
		t.Run(c.name, func(t *testing.T) {
			var docs Documents
			for _, text := range c.docs {
				docs.User = append(docs.User, doc("ud", "#cloud-config\n"+text))
			}
			cfg, problems := Load(docs)
			if Refused(problems) != c.refused {
				t.Errorf("refused: %t, want %t: %s", !c.refused, c.refused, render(problems))
			}
			if got := render(problems); !strings.Contains(got, c.told+"\n") && !strings.HasSuffix(got, c.told) || strings.Contains(got, "hush") {
				t.Errorf("got\n%s\nwant in it\n%s", got, c.told)
			}
			if len(cfg.Files) != 1 || !strings.Contains(string(cfg.Files[0].Data), "datastore-endpoint") {
				t.Error("the settings are not passed on to node, which warns of them")
			}
		})
	}
}

func TestRenderedSettingsKeepTheirTypes(t *testing.T) {
	const settings = `
  token: "0123"     # a number in quotes stays text
  write-kubeconfig-mode: 0600
  debug: "true"
  node-label: &l
  - 'a=b'
  kubelet-arg: ["system-reserved=cpu=1"]
  node-taint: []
  node-name: >-
    a
  cluster-domain: !!str a.example
  node-label+: *l
`
	cfg := said(t, "rke2: # comment"+settings, "")
	var got, want map[string]any
	if err := errors.Join(yaml.Unmarshal(cfg.Files[0].Data, &got), yaml.Unmarshal([]byte(settings), &want)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if strings.ContainsAny(string(cfg.Files[0].Data), "&*") || strings.Contains(string(cfg.Files[0].Data), "comment") {
		t.Errorf("got %s, want neither anchors nor comments", cfg.Files[0].Data)
	}
}
