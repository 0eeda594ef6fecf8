package sbom

import (
	"bufio"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// ReadDebian fills in source and licence of a package from its unpacked files.
func ReadDebian(c Component, dir string) (Component, error) {
	docs := filepath.Join(dir, "usr/share/doc", c.Name)
	text, err := os.ReadFile(filepath.Join(docs, "copyright"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("sbom: %s: %w", c.Name, err)
	}
	c.Licence = Licence(string(text))
	for _, name := range []string{"changelog.Debian.gz", "changelog.gz"} {
		line, err := firstLine(filepath.Join(docs, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("sbom: %s: %w", c.Name, err)
		}
		if source := sourceOf(line); source != "" {
			c.Source = source
			break
		}
	}
	return c, nil
}

func firstLine(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(z, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return line, nil
}

// headline is the first line of an entry: deb-changelog(5).
var headline = regexp.MustCompile(`^([a-z0-9][a-z0-9+.-]+) \(([^() \t]+)\) [^;]*; urgency=`)

func sourceOf(line string) string {
	m := headline.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1] + " " + m[2]
}

// Licence is what a machine-readable copyright file (Debian's copyright-format
// 1.0) says of all files ("Files: *"), as an SPDX expression; "" where it says
// nothing that SPDX has a name for.
func Licence(copyright string) string {
	if !strings.HasPrefix(copyright, "Format:") && !strings.HasPrefix(copyright, "Format-Specification:") {
		return ""
	}
	for _, paragraph := range strings.Split(strings.ReplaceAll(copyright, "\r", ""), "\n\n") {
		files, licence := field(paragraph, "Files"), field(paragraph, "License")
		if strings.TrimSpace(files) == "*" && licence != "" {
			return expression(licence)
		}
	}
	return ""
}

func field(paragraph, name string) string {
	for line := range strings.Lines(paragraph) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// expression translates Debian's short names; one that is not known makes the
// whole unknown.
func expression(s string) string {
	known := map[string]string{
		"gpl-1": "GPL-1.0-only", "gpl-1+": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later",
		"gpl-3": "GPL-3.0-only", "gpl-3+": "GPL-3.0-or-later", "lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later",
		"lgpl-2.1": "LGPL-2.1-only", "lgpl-2.1+": "LGPL-2.1-or-later", "lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later",
		"expat": "MIT", "mit": "MIT", "isc": "ISC", "x11": "X11", "mit/x11": "X11", "zlib": "Zlib", "mpl-2.0": "MPL-2.0",
		"apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
		"cc0-1.0": "CC0-1.0",
	}
	var out []string
	for _, word := range strings.Fields(s) {
		switch word {
		case "or", "and":
			out = append(out, strings.ToUpper(word))
		default:
			id, ok := known[strings.ToLower(word)]
			if !ok {
				return ""
			}
			out = append(out, id)
		}
	}
	// Names and operators take turns.
	for i, word := range out {
		if (word == "OR" || word == "AND") != (i%2 == 1) {
			return ""
		}
	}
	if len(out)%2 == 0 {
		return ""
	}
	return strings.Join(out, " ")
}

// Stdlib is the name of Go's own library among modules.
const Stdlib = "stdlib"

// ReadProgram is a Go program and the modules it is made of, Go's own
// library among them.
func ReadProgram(name, version, file, sha256 string) ([]Component, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("sbom: %w", err)
	}
	program := Component{Kind: Program, Name: name, Version: version, SHA256: sha256}
	modules := []Component{{Kind: Module, Name: Stdlib, Version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, Component{Kind: Module, Name: m.Path, Version: m.Version})
	}
	for _, m := range modules {
		program.Uses = append(program.Uses, m.ID())
	}
	sort.Strings(program.Uses)
	return append([]Component{program}, modules...), nil
}
