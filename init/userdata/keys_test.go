package userdata

import (
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

// render makes problems comparable: one line each, fatal ones marked.
func render(problems []Problem) string {
	var lines []string
	for _, p := range problems {
		mark := "note "
		if p.Fatal {
			mark = "FATAL "
		}
		lines = append(lines, mark+p.String())
	}
	return strings.Join(lines, "\n")
}

// said loads one user-data document of cloud-config lines, the first of which
// is line 2, and compares every word that is said of it.
func said(t *testing.T, text, want string) *Config {
	t.Helper()
	cfg, problems := Load(user("#cloud-config\n" + text))
	if got := render(problems); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	return cfg
}

// Keys of cloud-init that a node cannot honour are named, and change nothing.
func TestUnsupportedKeys(t *testing.T) {
	for key, why := range unsupported() {
		t.Run(key, func(t *testing.T) {
			cfg := said(t, "growpart: {}\n"+key+": [{a: b}]\n", "note ud: line 3: "+key+": is not supported: "+why+" (passed over)")
			if len(cfg.Files)+len(cfg.Sysctls)+len(cfg.Modules)+len(cfg.SSHKeys) > 0 || cfg.Hostname != "" {
				t.Errorf("got %+v, want no effect", cfg)
			}
		})
	}
}

func TestKeyListsAreDisjoint(t *testing.T) {
	for _, k := range keys() {
		if _, ok := unsupported()[k]; ok || slices.Contains(settled(), k) {
			t.Errorf("%s has an effect and is listed as one without", k)
		}
	}
	for _, k := range settled() {
		if _, ok := unsupported()[k]; ok {
			t.Errorf("%s is both met and not supported", k)
		}
	}
}

// What the machine does by itself is not worth a word, whatever the value.
func TestSettledKeysAreSilent(t *testing.T) {
	for _, key := range settled() {
		t.Run(key, func(t *testing.T) {
			for _, value := range []string{"true", "{mode: auto}", "[a]", ""} {
				said(t, key+": "+value+"\n", "")
			}
		})
	}
}

func TestUnknownKeys(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"slip of one letter", "hostnam: a\n", "note ud: line 2: hostnam: is not known; did you mean hostname? (passed over)"},
		{"two letters swapped", "sysctsl: {}\n", "note ud: line 2: sysctsl: is not known; did you mean sysctls? (passed over)"},
		{"three letters off", "hstnm: a\n", "note ud: line 2: hstnm: is not known (passed over)"},
		{"dash for underscore", "write-files: []\n", "note ud: line 2: write-files: is not known; did you mean write_files? (passed over)"},
		{"nothing alike", "keelson: {}\n", "note ud: line 2: keelson: is not known (passed over)"},
		{"empty key", "'': 1\n", "note ud: line 2: is not known (passed over)"},
		{"a number as key", "12: 1\n", "note ud: line 2: 12: is not known (passed over)"},
		{"a map as key", "{a: b}: 1\n", "FATAL ud: line 2: holds a key that is a map; keys are plain words"},
		{"a list as key", "? [a]\n: 1\n", "FATAL ud: line 2: holds a key that is a list; keys are plain words"},
		{"two at once, each with its line", "a: 1\n\nb: 2\n",
			"note ud: line 2: a: is not known (passed over)\nnote ud: line 4: b: is not known (passed over)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, tt.text, tt.want) })
	}
}

func TestHostnameMessages(t *testing.T) {
	const help = "; use letters, digits and -, at most 63 between dots and 253 in all"
	long := strings.Repeat("a", 64)
	tests := []struct{ name, text, want string }{
		{"empty text", "hostname: ''\n", `FATAL ud: line 2: hostname: "" is not a host name` + help},
		{"empty", "hostname:\n", "FATAL ud: line 2: hostname: is empty where a text is wanted"},
		{"label too long", "hostname: " + long + "\n", `FATAL ud: line 2: hostname: "` + long + `" is not a host name` + help},
		{"longest label", "hostname: " + long[1:] + "\n", ""},
		{"all too long", "fqdn: " + strings.Repeat("a.", 127) + "\n", `FATAL ud: line 2: fqdn: "` + strings.Repeat("a.", 20) + `"... is too long for a host name` + help},
		{"begins with -", "hostname: -a\n", `FATAL ud: line 2: hostname: "-a" is not a host name` + help},
		{"label begins with -", "fqdn: a.-b\n", `FATAL ud: line 2: fqdn: "a.-b" is not a host name` + help},
		{"ends in -", "hostname: a-\n", `FATAL ud: line 2: hostname: "a-" is not a host name` + help},
		{"dash inside", "hostname: a--b\n", ""},
		{"two dots", "fqdn: a..b\n", `FATAL ud: line 2: fqdn: "a..b" is not a host name` + help},
		{"dot at the end", "fqdn: a.b.\n", `FATAL ud: line 2: fqdn: "a.b." is not a host name` + help},
		{"umlaut", "hostname: ä\n", `FATAL ud: line 2: hostname: "ä" is not a host name` + help},
		{"a map", "fqdn: {a: b}\n", "FATAL ud: line 2: fqdn: is a map where a text is wanted"},
		{"template", "hostname: '{{ ds }}'\n", `FATAL ud: line 2: hostname: "{{ ds }}" is not a host name` + help},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, tt.text, tt.want) })
	}
}

func TestNTP(t *testing.T) {
	tests := []struct {
		name, text, want string
		servers          []string
		disabled         bool
	}{
		{"servers and pools are one list", "ntp: {servers: [a.example, 192.0.2.1], pools: ['2001:db8::1']}\n", "",
			[]string{"a.example", "192.0.2.1", "2001:db8::1"}, false},
		{"name with its last dot", "ntp: {servers: [a.example.]}\n", "", []string{"a.example."}, false},
		{"off", "ntp: {enabled: false}\n", "", nil, true},
		{"off as YAML 1.1 says it", "ntp: {enabled: no}\n", "", nil, true},
		{"on", "ntp: {enabled: 'on'}\n", "", nil, false},
		{"empty section", "ntp:\n", "", nil, false},
		{"a list", "ntp: [a]\n", "FATAL ud: line 2: ntp: is a list where a map of keys is wanted", nil, false},
		{"enabled", "ntp: {enabled: maybe}\n", "FATAL ud: line 2: ntp.enabled: is a text where true or false is wanted", nil, false},
		{"enabled by number", "ntp: {enabled: 1}\n", "FATAL ud: line 2: ntp.enabled: is a number where true or false is wanted", nil, false},
		{"a colon alone", "ntp: {servers: [':']}\n", `FATAL ud: line 2: ntp.servers[0]: ":" is neither a host name nor an address`, nil, false},
		{"name with a port", "ntp:\n  servers:\n  - a.example\n  - cafe:123\n",
			`FATAL ud: line 4: ntp.servers[1]: "cafe:123" is neither a host name nor an address`, []string{"a.example"}, false},
		{"address with a zone", "ntp: {pools: ['fe80::1%eth0']}\n", `FATAL ud: line 2: ntp.pools[0]: "fe80::1%eth0" is neither a host name nor an address`, nil, false},
		{"a number", "ntp: {servers: [{a: b}]}\n", "FATAL ud: line 2: ntp.servers[0]: is a map where a text is wanted", nil, false},
		{"client", "ntp: {ntp_client: chrony, config: {}}\n", "note ud: line 2: ntp.ntp_client: is not supported: time is kept by init itself (passed over)\n" +
			"note ud: line 2: ntp.config: is not supported: time is kept by init itself (passed over)", nil, false},
		{"unknown", "ntp: {frobnicate: 1}\n", "FATAL ud: line 2: ntp.frobnicate: is not a key of ntp; remove it, or use one of enabled, pools, servers", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, tt.text, tt.want)
			if !slices.Equal(cfg.NTP.Servers, tt.servers) || cfg.NTP.Disabled != tt.disabled {
				t.Errorf("got %+v, want %v, disabled %v", cfg.NTP, tt.servers, tt.disabled)
			}
		})
	}
}

func TestTimezone(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3", "EST5EDT"} {
		t.Run(zone, func(t *testing.T) {
			if cfg := said(t, "timezone: "+zone+"\n", ""); cfg.Timezone != zone {
				t.Errorf("got %q", cfg.Timezone)
			}
		})
	}
	for _, zone := range []string{"/etc/localtime", "Europe/../../x", "Europe/", "a b", "-x", "", "."} {
		t.Run("refuses "+zone, func(t *testing.T) {
			cfg := said(t, "timezone: '"+zone+"'\n", `FATAL ud: line 2: timezone: "`+zone+`" is not the name of a time zone; write one like Europe/Berlin or UTC`)
			if cfg.Timezone != "" {
				t.Errorf("got %q, want it left out", cfg.Timezone)
			}
		})
	}
}

func certificate(kind string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("not looked into here")}))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

func TestCACerts(t *testing.T) {
	one := certificate("CERTIFICATE")
	tests := []struct {
		name, text, want string
		count            int
		remove           bool
	}{
		{"one", "ca_certs:\n  trusted:\n  - |\n" + indent(one), "", 1, false},
		{"a chain in one entry", "ca_certs:\n  trusted:\n  - |\n" + indent(one+one), "", 1, false},
		{"older spelling", "ca-certs:\n  remove-defaults: true\n  trusted:\n  - |\n" + indent(one), "", 1, true},
		{"defaults removed", "ca_certs: {remove_defaults: yes}\n", "", 0, true},
		{"a key instead", "ca_certs:\n  trusted:\n  - |\n" + indent(certificate("RSA PRIVATE KEY")),
			`FATAL ud: line 4: ca_certs.trusted[0]: holds a PEM block "RSA PRIVATE KEY"; only CERTIFICATE belongs here`, 0, false},
		{"a key behind it", "ca_certs:\n  trusted:\n  - |\n" + indent(one+certificate("PRIVATE KEY")),
			`FATAL ud: line 4: ca_certs.trusted[0]: holds a PEM block "PRIVATE KEY"; only CERTIFICATE belongs here`, 0, false},
		{"cut short", "ca_certs:\n  trusted:\n  - |\n" + indent(one+one[:40]),
			"FATAL ud: line 4: ca_certs.trusted[0]: is not a PEM certificate; write it as a block (|) from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----", 0, false},
		{"folded into one line", "ca_certs:\n  trusted:\n  - " + strings.ReplaceAll(one, "\n", " ") + "\n",
			"FATAL ud: line 4: ca_certs.trusted[0]: is not a PEM certificate; write it as a block (|) from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----", 0, false},
		{"not a list", "ca_certs: {trusted: a}\n", `FATAL ud: line 2: ca_certs.trusted: is a text where a list is wanted; begin its lines with "- "`, 0, false},
		{"second of two", "ca_certs:\n  trusted:\n  - |\n" + indent(one) + "  - 7\n",
			"FATAL ud: line 8: ca_certs.trusted[1]: is not a PEM certificate; write it as a block (|) from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----", 1, false},
		{"unknown", "ca_certs: {certs: []}\n", "FATAL ud: line 2: ca_certs.certs: is not a key of ca_certs; remove it, or use one of remove_defaults, trusted", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, tt.text, tt.want)
			if len(cfg.CACerts.Trusted) != tt.count || cfg.CACerts.RemoveDefaults != tt.remove {
				t.Errorf("got %+v, want %d certificates, remove %v", cfg.CACerts, tt.count, tt.remove)
			}
			for _, c := range cfg.CACerts.Trusted {
				if !strings.HasSuffix(c, "-----END CERTIFICATE-----\n") {
					t.Errorf("got %q, want it to end in one line break", c)
				}
			}
		})
	}
}

func TestSysctlsAndModules(t *testing.T) {
	const setting = "is not a kernel setting; write it like net.ipv4.ip_forward: 1"
	const module = "is not the name of a kernel module; write the name alone, without path or options"
	tests := []struct {
		name, text, want string
		sysctls          []Sysctl
		modules          []string
	}{
		{"both", "sysctls: {net.ipv4.tcp_rmem: 4096 87380 6291456, vm/swappiness: 0x0a}\nmodules: [dm_thin-pool, 8021q]\n", "",
			[]Sysctl{{"net.ipv4.tcp_rmem", "4096 87380 6291456"}, {"vm/swappiness", "0x0a"}}, []string{"dm_thin-pool", "8021q"}},
		{"pattern", "sysctls: {net.ipv4.conf.*.rp_filter: 2}\n", "", []Sysctl{{"net.ipv4.conf.*.rp_filter", "2"}}, nil},
		{"absolute", "sysctls: {/etc/passwd: x}\n", "FATAL ud: line 2: sysctls./etc/passwd: " + setting, nil, nil},
		{"climbs", "sysctls: {kernel/../../x: 1}\n", "FATAL ud: line 2: sysctls.kernel/../../x: " + setting, nil, nil},
		{"line break in the value", "sysctls: {a.b: \"1\\n2\"}\n", "FATAL ud: line 2: sysctls.a.b: " + setting, nil, nil},
		{"no value", "sysctls:\n  a.b:\n", "FATAL ud: line 3: sysctls.a.b: is empty where a text is wanted", nil, nil},
		{"a list", "sysctls: [a=1]\n", "FATAL ud: line 2: sysctls: is a list where a map of keys is wanted", nil, nil},
		{"module with options", "modules:\n- loop\n- loop max_loop=8\n", `FATAL ud: line 4: modules[1]: "loop max_loop=8" ` + module, nil, []string{"loop"}},
		{"module by path", "modules: [fs/x.ko]\n", `FATAL ud: line 2: modules[0]: "fs/x.ko" ` + module, nil, nil},
		{"modules as a text", "modules: loop\n", `FATAL ud: line 2: modules: is a text where a list is wanted; begin its lines with "- "`, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, tt.text, tt.want)
			if !slices.Equal(cfg.Sysctls, tt.sysctls) || !slices.Equal(cfg.Modules, tt.modules) {
				t.Errorf("got %v %v, want %v %v", cfg.Sysctls, cfg.Modules, tt.sysctls, tt.modules)
			}
		})
	}
}

func TestProblemIsOneLine(t *testing.T) {
	tests := []struct {
		name string
		p    Problem
		want string
	}{
		{"all parts", Problem{Source: "s", Line: 3, Key: "a.b", Text: "is wrong"}, "s: line 3: a.b: is wrong"},
		{"no line", Problem{Source: "s", Key: "a", Text: "t"}, "s: a: t"},
		{"no key", Problem{Source: "s", Line: 1, Text: "t"}, "s: line 1: t"},
		{"forged line", Problem{Source: "s", Key: "a\nkeelson: boot: complete", Text: "t"}, "s: a?keelson: boot: complete: t"},
		{"terminal codes", Problem{Source: "s", Key: "\x1b[2J", Text: "t\r"}, "s: ?[2J: t?"},
		{"endless key", Problem{Source: "s", Key: strings.Repeat("k", 5000), Text: "t"}, "s: " + strings.Repeat("k", maxKey) + "...: t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.p.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
