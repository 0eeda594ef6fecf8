// Package tree describes a file tree that is on its way into an image: paths,
// modes, owners, link targets and where the bytes come from.
//
// The root file system (package erofs) and the initramfs (package cpio) are
// both written from a Tree, so a builder fills one type whatever the format.
// A Tree holds names and openers, never file contents; times are left out on
// purpose, for an image has one time for everything.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
)

// Entry is one node of the tree.
type Entry struct {
	Path         string      // absolute and clean, "/" is the root itself
	Mode         fs.FileMode // type and permission bits, setuid, setgid, sticky
	UID, GID     uint32
	Size         int64                         // regular files
	Open         func() (io.ReadCloser, error) // regular files with Size > 0; called once for every image written
	Target       string                        // symbolic links
	Major, Minor uint32                        // device nodes
}

// Tree is a set of entries, one a path. The zero value is an empty tree.
type Tree struct {
	entries map[string]Entry
}

// Add puts e into the tree in place of what had its path before. It refuses
// an entry that no format could hold.
func (t *Tree) Add(e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("tree entry %q: %w", e.Path, err)
	}
	if t.entries == nil {
		t.entries = map[string]Entry{}
	}
	t.entries[e.Path] = e
	return nil
}

// Dir adds a directory of root's.
func (t *Tree) Dir(p string, perm fs.FileMode) error {
	return t.Add(Entry{Path: p, Mode: fs.ModeDir | perm})
}

// Link adds a symbolic link at p to target.
func (t *Tree) Link(p, target string) error {
	return t.Add(Entry{Path: p, Mode: fs.ModeSymlink | 0o777, Target: target})
}

// Bytes adds a regular file of root's with the given content.
func (t *Tree) Bytes(p string, perm fs.FileMode, content []byte) error {
	return t.Add(Entry{Path: p, Mode: perm, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}})
}

// File adds a regular file of root's whose content is the file src of the
// machine that builds. Its size is taken now; a file that has another size
// when it is written makes the writer fail.
func (t *Tree) File(p string, perm fs.FileMode, src string) error {
	st, err := os.Stat(src)
	if err != nil {
		return fmt.Errorf("tree entry %q: %w", p, err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("tree entry %q: %s is not a regular file", p, src)
	}
	return t.Add(Entry{Path: p, Mode: perm, Size: st.Size(), Open: func() (io.ReadCloser, error) {
		return os.Open(src)
	}})
}

// Get is the entry at p, if there is one.
func (t *Tree) Get(p string) (Entry, bool) {
	e, ok := t.entries[p]
	return e, ok
}

// Remove takes out p and everything below it.
func (t *Tree) Remove(p string) {
	for q := range t.entries {
		if q == p || strings.HasPrefix(q, strings.TrimSuffix(p, "/")+"/") {
			delete(t.entries, q)
		}
	}
}

// Len is the number of entries that were added.
func (t *Tree) Len() int { return len(t.entries) }

// Entries returns every entry sorted by path, parents before children.
// Directories that are only implied by a path, the root among them, are there
// with mode 0755 and owner root.
func (t *Tree) Entries() ([]Entry, error) {
	all := make(map[string]Entry, len(t.entries)+1)
	all["/"] = Entry{Path: "/", Mode: fs.ModeDir | 0o755}
	for p, e := range t.entries {
		all[p] = e
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if _, ok := t.entries[d]; !ok {
				all[d] = Entry{Path: d, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	out := make([]Entry, 0, len(all))
	for p, e := range all {
		if parent := all[path.Dir(p)]; !parent.Mode.IsDir() {
			return nil, fmt.Errorf("tree entry %q: its parent %s is no directory", p, parent.Path)
		}
		out = append(out, e)
	}
	// Compared element by element, so that a directory's children directly
	// follow it: "/a", "/a/b", "/a-b".
	sort.Slice(out, func(i, j int) bool { return key(out[i].Path) < key(out[j].Path) })
	return out, nil
}

// key sorts "/" before every byte that a file name may hold.
func key(p string) string { return strings.ReplaceAll(p, "/", "\x00") }

func (e Entry) check() error {
	switch {
	case !strings.HasPrefix(e.Path, "/") || path.Clean(e.Path) != e.Path:
		return errors.New("want an absolute path without . or .. or a slash at its end")
	case strings.ContainsRune(e.Path, 0):
		return errors.New("the path has a NUL byte")
	case len(path.Base(e.Path)) > 255:
		return errors.New("the name is longer than 255 bytes")
	case e.Path == "/" && !e.Mode.IsDir():
		return errors.New("the root must be a directory")
	}
	switch e.Mode.Type() {
	case fs.ModeDir:
	case 0:
		if e.Size < 0 || e.Size > 0 && e.Open == nil {
			return errors.New("a regular file needs a size and an opener")
		}
		return nil
	case fs.ModeSymlink:
		if e.Target == "" || len(e.Target) > 4095 || strings.ContainsRune(e.Target, 0) {
			return errors.New("a symbolic link needs a target of 1 to 4095 bytes")
		}
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		// 12 and 20 bits: what the kernel's dev_t holds (linux/kdev_t.h).
		if e.Major >= 1<<12 || e.Minor >= 1<<20 {
			return fmt.Errorf("device number %d:%d is out of range", e.Major, e.Minor)
		}
	default:
		return fmt.Errorf("file type %v is not supported", e.Mode.Type())
	}
	if e.Size != 0 || e.Open != nil {
		return errors.New("only a regular file has content")
	}
	return nil
}
