package input

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"

	"keelson/imagebuild/input/apt"
)

// Want is one package that an image is made of.
type Want struct {
	Name    string // the package, or the metapackage that names it
	Pattern string // path.Match pattern of the dependency of Name to take instead of Name itself; usually empty
}

// matches says whether a concrete package name answers the want.
func (w Want) matches(name string) bool {
	if w.Pattern == "" {
		return w.Name == name
	}
	ok, err := path.Match(w.Pattern, name)
	return ok && err == nil
}

// List is a parsed configs/packages/<arch>.list.
type List struct {
	Suite      string
	Components []string // of the archive, besides those of the host's apt
	Wants      []Want
}

// LoadList parses a package list: a line "suite <name>" first, with components of the archive that the
// host's apt need not know behind it, then one package a line, or "<metapackage> > <pattern>" for the
// one dependency of a metapackage whose name matches. "#" begins a comment.
func LoadList(name string, text []byte) (List, error) {
	var list List
	err := eachLine(name, text, func(fields []string) error {
		switch {
		case list.Suite == "":
			if len(fields) < 2 || fields[0] != "suite" {
				return fmt.Errorf("want \"suite <name>\" before the first package, got %q", strings.Join(fields, " "))
			}
			list.Suite, list.Components = fields[1], fields[2:]
		case len(fields) == 1:
			list.Wants = append(list.Wants, Want{Name: fields[0]})
		case len(fields) == 3 && fields[1] == ">":
			if _, err := path.Match(fields[2], ""); err != nil {
				return fmt.Errorf("pattern %q: %w", fields[2], err)
			}
			list.Wants = append(list.Wants, Want{Name: fields[0], Pattern: fields[2]})
		default:
			return fmt.Errorf("want \"<package>\" or \"<metapackage> > <pattern>\", got %q", strings.Join(fields, " "))
		}
		return nil
	})
	if err == nil && len(list.Wants) == 0 {
		err = fmt.Errorf("%s: no package is named", name)
	}
	return list, err
}

// LoadLock parses a lock file: "<name> <version> <sha256> <size>" a line.
func LoadLock(name string, text []byte) ([]apt.Package, error) {
	var lock []apt.Package
	seen := map[string]bool{}
	err := eachLine(name, text, func(fields []string) error {
		if len(fields) != 4 {
			return fmt.Errorf("want \"<name> <version> <sha256> <size>\", got %q", strings.Join(fields, " "))
		}
		if sum, err := hex.DecodeString(fields[2]); err != nil || len(sum) != 32 || fields[2] != strings.ToLower(fields[2]) {
			return fmt.Errorf("%q is no lower case SHA-256", fields[2])
		}
		size, err := strconv.ParseInt(fields[3], 10, 64)
		if err != nil || size <= 0 {
			return fmt.Errorf("%q is no size", fields[3])
		}
		if seen[fields[0]] {
			return fmt.Errorf("package %s is there twice", fields[0])
		}
		seen[fields[0]] = true
		lock = append(lock, apt.Package{Name: fields[0], Version: fields[1], SHA256: fields[2], Size: size})
		return nil
	})
	return lock, err
}

// RenderLock writes what LoadLock reads, sorted by name.
func RenderLock(packages []apt.Package) []byte {
	sorted := append([]apt.Package(nil), packages...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	var b bytes.Buffer
	b.WriteString("# Debian packages of the image: name, version, SHA-256, size. Written by `make lock`; do not edit.\n")
	for _, p := range sorted {
		fmt.Fprintf(&b, "%s %s %s %d\n", p.Name, p.Version, p.SHA256, p.Size)
	}
	return b.Bytes()
}

// eachLine calls f with the fields of every line that is not blank or a comment; f's error is given the file and line.
func eachLine(name string, text []byte, f func([]string) error) error {
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		line, _, _ := strings.Cut(in.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := f(fields); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Changes says, a line each, how one lock differs from another.
func Changes(before, after []apt.Package) []string {
	was := map[string]string{}
	for _, p := range before {
		was[p.Name] = p.Version
	}
	var out []string
	for _, p := range after {
		switch version, ok := was[p.Name]; {
		case !ok:
			out = append(out, fmt.Sprintf("%s: %s is new", p.Name, p.Version))
		case version != p.Version:
			out = append(out, fmt.Sprintf("%s: %s -> %s", p.Name, version, p.Version))
		}
		delete(was, p.Name)
	}
	for name := range was {
		out = append(out, name+": gone")
	}
	sort.Strings(out)
	return out
}
