package userdata

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"keelson/init/layout"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// entry is a document with one file; its map stands in line 3.
func entry(fields string) string { return "write_files:\n- {" + fields + "}\n" }

func TestWriteFilesPaths(t *testing.T) {
	plain := func(path string) string {
		return fmt.Sprintf("FATAL ud: line 3: write_files[0].path: %q is not a plain absolute path of a file", path)
	}
	readOnly := func(path string) string {
		return "note ud: line 3: write_files[0].path: " + path + " is on the read-only root; files can be written below /etc, /run, /tmp, /var (passed over)"
	}
	own := func(path string) string {
		return "FATAL ud: line 3: write_files[0].path: " + path + " is written by the machine itself; choose another path"
	}
	tests := []struct{ name, path, want string }{
		{"in /etc", "/etc/containerd/x.toml", ""},
		{"in /run", "/run/x", ""},
		{"in /tmp", "/tmp/x", ""},
		{"in /var", "/var/lib/rancher/rke2/server/manifests/a.yaml", ""},
		{"settings of RKE2", "/etc/rancher/rke2/registries.yaml", ""},
		{"audit policy", "/etc/rancher/rke2/audit-policy.yaml", ""},
		{"beside our folder", "/var/lib/keelson-x", ""},
		{"blank inside", "/etc/a b", ""},
		{"relative", "etc/a", plain("etc/a")},
		{"dot", "./a", plain("./a")},
		{"home", "~/a", plain("~/a")},
		{"climbs", "/etc/../usr/bin/x", plain("/etc/../usr/bin/x")},
		{"climbs out", "/../etc/a", plain("/../etc/a")},
		{"dot inside", "/etc/./a", plain("/etc/./a")},
		{"two slashes", "/etc//a", plain("/etc//a")},
		{"a folder", "/etc/a/", plain("/etc/a/")},
		{"too long", "/etc/" + strings.Repeat("a", 4000), plain("/etc/" + strings.Repeat("a", 195))}, // 200 of it shown
		{"machine-id", layout.MachineID, own(layout.MachineID)},
		{"our folder", layout.StateKeelson, own(layout.StateKeelson)},
		{"the rendered settings", layout.RKE2UserData, own(layout.RKE2UserData)},
		{"behind the bind mount", layout.RancherState + "/rke2/config.yaml", own(layout.RancherState + "/rke2/config.yaml")},
		{"verified root", "/usr/lib/x", readOnly("/usr/lib/x")},
		{"link into the root", "/bin/sh", readOnly("/bin/sh")},
		{"home of root", "/root/.profile", readOnly("/root/.profile")},
		{"the folder itself", "/etc", readOnly("/etc")},
		{"nearly /etc", "/etcetera/a", readOnly("/etcetera/a")},
		{"the root", "/", readOnly("/")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, entry("path: '"+tt.path+"', content: x"), tt.want)
			if written := len(cfg.Files) == 1; written != (tt.want == "") {
				t.Errorf("got %v, want it written: %v", cfg.Files, tt.want == "")
			}
		})
	}
}

func TestWriteFilesFields(t *testing.T) {
	const at = "FATAL ud: line 3: write_files[0]"
	const mode = "is not a file mode; write it in quotes, like '0644' (no setuid, setgid or sticky bit)"
	const known = "remove it, or use one of append, content, defer, encoding, owner, path, permissions"
	const owner = "does not exist on a node; leave owner out, or write root:root"
	tests := []struct{ name, fields, want string }{
		{"owner root", "owner: root", ""},
		{"owner by number", "owner: '0:0'", ""},
		{"owner by plain number", "owner: 0", ""},
		{"other group", "owner: 'root:adm'", at + `.owner: "root:adm" ` + owner},
		{"empty group", "owner: 'root:'", at + `.owner: "root:" ` + owner},
		{"owner is a list", "owner: [root]", at + ".owner: is a list where a text is wanted"},
		{"mode of Go", "permissions: '0o640'", ""},
		{"mode without zero", "permissions: '640'", ""},
		{"mode as YAML 1.2 octal", "permissions: 0o640", ""},
		{"decimal mode", "permissions: 644", at + `.permissions: "644" ` + mode},
		{"sticky", "permissions: '1777'", at + `.permissions: "1777" ` + mode},
		{"symbolic", "permissions: u=rw", at + `.permissions: "u=rw" ` + mode},
		{"not octal", "permissions: '0888'", at + `.permissions: "0888" ` + mode},
		{"negative", "permissions: '-1'", at + `.permissions: "-1" ` + mode},
		{"only the prefix", "permissions: 0o", at + `.permissions: "0o" ` + mode},
		{"append", "append: maybe", at + ".append: is a text where true or false is wanted"},
		{"defer", "defer: {}", at + ".defer: is a map where true or false is wanted"},
		{"fetched", "source: {uri: 'https://a'}", at + ".source: is not supported: nothing is fetched at boot; put the text into content"},
		{"unknown", "mode: '0644'", at + ".mode: is not a key of write_files[0]; " + known},
		{"nothing alike", "selinux_context: x", at + ".selinux_context: is not a key of write_files[0]; " + known},
		{"a slip", "permission: '0644'", at + ".permission: is not a key of write_files[0]; did you mean permissions?"},
		{"content is a list", "content: [a]", at + ".content: is a list where a text is wanted"},
		{"encoding", "content: x, encoding: rot13", at + `.content: has the encoding "rot13"; use text/plain, b64, gzip or gz+b64`},
		{"encoding is a map", "encoding: {}", at + ".encoding: is a map where a text is wanted"},
		{"every mistake at once", "owner: a, permissions: b", at + `.owner: "a" ` + owner + "\n" + at + `.permissions: "b" ` + mode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, entry("path: /etc/a, "+tt.fields), tt.want)
			if written := len(cfg.Files) == 1; written != (tt.want == "") {
				t.Errorf("got %v, want it written: %v", cfg.Files, tt.want == "")
			}
		})
	}
}

func TestWriteFilesShape(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "write_files:\n", ""},
		{"a map", "write_files: {path: /etc/a}\n", `FATAL ud: line 2: write_files: is a map where a list is wanted; begin its lines with "- "`},
		{"a text in the list", "write_files:\n- /etc/a\n", "FATAL ud: line 3: write_files[0]: is a text where a map with path and content is wanted"},
		{"nothing in the list", "write_files:\n-\n", "FATAL ud: line 3: write_files[0]: is empty where a map with path and content is wanted"},
		{"empty path", "write_files:\n- {path: ''}\n", "FATAL ud: line 3: write_files[0]: has no path; add the absolute path of the file"},
		{"second entry", "write_files:\n- {path: /etc/a}\n\n- {path: b}\n", `FATAL ud: line 5: write_files[1].path: "b" is not a plain absolute path of a file`},
		{"path twice", "write_files:\n- path: /etc/a\n  path: /etc/b\n", "FATAL ud: line 4: write_files[0].path: is given twice, first in line 3; keep one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, tt.text, tt.want) })
	}
}

func TestWriteFilesContent(t *testing.T) {
	packed := zip(t, "hello")
	folded := b64("hello")[:4] + "\n    " + b64("hello")[4:]
	tests := []struct {
		name, fields, want string
		mode               fs.FileMode
	}{
		{"no content", "path: /etc/a", "", 0o644},
		{"null content", "path: /etc/a, content: ", "", 0o644},
		{"null content with encoding", "path: /etc/a, content: ~, encoding: b64", "", 0o644},
		{"a number stays as written", "path: /etc/a, content: 0x10", "0x10", 0o644},
		{"true stays as written", "path: /etc/a, content: yes", "yes", 0o644},
		{"plain", "path: /etc/a, content: hello, encoding: plain", "hello", 0o644},
		{"base64 in lines", "path: /etc/a, encoding: base64, content: '" + folded + "'", "hello", 0o644},
		{"upper case", "path: /etc/a, content: " + b64("hello") + ", encoding: B64", "hello", 0o644},
		{"gz+base64", "path: /etc/a, content: " + b64(packed) + ", encoding: gz+base64", "hello", 0o644},
		{"gzip+base64", "path: /etc/a, content: " + b64(packed) + ", encoding: gzip+base64", "hello", 0o644},
		{"gzip+b64", "path: /etc/a, content: " + b64(packed) + ", encoding: gzip+b64", "hello", 0o644},
		{"binary", "path: /etc/a, content: !!binary " + b64("hello"), "hello", 0o644},
		{"binary said to be plain", "path: /etc/a, content: !!binary " + b64("hello") + ", encoding: text/plain", "hello", 0o644},
		{"binary before its encoding", "path: /etc/a, content: !!binary " + b64(packed) + ", encoding: gzip", "hello", 0o644},
		{"binary after its encoding", "path: /etc/a, encoding: gz, content: !!binary " + b64(packed), "hello", 0o644},
		{"binary of base64", "path: /etc/a, encoding: b64, content: !!binary " + b64(b64("hello")), "hello", 0o644},
		{"mode of YAML 1.1", "path: /etc/a, permissions: 0600", "", 0o600},
		{"no rights at all", "path: /etc/a, permissions: '0'", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := said(t, entry(tt.fields), "")
			if len(cfg.Files) != 1 {
				t.Fatalf("got %v, want one file", cfg.Files)
			}
			f := cfg.Files[0]
			if string(f.Data) != tt.want || f.Mode != tt.mode || f.Source != "ud" || f.Line != 3 || f.Append || f.Defer {
				t.Errorf("got %q and %+v, want %q, mode %o, line 3", f.Data, f, tt.want, tt.mode)
			}
		})
	}
}

func TestWriteFilesContentRefused(t *testing.T) {
	tests := []struct{ name, fields, want string }{
		{"base64 cut short", "encoding: b64, content: aGVsbG8", "is not valid base64: illegal base64 data at input byte 4; encode it anew"},
		{"binary cut short", "content: !!binary aGVsbG8", "is not valid base64: illegal base64 data at input byte 4; encode it anew"},
		{"gzip cut short", "encoding: gz+b64, content: " + b64(zip(t, "hello")[:15]), "is not valid gzip: unexpected EOF; binary content needs the encoding gz+b64"},
		{"something behind the gzip", "encoding: gz+b64, content: " + b64(zip(t, "hello")+"x"), "is not valid gzip: unexpected EOF"},
		{"gzip as text", "encoding: gzip, content: hello", "is not valid gzip: "},
		{"gzip bomb", "encoding: gz+b64, content: " + b64(zip(t, strings.Repeat("\x00", maxUnpacked+1))), "is not valid gzip: larger than 8 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := Load(user("#cloud-config\n" + entry("path: /etc/a, "+tt.fields)))
			got, want := render(problems), "FATAL ud: line 3: write_files[0].content: "+tt.want
			if !strings.HasPrefix(got, want) || len(problems) != 1 || len(cfg.Files) > 0 {
				t.Errorf("got %s and %d files, want %s and none", got, len(cfg.Files), want)
			}
		})
	}
}

// A mistake inside a file that node will read is found here, by its own line.
func TestSettingsInFilesAreJudged(t *testing.T) {
	const wrong = "\n  content: |\n    debug: true\n    tokn: x\n"
	tests := []struct{ name, text, want string }{
		{"main file", "- path: /etc/rancher/rke2/config.yaml" + wrong,
			"FATAL ud: content of /etc/rancher/rke2/config.yaml: line 2: tokn: is not a known key; did you mean token?"},
		{"addition", "- path: /etc/rancher/rke2/config.yaml.d/9.yml" + wrong,
			"FATAL ud: content of /etc/rancher/rke2/config.yaml.d/9.yml: line 2: tokn: is not a known key; did you mean token?"},
		{"other folder below", "- path: /etc/rancher/rke2/config.yaml.d/a/9.yaml" + wrong, ""},
		{"not YAML by name", "- path: /etc/rancher/rke2/config.yaml.d/README" + wrong, ""},
		{"a piece of the file", "- path: /etc/rancher/rke2/config.yaml\n  append: true" + wrong, ""},
		{"broken", "- path: /etc/rancher/rke2/config.yaml\n  content: 'a: {'\n",
			"FATAL ud: content of /etc/rancher/rke2/config.yaml: line 1: not valid YAML: did not find expected node content; correct the indentation, quoting or brackets there"},
		{"empty", "- path: /etc/rancher/rke2/config.yaml\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { said(t, "write_files:\n"+tt.text, tt.want) })
	}
}
