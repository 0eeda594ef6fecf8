// Package rootfs fills the tree of the root file system from overlays,
// unpacked packages and built binaries, and checks the finished tree. Every
// entry is root's and has one of a few fixed modes, whatever the machine that
// builds has; contents stay where they are until the image is written.
//
// It decides nothing about what goes in: the builder's stages call it with
// literal lists. Package erofs writes the tree that comes out.
package rootfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"keelson/imagebuild/tree"
)

// Skeleton adds the usr-merged frame of the root: the links at the top, and
// the directories on which something is mounted.
func Skeleton(t *tree.Tree, mountPoints []string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := t.Dir("/usr/"+name, 0o755); err != nil {
			return err
		}
		if err := t.Link("/"+name, "usr/"+name); err != nil {
			return err
		}
	}
	for _, p := range mountPoints {
		if err := t.Dir(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Overlay lays the files below dir over the tree at prefix. Git keeps of a
// mode only whether a file can be executed, so nothing else is taken over.
// Files named .gitkeep only hold a directory.
func Overlay(t *tree.Tree, dir, prefix string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("lay over the root: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("lay %s over the root: it is no folder", dir)
	}
	return copyTree(t, dir, prefix, func(string) bool { return true })
}

// Copy adds the files below dir/sub of an unpacked package at prefix/sub;
// keep is asked with the path below sub ("" is sub itself).
func Copy(t *tree.Tree, dir, prefix string, keep func(rel string) bool) error {
	return copyTree(t, dir, prefix, keep)
}

func copyTree(t *tree.Tree, dir, prefix string, keep func(string) bool) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy %s: %w", dir, err)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return fmt.Errorf("copy %s: %w", dir, err)
		}
		if rel == "." {
			rel = ""
		}
		if !keep(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Name() == ".gitkeep" {
			return nil
		}
		return addOne(t, path.Join(prefix, filepath.ToSlash(rel)), name, d)
	})
}

func addOne(t *tree.Tree, to, from string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if have, ok := t.Get(to); ok && have.Mode.IsDir() {
			return nil
		}
		return t.Dir(to, 0o755)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return fmt.Errorf("copy %s: %w", from, err)
		}
		return t.Link(to, target)
	case 0:
		perm := fs.FileMode(0o644)
		if info.Mode()&0o111 != 0 {
			perm = 0o755
		}
		return t.File(to, perm, from)
	}
	return fmt.Errorf("copy %s: it is neither file, directory nor link", from)
}

// Certificates concatenates the certificates (*.crt, PEM) of a directory
// tree in the order of their paths, as update-ca-certificates does; the
// package's own script for it would need a shell.
func Certificates(dir string) ([]byte, error) {
	var files []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(name, ".crt") {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("collect certificates: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("collect certificates: %s has none", dir)
	}
	sort.Strings(files)
	var out bytes.Buffer
	for _, name := range files {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("collect certificates: %w", err)
		}
		out.Write(bytes.TrimSpace(pem))
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// Share replaces regular files outside layer that have the same path and
// content as in layer by links into it: one copy on disk and in memory.
func Share(t *tree.Tree, layer string) error {
	entries, err := t.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		rel, below := strings.CutPrefix(e.Path, layer+"/")
		if !below || !e.Mode.IsRegular() {
			continue
		}
		twin, ok := t.Get("/" + rel)
		if !ok || !twin.Mode.IsRegular() || twin.Size != e.Size {
			continue
		}
		same, err := equal(e, twin)
		if err != nil {
			return err
		}
		if same {
			if err := t.Link(twin.Path, e.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

func equal(a, b tree.Entry) (bool, error) {
	x, err := content(a)
	if err != nil {
		return false, err
	}
	y, err := content(b)
	if err != nil {
		return false, err
	}
	return bytes.Equal(x, y), nil
}
