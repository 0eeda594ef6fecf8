package sbom

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func document() Document {
	module := Component{Kind: Module, Name: "github.com/Azure/go-ansiterm", Version: "v0.0.0-2+incompatible"}
	library := Component{Kind: Library, Name: "libseccomp-dev", Version: "2.5.4-1", Arch: "amd64", Source: "libseccomp 2.5.4-1", Licence: "LGPL-2.1-only"}
	return Document{
		Name: "keelson-amd64", Version: "20231114.221320", Suite: "bookworm", Time: time.Unix(1700000000, 0),
		Components: []Component{
			{Kind: Program, Name: "runc", Version: "20231114.221320", SHA256: strings.Repeat("ab", 32), Uses: []string{module.ID(), library.ID()}},
			module, module, library,
			{Kind: Debian, Name: "libgmp10", Version: "2:6.2.1+dfsg1-1.1", Arch: "amd64", Source: "gmp 2:6.2.1+dfsg1-1.1", Licence: "MIT OR ISC", SHA256: strings.Repeat("cd", 32)},
			{Kind: Debian, Name: "tzdata", Version: "2026f", Arch: "amd64"},
		},
	}
}

func TestPURL(t *testing.T) {
	for _, c := range []struct {
		in   Component
		want string
	}{
		{Component{Kind: Debian, Name: "libgmp10", Version: "2:6.2.1+dfsg1", Arch: "arm64"}, "pkg:deb/debian/libgmp10@2:6.2.1%2Bdfsg1?arch=arm64&distro=bookworm"},
		{Component{Kind: Debian, Name: "libstdc++6", Version: "12~1", Arch: "amd64"}, "pkg:deb/debian/libstdc%2B%2B6@12~1?arch=amd64&distro=bookworm"},
		{Component{Kind: Module, Name: "github.com/Azure/x", Version: "v1.0.0+incompatible"}, "pkg:golang/github.com/azure/x@v1.0.0%2Bincompatible"},
		{Component{Kind: Module, Name: "stdlib", Version: "1.26.8"}, "pkg:golang/stdlib@1.26.8"},
		{Component{Kind: Library, Name: "libseccomp-dev", Version: "2.5.4-1", Arch: "arm64"}, "pkg:deb/debian/libseccomp-dev@2.5.4-1?arch=arm64&distro=bookworm"},
		{Component{Kind: Program, Name: "runc", Version: "1"}, ""},
	} {
		if got := c.in.PURL("bookworm"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.in.ID(), got, c.want)
		}
	}
}

// decode returns the document as maps, as a stranger reads it.
func decode(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What the SPDX 2.3 schema asks for: required fields, their patterns, and
// references that lead somewhere.
func TestSPDX(t *testing.T) {
	text, err := document().SPDX()
	if err != nil {
		t.Fatal(err)
	}
	d := decode(t, text)
	for name, want := range map[string]string{
		"spdxVersion": `^SPDX-2\.3$`, "dataLicense": `^CC0-1\.0$`, "SPDXID": `^SPDXRef-DOCUMENT$`, "name": `^keelson-amd64-2`,
		"documentNamespace": `^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`,
	} {
		if got, _ := d[name].(string); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: got %q, want %s", name, got, want)
		}
	}
	if created := d["creationInfo"].(map[string]any)["created"]; created != "2023-11-14T22:13:20Z" {
		t.Errorf("created: got %v", created)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	byName := map[string]map[string]any{}
	for _, one := range d["packages"].([]any) {
		p := one.(map[string]any)
		id := p["SPDXID"].(string)
		if ids[id] || !regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`).MatchString(id) {
			t.Errorf("package id %q is not one, or there twice", id)
		}
		ids[id] = true
		byName[p["name"].(string)] = p
		for _, field := range []string{"downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText", "supplier"} {
			if p[field] == "" || p[field] == nil {
				t.Errorf("%s: no %s", id, field)
			}
		}
		if !slices.Contains([]string{"OPERATING-SYSTEM", "APPLICATION", "LIBRARY", "INSTALL"}, p["primaryPackagePurpose"].(string)) {
			t.Errorf("%s: purpose %v", id, p["primaryPackagePurpose"])
		}
	}
	if len(byName) != 6 {
		t.Errorf("%d packages, want the image, two of Debian, a program, a module and a library", len(byName))
	}
	if p := byName["libseccomp-dev"]; p["primaryPackagePurpose"] != "LIBRARY" || p["supplier"] != "Organization: Debian" || p["licenseDeclared"] != "LGPL-2.1-only" {
		t.Errorf("libseccomp-dev: %v", p)
	}
	if p := byName["libgmp10"]; p["licenseDeclared"] != "MIT OR ISC" || p["sourceInfo"] != "built from Debian source package gmp 2:6.2.1+dfsg1-1.1" {
		t.Errorf("libgmp10: %v", p)
	}
	contains := 0
	for _, one := range d["relationships"].([]any) {
		r := one.(map[string]any)
		if !ids[r["spdxElementId"].(string)] || !ids[r["relatedSpdxElement"].(string)] {
			t.Errorf("relationship leads nowhere: %v", r)
		}
		if r["relationshipType"] == "CONTAINS" {
			contains++
		}
	}
	if contains != 5 {
		t.Errorf("%d things are contained, want 3 by the image and 2 by the program", contains)
	}
}

func TestCycloneDX(t *testing.T) {
	text, err := document().CycloneDX()
	if err != nil {
		t.Fatal(err)
	}
	d := decode(t, text)
	if d["bomFormat"] != "CycloneDX" || d["specVersion"] != "1.6" || d["version"] != float64(1) ||
		!regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(d["serialNumber"].(string)) {
		t.Errorf("head: %v %v %v %v", d["bomFormat"], d["specVersion"], d["version"], d["serialNumber"])
	}
	refs := map[string]bool{"image": true}
	for _, one := range d["components"].([]any) {
		c := one.(map[string]any)
		ref := c["bom-ref"].(string)
		if refs[ref] {
			t.Errorf("bom-ref %s is there twice", ref)
		}
		refs[ref] = true
		if !slices.Contains([]string{"library", "application"}, c["type"].(string)) || c["name"] == "" {
			t.Errorf("component: %v", c)
		}
		if hashes, ok := c["hashes"].([]any); ok && !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(hashes[0].(map[string]any)["content"].(string)) {
			t.Errorf("%s: hash %v", ref, hashes)
		}
	}
	seen := map[string]bool{}
	for _, one := range d["dependencies"].([]any) {
		dep := one.(map[string]any)
		if ref := dep["ref"].(string); !refs[ref] || seen[ref] {
			t.Errorf("dependency of %s", ref)
		}
		seen[dep["ref"].(string)] = true
		for _, on := range dep["dependsOn"].([]any) {
			if !refs[on.(string)] {
				t.Errorf("%v depends on %v, which is not there", dep["ref"], on)
			}
		}
	}
	if len(refs) != 6 || !seen["image"] || !seen["program/runc@20231114.221320"] {
		t.Errorf("components %v, dependencies %v", refs, seen)
	}
}

// The order in which things are found must not show.
func TestDeterministic(t *testing.T) {
	a, b := document(), document()
	for _, render := range []func(Document) ([]byte, error){Document.SPDX, Document.CycloneDX} {
		one, errOne := render(a)
		two, errTwo := render(b)
		if errOne != nil || errTwo != nil || !bytes.Equal(one, two) {
			t.Errorf("two documents of the same differ: %v, %v", errOne, errTwo)
		}
		b.Version = "another"
		if two, _ = render(b); bytes.Equal(one, two) {
			t.Error("another version: the same document")
		}
		b.Version = a.Version
	}
}

func TestLicence(t *testing.T) {
	const head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
	for _, c := range []struct{ name, text, want string }{
		{"all files", head + "Files: *\nCopyright: x\nLicense: GPL-2+\n", "GPL-2.0-or-later"},
		{"not the part", head + "Files: debian/*\nLicense: GPL-2\n\nFiles: *\nLicense: Expat\n", "MIT"},
		{"choice", head + "Files: *\nLicense: GPL-2+ or LGPL-3+\n", "GPL-2.0-or-later OR LGPL-3.0-or-later"},
		{"unknown", head + "Files: *\nLicense: binary-redist\n", ""},
		{"unknown among known", head + "Files: *\nLicense: GPL-2 and binary-redist\n", ""},
		{"two names without a word", head + "Files: *\nLicense: GPL-2 Expat\n", ""},
		{"operator at the end", head + "Files: *\nLicense: GPL-2 or\n", ""},
		{"free form", "This package is under the GPL.\nFiles: *\nLicense: GPL-2\n", ""},
		{"nothing", "", ""},
	} {
		if got := Licence(c.text); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestReadDebian(t *testing.T) {
	dir := t.TempDir()
	docs := filepath.Join(dir, "usr/share/doc/libgmp10")
	if err := os.MkdirAll(docs, 0o755); err != nil {
		t.Fatal(err)
	}
	bare, err := ReadDebian(Component{Name: "libgmp10"}, dir)
	if err != nil || bare.Source != "" || bare.Licence != "" {
		t.Errorf("no files: got %+v, %v", bare, err)
	}
	if err := os.WriteFile(filepath.Join(docs, "copyright"), []byte("Format: x\n\nFiles: *\nLicense: ISC\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte("gmp (2:6.2.1+dfsg1-1.1) unstable; urgency=medium\n\n  * x\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(docs, "changelog.Debian.gz")
	if err := os.WriteFile(log, z.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadDebian(Component{Name: "libgmp10"}, dir)
	if err != nil || got.Source != "gmp 2:6.2.1+dfsg1-1.1" || got.Licence != "ISC" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(log, []byte("no gzip"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDebian(Component{Name: "libgmp10"}, dir); err == nil {
		t.Error("a broken changelog: got no error")
	}
}

func TestReadProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadProgram("self", "1", self, "sum")
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Kind != Program || got[1].Name != "stdlib" || len(got[0].Uses) != len(got)-1 {
		t.Errorf("got %+v", got)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadProgram("text", "1", text, ""); err == nil {
		t.Error("a text: got no error")
	}
}

func FuzzLicence(f *testing.F) {
	f.Add("Format: x\n\nFiles: *\nLicense: GPL-2+ or LGPL-3+\n")
	allowed := regexp.MustCompile(`^([A-Za-z0-9.-]+( (OR|AND) [A-Za-z0-9.-]+)*)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		if got := Licence(text); !allowed.MatchString(got) {
			t.Fatalf("no SPDX expression: %q", got)
		}
		if got := sourceOf(text); got != "" && strings.Count(got, " ") != 1 {
			t.Fatalf("no source: %q", got)
		}
	})
}
