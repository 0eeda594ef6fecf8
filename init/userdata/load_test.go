package userdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"keelson/init/layout"
)

var update = flag.Bool("update", false, "write golden files anew")

func doc(source, text string) Document { return Document{Source: source, Data: []byte(text)} }

func user(text string) Documents { return Documents{User: []Document{doc("ud", text)}} }

func zip(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The lines that a person reads when a document is wrong are the contract here.
func TestProblems(t *testing.T) {
	tests := []struct {
		name, text string
		want       string // substring of the first problem; "" for none
		fatal      bool
	}{
		{"nothing", "", "", false},
		{"only the first line", "#cloud-config\n", "", false},
		{"windows line ends", "#cloud-config\r\nhostname: a\r\n", "", false},
		{"byte order mark", "\xef\xbb\xbf#cloud-config\nhostname: a\n", "", false},
		{"broken yaml", "#cloud-config\nhostname: a\nrke2: {role: server\nntp: {}\n", "ud: line 3: not valid YAML: ", true},
		{"bad indentation", "#cloud-config\nrke2:\n  role: server\n token: x\n", "ud: line 4: not valid YAML", true},
		{"broken after long text", "#cloud-config\nwrite_files:\n- path: /etc/a\n  content: |\n" + strings.Repeat("    text {\n", 500) + "hostname: a: b\nntp: {}\n", "ud: line 505: not valid YAML", true},
		{"open quote", "#cloud-config\nhostname: 'a\n" + strings.Repeat("ntp: {}\n", 500), "ud: line 2: not valid YAML", true},
		{"tab", "#cloud-config\nntp:\n\tservers: [a]\n", "ud: line 3: not valid YAML", true},
		{"two documents", "#cloud-config\na: 1\n---\nb: 2\n", "a second YAML document", true},
		{"a list", "#cloud-config\n- hostname\n", "ud: line 2: is a list where a map of keys is wanted", true},
		{"script", "#!/bin/sh\necho\n", "ud: line 1: is a script; a node has no shell", true},
		{"include", "#include\nhttp://x\n", "addresses to include, which are not fetched", true},
		{"jinja", "## template: jinja\n#cloud-config\n", "jinja template", true},
		{"boothook", "#cloud-boothook\necho\n", "boothook", true},
		{"no first line", "hostname: a\n", "first line must be exactly #cloud-config", true},
		{"nearly the first line", "# cloud-config\nhostname: a\n", "nearly the right words", true},
		{"unknown key of rke2", "#cloud-config\nrke2:\n  role: server\n  node-lable: [a=b]\n", "ud: line 4: rke2.node-lable: ", true},
		{"wrong type in rke2", "#cloud-config\nrke2:\n  tls-san: {a: b}\n", "ud: line 3: rke2.tls-san: ", true},
		{"rke2 is a list", "#cloud-config\nrke2: [a]\n", "ud: line 2: rke2: is a list where a map", true},
		{"role", "#cloud-config\nrke2: {role: master}\n", "ud: line 2: rke2.role: \"master\" is no role", true},
		{"role is a map", "#cloud-config\nrke2: {role: {a: b}}\n", "rke2.role: is a map where a text", true},
		{"key twice", "#cloud-config\nhostname: a\nhostname: b\n", "ud: line 3: hostname: is given twice, first in line 2", true},
		{"merge key", "#cloud-config\ngrowpart: &a {b: c}\nrke2:\n  <<: *a\n", "merge key", true},
		{"runcmd", "#cloud-config\nruncmd: [ls]\n", "ud: line 2: runcmd: is not supported: there is no shell", false},
		{"packages", "#cloud-config\npackages: [vim]\n", "packages: is not supported", false},
		{"unknown key", "#cloud-config\nfrobnicate: 1\n", "ud: line 2: frobnicate: is not known (passed over)", false},
		{"mistyped key", "#cloud-config\nhostnme: a\n", "did you mean hostname?", false},
		{"settled keys", "#cloud-config\ngrowpart: {mode: auto}\nmanage_etc_hosts: true\n", "", false},
		{"ssh keys", "#cloud-config\nssh_authorized_keys: [ssh-ed25519 A]\n", "debug overlay only", false},
		{"host name", "#cloud-config\nhostname: a_b\n", `hostname: "a_b" is not a host name`, true},
		{"host name is a list", "#cloud-config\nhostname: [a]\n", "hostname: is a list where a text", true},
		{"host name ends in -", "#cloud-config\nhostname: a-.b\n", "is not a host name", true},
		{"ntp key", "#cloud-config\nntp:\n  server: [a]\n", "ud: line 3: ntp.server: is not a key of ntp; did you mean servers?", true},
		{"ntp type", "#cloud-config\nntp: {servers: a}\n", "ntp.servers: is a text where a list", true},
		{"ntp server", "#cloud-config\nntp: {servers: ['a b']}\n", "neither a host name nor an address", true},
		{"time zone", "#cloud-config\ntimezone: ../../etc/shadow\n", "is not the name of a time zone", true},
		{"ca_certs key", "#cloud-config\nca_certs: {trust: []}\n", "ca_certs.trust: is not a key of ca_certs; did you mean", true},
		{"ca_certs no pem", "#cloud-config\nca_certs: {trusted: [abc]}\n", "ca_certs.trusted[0]: is not a PEM certificate", true},
		{"sysctl", "#cloud-config\nsysctls: {'../x': 1}\n", "is not a kernel setting", true},
		{"module", "#cloud-config\nmodules: [../x]\n", "is not the name of a kernel module", true},
		{"no path", "#cloud-config\nwrite_files:\n- content: x\n", "ud: line 3: write_files[0]: has no path", true},
		{"relative path", "#cloud-config\nwrite_files: [{path: a}]\n", "not a plain absolute path", true},
		{"path climbs", "#cloud-config\nwrite_files: [{path: /etc/../usr/a}]\n", "not a plain absolute path", true},
		{"our own path", "#cloud-config\nwrite_files: [{path: /var/lib/keelson/machine-id}]\n", "written by the machine itself", true},
		{"read-only path", "#cloud-config\nwrite_files: [{path: /usr/local/bin/x}]\n", "is on the read-only root", false},
		{"owner", "#cloud-config\nwrite_files: [{path: /etc/a, owner: 'ubuntu:ubuntu'}]\n", "does not exist on a node", true},
		{"mode", "#cloud-config\nwrite_files: [{path: /etc/a, permissions: 420}]\n", "is not a file mode; write it in quotes", true},
		{"setuid", "#cloud-config\nwrite_files: [{path: /etc/a, permissions: '4755'}]\n", "no setuid", true},
		{"base64", "#cloud-config\nwrite_files: [{path: /etc/a, encoding: b64, content: '*'}]\n", "write_files[0].content: is not valid base64", true},
		{"gzip", "#cloud-config\nwrite_files: [{path: /etc/a, encoding: gz+b64, content: YWJj}]\n", "is not valid gzip", true},
		{"encoding", "#cloud-config\nwrite_files: [{path: /etc/a, encoding: rot13}]\n", "has the encoding \"rot13\"; use", true},
		{"file key", "#cloud-config\nwrite_files: [{path: /etc/a, contents: b}]\n", "write_files[0].contents: is not a key of write_files[0]; did you mean content?", true},
		{"file source", "#cloud-config\nwrite_files: [{path: /etc/a, source: {uri: x}}]\n", "nothing is fetched at boot", true},
		{"settings in a file", "#cloud-config\nwrite_files:\n- path: /etc/rancher/rke2/config.yaml\n  content: |\n    debug: true\n    tokn: x\n",
			"ud: content of /etc/rancher/rke2/config.yaml: line 2: tokn: ", true},
		{"damaged gzip", "\x1f\x8bxx", "gzip: ", true},
		{"mime cut short", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\na: b\n", "cut short", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Load(user(tt.text))
			if tt.want == "" {
				if len(problems) > 0 {
					t.Fatalf("got %v, want no problem", problems)
				}
				return
			}
			if len(problems) == 0 {
				t.Fatalf("got no problem, want %q", tt.want)
			}
			if got := problems[0].String(); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to hold %q", got, tt.want)
			}
			if got := Refused(problems); got != tt.fatal {
				t.Errorf("refused: got %v, want %v (%v)", got, tt.fatal, problems)
			}
		})
	}
}

// A cloud's document with a mistake is passed over whole, its other parts and
// the user's documents count.
func TestVendorMistakeStopsNothing(t *testing.T) {
	mime := "Content-Type: multipart/mixed; boundary=b\n\n" +
		"--b\nContent-Type: text/cloud-config\n\nhostname: lost\nrke2: {tokn: x}\n" +
		"--b\nContent-Type: text/cloud-config\n\nrke2: {tls-san: [kept]}\n--b--\n"
	for name, vendor := range map[string]string{
		"unknown key": "#cloud-config\nhostname: lost\nrke2: {tokn: x}\n", "broken yaml": "#cloud-config\nhostname: [lost\n", "one part of two": mime,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, problems := Load(Documents{
				Vendor: []Document{doc("vendor", vendor)},
				User:   []Document{doc("ud", "#cloud-config\nntp: {servers: [a.example]}\n")},
			})
			if Refused(problems) {
				t.Fatalf("the machine stops for its cloud's mistake: %v", problems)
			}
			if len(problems) == 0 || problems[0].Source == "" || !strings.Contains(problems[0].Text, "(passed over)") {
				t.Errorf("got %v, want the mistake shown as passed over", problems)
			}
			if cfg.Hostname != "" || len(cfg.NTP.Servers) != 1 {
				t.Errorf("got host name %q and time servers %q, want none of the wrong part and all of the user's", cfg.Hostname, cfg.NTP.Servers)
			}
			if kept := len(cfg.Files) > 0 && strings.Contains(string(cfg.Files[0].Data), "kept"); kept != (name == "one part of two") {
				t.Errorf("right part in force: %v", kept)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	cfg, problems := Load(Documents{
		Meta: []Document{doc("meta", "instance-id: i-1\nlocal-hostname: cloud-1.example\n")},
		Vendor: []Document{doc("vendor", "#cloud-config\nrke2:\n  token: from-vendor\n  tls-san: [a, b]\n"+
			"ntp: {servers: [v.example]}\nsysctls: {vm.swappiness: 1, kernel.pid_max: 5}\n"+
			"write_files: [{path: /etc/vendor}]\n")},
		User: []Document{
			doc("first", "#cloud-config\nrke2: {role: server, tls-san: [c]}\nsysctls: {vm.swappiness: 9}\n"),
			doc("second", "#cloud-config\nhostname: CP-1\nwrite_files: [{path: /etc/second, permissions: '0600'}]\n"),
		},
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if cfg.InstanceID != "i-1" || cfg.Hostname != "cp-1" || cfg.FQDN != "" {
		t.Errorf("got %q %q %q, want i-1, cp-1 and no full name", cfg.InstanceID, cfg.Hostname, cfg.FQDN)
	}
	if len(cfg.NTP.Servers) != 1 || cfg.NTP.Servers[0] != "v.example" {
		t.Errorf("ntp: got %v", cfg.NTP.Servers)
	}
	want := []Sysctl{{"vm.swappiness", "9"}, {"kernel.pid_max", "5"}}
	if len(cfg.Sysctls) != 2 || cfg.Sysctls[0] != want[0] || cfg.Sysctls[1] != want[1] {
		t.Errorf("sysctls: got %v, want %v", cfg.Sysctls, want)
	}
	if len(cfg.Files) != 2 || cfg.Files[0].Path != "/etc/second" || cfg.Files[0].Mode != 0o600 {
		t.Fatalf("files: got %v, want the list of the last document and rke2's", cfg.Files)
	}
	f := cfg.Files[1]
	if f.Path != layout.RKE2UserData || f.Mode != 0o600 {
		t.Errorf("got %s %o, want %s 600", f.Path, f.Mode, layout.RKE2UserData)
	}
	golden(t, "rke2.yaml", f.Data)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestAliasesAreWrittenOut(t *testing.T) {
	cfg, problems := Load(user("#cloud-config\nx: &names [a.example]\nrke2:\n  tls-san: *names\n"))
	if Refused(problems) {
		t.Fatal(problems)
	}
	var got map[string][]string
	if err := yaml.Unmarshal(cfg.Files[0].Data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got["tls-san"]) != 1 || got["tls-san"][0] != "a.example" {
		t.Errorf("got %v, want the list that the anchor names", got)
	}
}

func TestHostname(t *testing.T) {
	tests := []struct{ name, text, host, fqdn string }{
		{"short", "hostname: a", "a", ""},
		{"with a domain", "hostname: a.b.c", "a", "a.b.c"},
		{"both", "hostname: a\nfqdn: x.b.c", "a", "x.b.c"},
		{"full name alone", "fqdn: a.b", "a", "a.b"},
		{"a number", "hostname: 12", "12", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := Load(user("#cloud-config\n" + tt.text + "\n"))
			if cfg.Hostname != tt.host || cfg.FQDN != tt.fqdn {
				t.Errorf("got %q %q, want %q %q", cfg.Hostname, cfg.FQDN, tt.host, tt.fqdn)
			}
		})
	}
}

func TestFormats(t *testing.T) {
	const plain = "#cloud-config\nhostname: a\n"
	b64 := base64.StdEncoding.EncodeToString([]byte(plain))
	tests := []struct{ name, text string }{
		{"plain", plain},
		{"gzip", zip(t, plain)},
		{"gzip in gzip", zip(t, zip(t, plain))},
		{"mime", "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n" +
			"--b\r\nContent-Type: text/x-shellscript\r\n\r\n#!/bin/sh\r\n\r\n--b\r\nContent-Type: text/cloud-config\r\n\r\nhostname: a\r\n--b--\r\n"},
		{"mime with base64", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\nContent-Transfer-Encoding: base64\n\n" + b64 + "\n--b--\n"},
		{"mime in mime", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\n" + plain + "\n--c--\n--b--\n"},
		{"one part", "Content-Type: text/cloud-config\n\nhostname: a\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := Load(user(tt.text))
			if Refused(problems) || cfg.Hostname != "a" {
				t.Errorf("got %q and %v, want the host name a", cfg.Hostname, problems)
			}
		})
	}
}

func TestScriptBesideCloudConfigIsPassedOver(t *testing.T) {
	cfg, problems := Load(Documents{User: []Document{doc("a", "#!/bin/sh\n"), doc("b", "#cloud-config\nhostname: x\n")}})
	if len(problems) != 1 || problems[0].Fatal || cfg.Hostname != "x" {
		t.Errorf("got %q %v, want x and one line about the script", cfg.Hostname, problems)
	}
}

func TestVendorScriptNeverStopsAMachine(t *testing.T) {
	_, problems := Load(Documents{Vendor: []Document{doc("v", "#!/bin/sh\n")}})
	if len(problems) != 1 || problems[0].Fatal {
		t.Errorf("got %v, want one line that is not fatal", problems)
	}
}

func TestSecretsArePrivate(t *testing.T) {
	const secret = "s3cr3t-value"
	for name, text := range map[string]string{
		"in rke2":    "#cloud-config\nrke2: {token: " + secret + "}\n",
		"in a file":  "#cloud-config\nwrite_files: [{path: /etc/rancher/rke2/config.yaml, content: 'token: " + secret + "'}]\n",
		"with a map": "#cloud-config\nrke2: {token: {" + secret + ": 1}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := doc("kernel command line", text)
			d.Public = true
			_, problems := Load(Documents{User: []Document{d}})
			if !Refused(problems) {
				t.Fatalf("got %v, want a secret on the command line refused", problems)
			}
			for _, p := range problems {
				if strings.Contains(p.String(), secret) {
					t.Errorf("%q shows the secret", p)
				}
			}
		})
	}
}

func TestWriteFiles(t *testing.T) {
	zipped := base64.StdEncoding.EncodeToString([]byte(zip(t, "hello")))
	cfg, problems := Load(user("#cloud-config\nwrite_files:\n" +
		"- {path: /etc/a, content: hello, encoding: text/plain, owner: 'root:root', permissions: '0640'}\n" +
		"- {path: /etc/b, content: aGVsbG8=, encoding: b64, append: true}\n" +
		"- {path: /var/c, content: " + zipped + ", encoding: gz+b64, defer: true}\n" +
		"- path: /etc/d\n  permissions: 0755\n  content: !!binary aGVsbG8=\n" +
		"- {path: /run/e}\n"))
	if len(problems) > 0 && Refused(problems) {
		t.Fatal(problems)
	}
	if len(cfg.Files) != 5 {
		t.Fatalf("got %d files, want 5", len(cfg.Files))
	}
	for i, want := range []string{"hello", "hello", "hello", "hello", ""} {
		if got := string(cfg.Files[i].Data); got != want {
			t.Errorf("%s: got %q, want %q", cfg.Files[i].Path, got, want)
		}
	}
	if f := cfg.Files[0]; f.Mode != 0o640 || f.Line != 3 {
		t.Errorf("got mode %o line %d, want 640 and 3", f.Mode, f.Line)
	}
	if !cfg.Files[1].Append || !cfg.Files[2].Defer || cfg.Files[3].Mode != 0o755 || cfg.Files[4].Mode != 0o644 {
		t.Errorf("got %+v", cfg.Files)
	}
}

func TestUnpackedSizeIsBounded(t *testing.T) {
	_, problems := Load(user(zip(t, "#cloud-config\n#"+strings.Repeat("a", maxUnpacked))))
	if !Refused(problems) || !strings.Contains(problems[0].String(), "larger than") {
		t.Errorf("got %v, want the size refused", problems)
	}
}

func TestAliasBombIsRefused(t *testing.T) {
	text := "#cloud-config\nrke2:\n  tls-san: &a0 [x]\n"
	prev := "a0"
	for i := 1; i < 12; i++ {
		name := "a" + string(rune('a'+i))
		text += "k" + name + ": &" + name + " [" + strings.Repeat("*"+prev+",", 10) + "]\n"
		prev = name
	}
	n := &loader{}
	root := n.Parse([]byte(text))
	if root == nil {
		t.Fatal(n.Problems)
	}
	if _, err := renderRKE2(root); err == nil || !strings.Contains(err.Error(), "beyond all bounds") {
		t.Errorf("got %v, want an error about anchors", err)
	}
}

func TestProblemsOfEveryKeyAreToldAtOnce(t *testing.T) {
	_, problems := Load(user("#cloud-config\nhostname: [a]\nrke2: {nope: 1}\nntp: {nope: 1}\n"))
	if len(problems) != 3 {
		t.Errorf("got %v, want three problems", problems)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("#cloud-config\nhostname: a\nrke2: {role: server, tls-san: [a]}\n"))
	f.Add([]byte("#cloud-config\nwrite_files: [{path: /etc/a, content: YQ==, encoding: gz+b64}]\nca_certs: {trusted: [x]}\n"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/cloud-config\n\na: b\n--b--\n"))
	f.Add([]byte(zip(f, "#cloud-config\nntp: {servers: [a]}\n")))
	f.Add([]byte("#cloud-config\na: &a [*a]\nrke2: {tls-san: *a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, problems := Load(Documents{User: []Document{{Source: "fuzz", Data: data}}, Meta: []Document{{Source: "m", Data: data}}})
		if cfg == nil {
			t.Fatal("no config")
		}
		for _, p := range problems {
			if p.Source == "" || p.Text == "" || p.Line < 0 {
				t.Errorf("incomplete problem %+v", p)
			}
		}
		if Refused(problems) {
			return
		}
		for _, file := range cfg.Files {
			if !strings.HasPrefix(file.Path, "/") || strings.Contains(file.Path, "/../") || file.Mode&^0o777 != 0 {
				t.Errorf("unsafe file %q %o", file.Path, file.Mode)
			}
		}
	})
}
