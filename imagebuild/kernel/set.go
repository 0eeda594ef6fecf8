package kernel

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"keelson/imagebuild/tree"
)

// Set is a closed set of modules.
type Set struct {
	Release string
	order   []byte
	builtin []byte
	modules map[string]Module
}

// Pack has the set's modules put as Debian has packed them, which the kernel unpacks when it loads them (CONFIG_MODULE_DECOMPRESS,
// finit_module(2)), but for those of another set.
func (s *Set) Pack(but *Set) {
	for name, m := range s.modules {
		if _, plain := but.modules[name]; plain {
			continue
		}
		if suffix := path.Ext(m.packed); suffix != ".ko" {
			m.Path, m.File = m.Path+suffix, m.packed
			s.modules[name] = m
		}
	}
}

// Put adds the modules and their index files below dir, for instance
// /usr/lib/modules; the release is added to it.
func (s *Set) Put(t *tree.Tree, dir string) error {
	base := path.Join(dir, s.Release)
	for _, name := range s.Names() {
		m := s.modules[name]
		if err := t.File(path.Join(base, m.Path), 0o644, m.File); err != nil {
			return fmt.Errorf("put module %s: %w", name, err)
		}
	}
	for _, index := range []struct {
		name    string
		content []byte
	}{
		{"modules.dep", s.RenderDep()},
		{"modules.alias", s.RenderAlias()},
		{"modules.softdep", s.RenderSoftdep()},
		{"modules.builtin", s.builtin},
	} {
		if err := t.Bytes(path.Join(base, index.name), fs.FileMode(0o644), index.content); err != nil {
			return fmt.Errorf("put %s: %w", index.name, err)
		}
	}
	return nil
}

// Firmware lists what the modules name as firmware, sorted; names may be
// patterns.
func (s *Set) Firmware() []string {
	var out []string
	for _, m := range s.modules {
		out = append(out, m.Firmware...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// RenderDep renders modules.dep: behind each module all it needs, directly or
// not, in the order that depmod has, in which a module comes before what it
// needs itself (kmod, tools/depmod.c). Modules stand in the order of the
// kernel's modules.order.
func (s *Set) RenderDep() []byte {
	var b bytes.Buffer
	for _, name := range s.ordered() {
		m := s.modules[name]
		b.WriteString(m.Path + ":")
		for _, need := range s.needs(name) {
			b.WriteString(" " + s.modules[need].Path)
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}

// needs lists what name needs, dependants before dependencies.
func (s *Set) needs(name string) []string {
	var after []string
	seen := map[string]bool{name: true}
	var visit func(string)
	visit = func(n string) {
		for _, need := range s.modules[n].Depends {
			if _, ok := s.modules[need]; ok && !seen[need] { // the others are built in
				seen[need] = true
				visit(need)
				after = append(after, need)
			}
		}
	}
	visit(name)
	for i, j := 0, len(after)-1; i < j; i, j = i+1, j-1 {
		after[i], after[j] = after[j], after[i]
	}
	return after
}

// ordered lists the set in link order: among several modules that match one
// device, the kernel's makers want the first to win.
func (s *Set) ordered() []string {
	var out []string
	seen := map[string]bool{}
	for line := range strings.Lines(string(s.order)) {
		name := NameOf(strings.TrimSpace(line))
		if _, ok := s.modules[name]; ok && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, name := range s.Names() {
		if !seen[name] {
			out = append(out, name)
		}
	}
	return out
}

// RenderAlias renders modules.alias.
func (s *Set) RenderAlias() []byte {
	var b bytes.Buffer
	b.WriteString("# Aliases extracted from modules themselves.\n")
	for _, name := range s.ordered() {
		for _, alias := range s.modules[name].Aliases {
			fmt.Fprintf(&b, "alias %s %s\n", alias, name)
		}
	}
	return b.Bytes()
}

// RenderSoftdep renders modules.softdep.
func (s *Set) RenderSoftdep() []byte {
	var b bytes.Buffer
	b.WriteString("# Soft dependencies extracted from modules themselves.\n")
	for _, name := range s.ordered() {
		for _, soft := range s.modules[name].Soft {
			fmt.Fprintf(&b, "softdep %s %s\n", name, soft)
		}
	}
	return b.Bytes()
}
