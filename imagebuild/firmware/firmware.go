// Package firmware takes from unpacked Debian packages exactly the files that
// kernel modules name (MODULE_FIRMWARE), with the terms under which each may
// be handed on. It does not judge which modules an image has: the names come
// from package kernel, and the builder puts the result into root and
// initramfs.
package firmware

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"keelson/imagebuild/tree"
)

// Package is an unpacked package with firmware.
type Package struct {
	Name string
	Dir  string
}

// Set is what was found.
type Set struct {
	files   map[string]string // name below lib/firmware -> file
	links   map[string]string // name -> target
	from    map[string]string // package -> file of its terms
	Size    int64
	Missing []string // names that no package has, sorted
}

// maxLinks bounds a chain of links.
const maxLinks = 8

// Find looks for names, which may be patterns of path.Match, in packages. What
// a name leads to by links is found too. A name that nobody has is no error:
// drivers name files for hardware that is newer than the packages, and older
// ones to fall back on.
func Find(packages []Package, names []string) (*Set, error) {
	s := &Set{files: map[string]string{}, links: map[string]string{}, from: map[string]string{}}
	for _, name := range names {
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("firmware %q: want a path without .. below the firmware folder", name)
		}
		found := false
		for _, p := range packages {
			have, err := s.look(p, name)
			if err != nil {
				return nil, fmt.Errorf("firmware %s: %w", name, err)
			}
			if have {
				found = true
				break
			}
		}
		if !found {
			s.Missing = append(s.Missing, name)
		}
	}
	slices.Sort(s.Missing)
	s.Missing = slices.Compact(s.Missing)
	return s, nil
}

// look takes what one package has of a name.
func (s *Set) look(p Package, pattern string) (bool, error) {
	for _, base := range []string{"lib/firmware", "usr/lib/firmware"} {
		dir := filepath.Join(p.Dir, base)
		names, err := fs.Glob(os.DirFS(dir), pattern)
		if err != nil {
			return false, fmt.Errorf("pattern: %w", err)
		}
		for _, name := range names {
			if err := s.take(p, dir, name, 0); err != nil {
				return false, err
			}
		}
		if len(names) > 0 {
			return true, nil
		}
	}
	return false, nil
}

func (s *Set) take(p Package, dir, name string, depth int) error {
	if _, done := s.files[name]; done {
		return nil
	}
	if depth > maxLinks || !fs.ValidPath(name) {
		return fmt.Errorf("package %s: links of %s lead out of its firmware or nowhere", p.Name, name)
	}
	file := filepath.Join(dir, name)
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		if path.IsAbs(target) {
			return fmt.Errorf("package %s: link %s is absolute", p.Name, name)
		}
		if err := s.take(p, dir, path.Join(path.Dir(name), target), depth+1); err != nil {
			return err
		}
		s.links[name] = target
		return nil
	case !info.Mode().IsRegular():
		return nil // a pattern may match a folder
	}
	terms := filepath.Join(p.Dir, "usr/share/doc", p.Name, "copyright")
	if _, err := os.Stat(terms); err != nil {
		return fmt.Errorf("package %s does not say under which terms it may be handed on: %w", p.Name, err)
	}
	s.files[name], s.from[p.Name] = file, terms
	s.Size += info.Size()
	return nil
}

// Len is how many files there are.
func (s *Set) Len() int { return len(s.files) }

// Put puts the files below dir.
func (s *Set) Put(t *tree.Tree, dir string) error {
	var errs []error
	for name, file := range s.files {
		errs = append(errs, t.File(path.Join(dir, name), 0o644, file))
	}
	for name, target := range s.links {
		errs = append(errs, t.Link(path.Join(dir, name), target))
	}
	return errors.Join(errs...)
}

// PutTerms puts what each package used says about its licences below dir.
func (s *Set) PutTerms(t *tree.Tree, dir string) error {
	var errs []error
	for name, file := range s.from {
		errs = append(errs, t.File(path.Join(dir, name, "copyright"), 0o644, file))
	}
	return errors.Join(errs...)
}

// String says what there is, and how much.
func (s *Set) String() string {
	text := fmt.Sprintf("%d files of firmware, %.1f MB", len(s.files), float64(s.Size)/1e6)
	if len(s.Missing) > 0 {
		text += "; no package has " + strings.Join(s.Missing, " ")
	}
	return text
}
