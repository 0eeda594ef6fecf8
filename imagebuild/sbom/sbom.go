// Package sbom writes bills of materials: what is in an image, as SPDX 2.3 and
// as CycloneDX 1.6, from one model.
//
// It reads copyright and changelog files of unpacked Debian packages and the
// build information of Go programs; it guesses nothing: what cannot be derived
// is left open in the way that each format has for it. The same components and
// time give the same bytes. The builder puts both files into the image and
// beside it.
//
// Formats: spdx.github.io/spdx-spec/v2.3; cyclonedx.org/docs/1.6; package URLs
// as package-url/purl-spec has them.
package sbom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"

	"keelson/imagebuild/guid"
)

// Kind says what a component is.
type Kind string

// Kinds of components.
const (
	Debian  Kind = "deb"     // a Debian package
	Program Kind = "program" // a Go program
	Module  Kind = "module"  // a Go module that a program is made of
	Library Kind = "library" // a library in a Debian package that is linked into a program
)

// Component is one thing in the image.
type Component struct {
	Kind    Kind
	Name    string
	Version string
	Arch    string   // Debian packages and libraries of them
	Source  string   // of these: source package and its version
	Licence string   // an SPDX expression, "" where it cannot be derived
	SHA256  string   // of the package or the program; "" of modules
	Uses    []string // programs: IDs of their modules and libraries
}

// inside says that a component is a part of programs and not there for itself.
func (c Component) inside() bool { return c.Kind == Module || c.Kind == Library }

// ID names a component within a document.
func (c Component) ID() string { return string(c.Kind) + "/" + c.Name + "@" + c.Version }

// PURL is the package URL, "" where there is none.
func (c Component) PURL(suite string) string {
	switch c.Kind {
	case Debian, Library:
		return "pkg:deb/debian/" + escape(c.Name) + "@" + escape(c.Version) + "?arch=" + c.Arch + "&distro=" + suite
	case Module:
		var parts []string
		for _, p := range strings.Split(strings.ToLower(c.Name), "/") {
			parts = append(parts, escape(p))
		}
		return "pkg:golang/" + strings.Join(parts, "/") + "@" + escape(c.Version)
	}
	return ""
}

// escape is the percent-encoding of package URLs.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~:", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Document is one image's bill.
type Document struct {
	Name, Version string
	Suite         string // of the Debian packages
	Time          time.Time
	Components    []Component
}

// sorted are the components without repetition, in a fixed order.
func (d Document) sorted() []Component {
	seen := map[string]bool{}
	var out []Component
	for _, c := range d.Components {
		if !seen[c.ID()] {
			seen[c.ID()] = true
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID() < out[j].ID() })
	return out
}

// id is a UUID of the content.
func (d Document) id(format string) (string, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	return guid.Derive(text, format).String(), nil
}

func (d Document) stamp() string { return d.Time.UTC().Format(time.RFC3339) }

const tool = "keelson-imagebuild"

func render(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("sbom: %w", err)
	}
	return b.Bytes(), nil
}

var notInSPDXID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func spdxID(c Component) string { return "SPDXRef-" + notInSPDXID.ReplaceAllString(c.ID(), "-") }
