package userdata

import (
	"fmt"
	"strings"
	"testing"
)

// mixed is a MIME document of parts, each with its header lines.
func mixed(parts ...string) string {
	text := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"xx\"\n\n"
	for _, p := range parts {
		text += "--xx\n" + p + "\n"
	}
	return text + "--xx--\n"
}

const cloudType = "Content-Type: text/cloud-config\n"

// What is no cloud-config is refused by what it is, in every form it comes in.
func TestRefusals(t *testing.T) {
	const (
		script  = "is a script; a node has no shell to run it. Give a #cloud-config document instead"
		include = "is a list of addresses to include, which are not fetched. Put the #cloud-config itself here"
		jinja   = "is a jinja template, which is not rendered here. Give the #cloud-config it would become"
		hook    = "is a boothook, a script; a node has no shell to run it. Give a #cloud-config document instead"
		archive = "is a cloud-config archive, which is not understood. Use a MIME multipart document"
		patch   = "is a JSON patch, which is not understood. Give a #cloud-config document"
		code    = "is code for cloud-init, which a node does not run. Give a #cloud-config document"
		nearly  = "begins with nearly the right words; the first line must be exactly #cloud-config"
		unknown = "is in no format known here; the first line must be exactly #cloud-config"
	)
	tests := []struct{ name, text, want string }{
		{"script", "#!/bin/sh\n", script},
		{"python", "#!/usr/bin/env python3\n", script},
		{"script with a mark", "\xef\xbb\xbf#!/bin/sh\n", script},
		{"script in gzip", zip(t, "#!/bin/sh\n"), script},
		{"include", "#include\nhttps://a.example\n", include},
		{"include once", "#include-once\nhttps://a.example\n", include},
		{"jinja", "## template: jinja\n#cloud-config\n", jinja},
		{"boothook", "#cloud-boothook\n", hook},
		{"archive", "#cloud-config-archive\n- a\n", archive},
		{"json patch", "#cloud-config-jsonp\n[]\n", patch},
		{"part handler", "#part-handler\n", code},
		{"upstart", "#upstart-job\n", code},
		{"blank", "# cloud-config\n", nearly},
		{"upper case", "#Cloud-Config\n", nearly},
		{"more words", "#cloud-config for node 1\n", nearly},
		{"the line comes second", "\n#cloud-config\n", unknown},
		{"ignition", `{"ignition": {"version": "3.4.0"}}` + "\n", unknown},
		{"zeroes", strings.Repeat("\x00", 300), unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Load(user(tt.text))
			if got, want := render(problems), "FATAL ud: line 1: "+tt.want; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// The type in a part's header says as much as its first line.
func TestPartTypes(t *testing.T) {
	const whole = "\nhostname: a\n"
	tests := []struct{ name, part, want string }{
		{"cloud-config without first line", cloudType + whole, ""},
		{"parameters", "Content-Type: text/cloud-config; charset=\"us-ascii\"\n" + whole, ""},
		{"plain text that is one", "Content-Type: text/plain\n\n#cloud-config\nhostname: a\n", ""},
		{"no type", "\n#cloud-config\nhostname: a\n", ""},
		{"damaged type", "Content-Type: /\n\n#cloud-config\nhostname: a\n", ""},
		{"quoted-printable", cloudType + "Content-Transfer-Encoding: quoted-printable\n\nhostname=3A a\n", ""},
		{"7bit", cloudType + "Content-Transfer-Encoding: 7bit\n" + whole, ""},
		{"Base64", cloudType + "Content-Transfer-Encoding: Base64\n\n" + b64("hostname: a\n") + "\n", ""},
		{"gzip in base64", cloudType + "Content-Transfer-Encoding: base64\n\n" + b64(zip(t, "hostname: a\n")) + "\n", ""},
		{"shell script", "Content-Type: text/x-shellscript\n\necho\n", "FATAL ud: part 1: line 1: is a script; a node has no shell to run it. Give a #cloud-config document instead"},
		{"include", "Content-Type: text/x-include-url\n\nhttps://a\n", "FATAL ud: part 1: line 1: is a list of addresses to include, which are not fetched. Put the #cloud-config itself here"},
		{"include once", "Content-Type: text/x-include-once-url\n\nhttps://a\n", "FATAL ud: part 1: line 1: is a list of addresses to include, which are not fetched. Put the #cloud-config itself here"},
		{"jinja", "Content-Type: text/jinja2\n\na\n", "FATAL ud: part 1: line 1: is a jinja template, which is not rendered here. Give the #cloud-config it would become"},
		{"boothook", "Content-Type: text/cloud-boothook\n\na\n", "FATAL ud: part 1: line 1: is a boothook, a script; a node has no shell to run it. Give a #cloud-config document instead"},
		{"archive", "Content-Type: text/cloud-config-archive\n\na\n", "FATAL ud: part 1: line 1: is a cloud-config archive, which is not understood. Use a MIME multipart document"},
		{"json patch", "Content-Type: text/cloud-config-jsonp\n\n[]\n", "FATAL ud: part 1: line 1: is a JSON patch, which is not understood. Give a #cloud-config document"},
		{"part handler", "Content-Type: text/part-handler\n\na\n", "FATAL ud: part 1: line 1: is code for cloud-init, which a node does not run. Give a #cloud-config document"},
		{"some text", "Content-Type: text/html\n\na\n", `FATAL ud: part 1: line 1: has the type "text/html", which is not understood. Use text/cloud-config`},
		{"file name", cloudType + "Content-Disposition: attachment; filename=\"a.yaml\"\n\nhostname: [a]\n",
			`FATAL ud: part 1 ("a.yaml"): line 1: hostname: is a list where a text is wanted`},
		{"bad base64", cloudType + "Content-Transfer-Encoding: base64\n\n****\n",
			"FATAL ud: part 1: MIME body: illegal base64 data at input byte 0; the document is cut short or its boundary is wrong"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := Load(user(mixed(tt.part)))
			if got := render(problems); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if tt.want == "" && cfg.Hostname != "a" {
				t.Errorf("got the host name %q, want a", cfg.Hostname)
			}
		})
	}
}

func TestDamagedMIME(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no boundary", "Content-Type: multipart/mixed\n\n--xx\n\n#cloud-config\n--xx--\n", "FATAL ud: MIME part 1: "},
		{"other boundary", strings.ReplaceAll(mixed(cloudType+"\na: b\n"), "--xx", "--yy"), "FATAL ud: MIME part 1: multipart: NextPart: EOF; the document is cut short or its boundary is wrong"},
		{"no end", strings.TrimSuffix(mixed(cloudType+"\na: b\n"), "--xx--\n"), "FATAL ud: part 1: MIME body: unexpected EOF; the document is cut short or its boundary is wrong"},
		{"type", "Content-Type: ;\n\na\n", "FATAL ud: MIME header Content-Type: mime: no media type"},
		{"header", "Content-Type: text/plain\nno colon\n\na\n", "FATAL ud: MIME header: malformed MIME header: missing colon: \"no colon\"; write it anew, for instance by cloud-init devel make-mime"},
		{"only the version", "MIME-Version: 1.0\n\na\n", "FATAL ud: MIME header Content-Type: mime: no media type"},
		{"damaged base64 of the whole", cloudType + "Content-Transfer-Encoding: base64\n\n****", "FATAL ud: MIME body: illegal base64 data at input byte 0"},
		{"gzip head alone", "\x1f\x8b", "FATAL ud: gzip: unexpected EOF; compress it anew"},
		{"gzip cut short", zip(t, "#cloud-config\nhostname: a\n")[:20], "FATAL ud: gzip: unexpected EOF; compress it anew"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, problems := Load(user(tt.text))
			if got := render(problems); !strings.HasPrefix(got, tt.want) || len(problems) != 1 || cfg.Hostname != "" {
				t.Errorf("got\n%s\nand %q, want\n%s", got, cfg.Hostname, tt.want)
			}
		})
	}
}

// Later parts win over earlier ones, as later documents do.
func TestPartsAreMergedInOrder(t *testing.T) {
	text := mixed(cloudType+"\nhostname: a\nrke2: {tls-san: [a], debug: true}\n", "Content-Type: text/x-shellscript\n\n#!/bin/sh\n", cloudType+"\nhostname: b\nrke2: {tls-san: [b]}\n")
	cfg, problems := Load(user(text))
	if got, want := render(problems), "note ud: part 2: line 1: is a script; a node has no shell to run it. Give a #cloud-config document instead (passed over)"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(cfg.Files[0].Data); cfg.Hostname != "b" || !strings.HasSuffix(got, "\ntls-san: [b]\ndebug: true\n") {
		t.Errorf("got %q and %q, want b and its list beside debug", cfg.Hostname, got)
	}
}

func TestBoundsOfUnpacking(t *testing.T) {
	nested := "#cloud-config\nhostname: a\n"
	for range maxDepth {
		nested = zip(t, nested)
	}
	full := cloudType + "\n#" + strings.Repeat("a", maxUnpacked/4) + "\n"
	tests := []struct{ name, text, want string }{
		{"deepest box", nested, ""},
		{"one box more", zip(t, nested), "FATAL ud: holds more than 64 parts, or boxes in boxes; split it"},
		{"most parts", mixed(strings.Split(strings.Repeat("\n#cloud-config\nhostname: a\n|", maxParts-1), "|")[:maxParts-1]...), ""},
		{"one part more", mixed(strings.Split(strings.Repeat("\n#cloud-config\nhostname: a\n|", maxParts), "|")[:maxParts]...),
			"FATAL ud: part 64: holds more than 64 parts, or boxes in boxes; split it"},
		{"a flood of parts says it once", mixed(strings.Split(strings.Repeat("\n#cloud-config\nhostname: a\n|", 4000), "|")[:4000]...),
			"FATAL ud: part 64: holds more than 64 parts, or boxes in boxes; split it"},
		{"parts fit alone but not together", zip(t, mixed(full, full, full)) + "", ""},
		{"too large together", mixed(gz(t, full), gz(t, full), gz(t, full), gz(t, full)), "FATAL ud: part 4: the parts are larger than 8 MiB in all; make them smaller"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Load(user(tt.text))
			if got := render(problems); got != tt.want {
				t.Errorf("got\n%.300s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// gz is a part whose body is gzip in base64.
func gz(t *testing.T, part string) string {
	t.Helper()
	header, body, _ := strings.Cut(part, "\n\n")
	return fmt.Sprintf("%s\nContent-Transfer-Encoding: base64\n\n%s\n", header, b64(zip(t, body)))
}

func TestEmptyDocumentsSayNothing(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "blank": " \n\t\n", "mark alone": "\xef\xbb\xbf", "empty gzip": zip(t, ""),
		"comments": "#cloud-config\n# nothing\n", "null": "#cloud-config\n~\n", "empty map": "#cloud-config\n{}\n", "empty part": mixed(cloudType + "\n")} {
		t.Run(name, func(t *testing.T) {
			cfg, problems := Load(user(text))
			if len(problems) > 0 || cfg.Role != RoleServer || len(cfg.Files) > 0 {
				t.Errorf("got %v and %+v, want nothing said and nothing set", problems, cfg)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte(mixed(cloudType+"\na: b\n", "\n#!/bin/sh\n")))
	f.Add([]byte(zip(f, mixed("Content-Transfer-Encoding: base64\n\nYQ==\n"))))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\n#include\n--c--\n--b--\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u := unpack(Document{Source: "s", Data: data})
		size := 0
		for _, p := range u.parts {
			size += len(p.data)
			if !strings.HasPrefix(p.source, "s") {
				t.Errorf("part of %q", p.source)
			}
		}
		if size > maxUnpacked || len(u.parts) > maxParts || len(u.broken) > 1 && u.seen <= maxParts {
			t.Errorf("%d parts of %d bytes, broken %v", len(u.parts), size, u.broken)
		}
	})
}
