package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Index is what depmod knows of the modules of one kernel.
type Index struct {
	modules map[string]module
	aliases map[string][]alias // by the text before the first ':' or wildcard
	builtin map[string]bool
}

type module struct {
	path string   // below the module directory
	deps []string // names
	soft []string // names or aliases that are to be there first, if they exist
}

type alias struct{ pattern, module string }

// LoadIndex parses the text files of a module directory (kmod, man modules.dep
// and depmod). modules.softdep and modules.builtin may be absent.
func LoadIndex(fsys fs.FS) (*Index, error) {
	x := &Index{modules: map[string]module{}, aliases: map[string][]alias{}, builtin: map[string]bool{}}
	for _, f := range []struct {
		name     string
		optional bool
		line     func(string) error
	}{
		{"modules.dep", false, x.addDep},
		{"modules.alias", false, x.addAlias},
		{"modules.softdep", true, x.addSoftdep},
		{"modules.builtin", true, x.addBuiltin},
	} {
		if err := eachLine(fsys, f.name, f.line); err != nil && (!f.optional || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	x.cutCycles()
	return x, nil
}

func eachLine(fsys fs.FS, name string, add func(string) error) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	if err := parseLines(f, add); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func parseLines(r io.Reader, add func(string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := add(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return sc.Err()
}

// addDep reads "kernel/a/b.ko: kernel/c.ko kernel/d.ko".
func (x *Index) addDep(line string) error {
	file, rest, ok := strings.Cut(line, ":")
	if !ok || !fs.ValidPath(file) {
		return fmt.Errorf("%.60q: want FILE: FILES", line)
	}
	m := module{path: file}
	for dep := range strings.FieldsSeq(rest) {
		m.deps = append(m.deps, nameOf(dep))
	}
	x.modules[nameOf(file)] = m
	return nil
}

// addAlias reads "alias PATTERN MODULE".
func (x *Index) addAlias(line string) error {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return fmt.Errorf("%.60q: want alias PATTERN MODULE", line)
	}
	pattern := normal(f[1])
	key := pattern
	if i := strings.IndexAny(pattern, ":*?["); i >= 0 {
		key = pattern[:i]
	}
	x.aliases[key] = append(x.aliases[key], alias{pattern, normal(f[2])})
	return nil
}

// addSoftdep reads "softdep MODULE pre: A B post: C". Only pre matters: what
// comes after has devices of its own that ask for it.
func (x *Index) addSoftdep(line string) error {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" {
		return fmt.Errorf("%.60q: want softdep MODULE pre: NAMES", line)
	}
	m, ok := x.modules[normal(f[1])]
	if !ok {
		return nil
	}
	pre := false
	for _, w := range f[2:] {
		switch {
		case strings.HasSuffix(w, ":"):
			pre = w == "pre:"
		case pre:
			m.soft = append(m.soft, normal(w))
		}
	}
	x.modules[normal(f[1])] = m
	return nil
}

func (x *Index) addBuiltin(line string) error {
	x.builtin[nameOf(line)] = true
	return nil
}

// cutCycles resolves soft dependencies to modules and drops those that lead
// back, since a loader that waits for both would wait for ever.
func (x *Index) cutCycles() {
	for name, m := range x.modules {
		if len(m.soft) == 0 {
			continue
		}
		var soft []string
		for _, s := range m.soft {
			for _, target := range x.Resolve(s) {
				if !slices.Contains(soft, target) && !x.reaches(target, name, map[string]bool{}) {
					soft = append(soft, target)
				}
			}
		}
		m.soft = soft
		x.modules[name] = m
	}
}

func (x *Index) reaches(from, to string, seen map[string]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	m := x.modules[from]
	for _, next := range append(slices.Clone(m.deps), m.soft...) {
		for _, target := range x.Resolve(next) {
			if x.reaches(target, to, seen) {
				return true
			}
		}
	}
	return false
}

// Resolve turns a module's name or an alias (a device's modalias, "fs-vfat",
// "nft-expr-ct") into the modules for it, sorted. It is empty for what is built
// in or unknown.
func (x *Index) Resolve(s string) []string {
	s = normal(s)
	if _, ok := x.modules[s]; ok {
		return []string{s}
	}
	key, _, _ := strings.Cut(s, ":")
	var out []string
	for _, k := range []string{key, ""} {
		for _, a := range x.aliases[k] {
			if match(a.pattern, s) && !slices.Contains(out, a.module) {
				if _, ok := x.modules[a.module]; ok {
					out = append(out, a.module)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// Has reports whether the index knows s, as a module or as built in.
func (x *Index) Has(s string) bool { return x.builtin[normal(s)] || len(x.Resolve(s)) > 0 }

// nameOf makes "virtio_blk" of "kernel/drivers/block/virtio-blk.ko.xz".
func nameOf(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return normal(name)
}

// normal writes '-' as '_' outside of brackets (libkmod, alias_normalize).
func normal(s string) string {
	if strings.IndexByte(s, '-') < 0 {
		return s
	}
	b, inside := []byte(s), false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}
