// Package kernel reads an unpacked kernel package: which modules there are,
// what each needs, and which of them an image takes. From a list of names it
// computes the closure and writes the index files of a module directory in
// kmod's text formats (modules.dep, modules.alias, modules.softdep), as
// depmod would for exactly these modules.
//
// Everything comes from the .modinfo section of the modules themselves and
// from modules.builtin; no depmod runs and nothing is loaded. Debian's 6.12
// compresses modules; they go into the image unpacked, since the image is
// compressed as a whole for transport and a boot should not unpack anything,
// but where a set is packed again for a medium that has no room for them.
// The builder puts a Set into the initramfs and into the root.
package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Kernel is one unpacked kernel package.
type Kernel struct {
	Release string            // as uname -r has it
	Image   string            // file of the bootable kernel
	dir     string            // lib/modules/<release>
	cache   string            // unpacked modules
	files   map[string]string // module name -> path below dir, as packed
	builtin map[string]bool
	order   []byte // modules.order and modules.builtin as they came
	built   []byte
}

// Open reads the package unpacked at dir. cache is a folder of this very
// package's own: unpacked modules are kept there.
func Open(dir, cache string) (*Kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/kernel"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("open kernel package %s: want one lib/modules/<release>, found %d", dir, len(found))
	}
	k := &Kernel{dir: filepath.Dir(found[0]), cache: cache, files: map[string]string{}, builtin: map[string]bool{}}
	k.Release = filepath.Base(k.dir)
	k.Image = filepath.Join(dir, "boot/vmlinuz-"+k.Release)
	if _, err := os.Stat(k.Image); err != nil {
		return nil, fmt.Errorf("open kernel package: %w", err)
	}
	err = filepath.WalkDir(found[0], func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(k.dir, name)
		if err == nil && strings.Contains(path.Base(rel), ".ko") {
			k.files[NameOf(rel)] = rel
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	if k.built, err = os.ReadFile(filepath.Join(k.dir, "modules.builtin")); err != nil {
		return nil, fmt.Errorf("open kernel package: %w", err)
	}
	if k.order, err = os.ReadFile(filepath.Join(k.dir, "modules.order")); err != nil {
		return nil, fmt.Errorf("open kernel package: %w", err)
	}
	for line := range strings.Lines(string(k.built)) {
		k.builtin[NameOf(strings.TrimSpace(line))] = true
	}
	return k, nil
}

// NameOf makes "virtio_blk" of "kernel/drivers/block/virtio-blk.ko.xz". The
// kernel and kmod treat - and _ in names alike.
func NameOf(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// LoadList parses a module list: one name a line, "#" or ";" begins a
// comment (as in modules-load.d(5)).
func LoadList(name string, text []byte) ([]string, error) {
	var out []string
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		if at := strings.IndexAny(line, "#;"); at >= 0 {
			line = line[:at]
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case len(fields) > 1 || strings.ContainsAny(fields[0], "/."):
			return nil, fmt.Errorf("%s:%d: %q: want one module name a line", name, n, strings.TrimSpace(line))
		default:
			out = append(out, strings.ReplaceAll(fields[0], "-", "_"))
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// file returns the unpacked module, which it makes on first use.
func (k *Kernel) file(rel string) (string, error) {
	packed := filepath.Join(k.dir, rel)
	suffix := path.Ext(rel)
	if suffix == ".ko" {
		return packed, nil
	}
	out := filepath.Join(k.cache, strings.TrimSuffix(rel, suffix))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("unpack module: %w", err)
	}
	in, err := os.Open(packed)
	if err != nil {
		return "", fmt.Errorf("unpack module: %w", err)
	}
	defer in.Close()
	content, err := decompress(suffix, bufio.NewReader(in))
	if err != nil {
		return "", fmt.Errorf("unpack module %s: %w", rel, err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", fmt.Errorf("unpack module: %w", err)
	}
	// Renamed, so that a build that was interrupted leaves no half module.
	if err := os.WriteFile(out+".part", content, 0o644); err != nil {
		return "", fmt.Errorf("unpack module: %w", err)
	}
	if err := os.Rename(out+".part", out); err != nil {
		return "", fmt.Errorf("unpack module: %w", err)
	}
	return out, nil
}

func decompress(suffix string, in io.Reader) ([]byte, error) {
	switch suffix {
	case ".xz":
		r, err := xz.NewReader(in)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case ".zst":
		r, err := zstd.NewReader(in)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	return nil, fmt.Errorf("compression %q is not known", suffix)
}

// Closure returns the modules of names and all they need. A name that is
// built into the kernel is skipped; one that does not exist is an error.
func (k *Kernel) Closure(names []string) (*Set, error) {
	s := &Set{Release: k.Release, order: k.order, builtin: k.built, modules: map[string]Module{}}
	var unknown []string
	for _, name := range names {
		if k.files[name] == "" && !k.builtin[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("kernel %s has no module %s: correct the module list", k.Release, strings.Join(unknown, ", "))
	}
	todo := slices.Clone(names)
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		rel := k.files[name]
		if _, done := s.modules[name]; done || rel == "" {
			continue
		}
		file, err := k.file(rel)
		if err != nil {
			return nil, err
		}
		m, err := readModule(file)
		if err != nil {
			return nil, err
		}
		m.Name, m.Path, m.File = name, strings.TrimSuffix(strings.TrimSuffix(rel, ".xz"), ".zst"), file
		m.packed = filepath.Join(k.dir, rel)
		for _, need := range m.Depends {
			if k.files[need] == "" && !k.builtin[need] {
				return nil, fmt.Errorf("module %s needs %s, which kernel %s does not have", name, need, k.Release)
			}
		}
		s.modules[name] = m
		// Soft dependencies are wishes: what does not exist is left out.
		todo = append(todo, m.Depends...)
		todo = append(todo, m.Pre...)
		todo = append(todo, m.Post...)
	}
	return s, nil
}

// Names of the modules of the set, sorted.
func (s *Set) Names() []string {
	out := make([]string, 0, len(s.modules))
	for name := range s.modules {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
