package apt

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Package is one version of one Debian package as the signed index describes it.
type Package struct {
	Name    string
	Version string
	SHA256  string
	Size    int64
	Depends []string // names only, alternatives flattened, in the order of the field
}

// LoadIndex parses what `apt-cache show` prints: the stanzas of a Packages file (deb-control(5)). A stanza without SHA256 is of
// a package installed by hand, which no archive vouches for; it is left out.
func LoadIndex(text string) ([]Package, error) {
	var out []Package
	for _, stanza := range paragraphs(text) {
		var p Package
		for _, line := range strings.Split(stanza, "\n") {
			if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
				continue
			}
			key, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("parse package index: line %q has no colon", line)
			}
			value = strings.TrimSpace(value)
			switch key {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "SHA256":
				p.SHA256 = value
			case "Size":
				size, err := strconv.ParseInt(value, 10, 64)
				if err != nil || size < 0 {
					return nil, fmt.Errorf("parse package index: size %q of package %s is no size", value, p.Name)
				}
				p.Size = size
			case "Depends":
				p.Depends = dependsOf(value)
			}
		}
		if p.SHA256 == "" {
			continue
		}
		if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != 32 || p.Name == "" || p.Version == "" {
			return nil, fmt.Errorf("parse package index: stanza of %q %q has no sound SHA256 (%q)", p.Name, p.Version, p.SHA256)
		}
		out = append(out, p)
	}
	return out, nil
}

// dependsOf reads "a (= 1) | b, c:any" as a, b, c.
func dependsOf(value string) []string {
	var out []string
	for _, group := range strings.Split(value, ",") {
		for _, one := range strings.Split(group, "|") {
			fields := strings.Fields(one)
			if len(fields) > 0 {
				name, _, _ := strings.Cut(fields[0], ":")
				out = append(out, name)
			}
		}
	}
	return out
}
