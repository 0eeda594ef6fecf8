package rootfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"keelson/imagebuild/tree"
)

// LibraryDirs are where the loader of glibc looks without a cache or a
// setting, on a usr-merged Debian (ld.so(8)).
func LibraryDirs(goarch string) []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[goarch]
	return []string{"/usr/lib/" + triplet, "/usr/lib", "/usr/lib64"}
}

// Programs adds Debian programs, given by their path, and all libraries they
// need below prefix. dirs are the unpacked packages in which both are looked
// for.
func Programs(t *tree.Tree, prefix, goarch string, dirs, programs []string) error {
	c := closure{tree: t, prefix: prefix, dirs: dirs, libraries: LibraryDirs(goarch), done: map[string]bool{}}
	for _, program := range programs {
		if err := c.add(program, 0o755); err != nil {
			return fmt.Errorf("add program %s: %w", program, err)
		}
	}
	return nil
}

type closure struct {
	tree      *tree.Tree
	prefix    string
	dirs      []string
	libraries []string
	done      map[string]bool
}

// add adds the file at p, the links that lead to it and what it needs.
func (c *closure) add(p string, perm fs.FileMode) error {
	if c.done[p] {
		return nil
	}
	c.done[p] = true
	file, err := c.find(p)
	if err != nil {
		return err
	}
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		if err := c.tree.Link(path.Join("/", c.prefix, p), target); err != nil {
			return err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p), target)
		}
		if err := c.topLink(target); err != nil {
			return err
		}
		return c.add(usrMerged(target), perm)
	}
	if err := c.tree.File(path.Join("/", c.prefix, p), perm, file); err != nil {
		return err
	}
	needs, err := elfNeeds(file)
	if err != nil {
		return err
	}
	if needs.loader != "" {
		if err := c.add(usrMerged(needs.loader), 0o755); err != nil {
			return err
		}
		if err := c.topLink(needs.loader); err != nil {
			return err
		}
	}
	for _, library := range needs.libraries {
		if err := c.addLibrary(library); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// topLink adds the link at the root through which p, a path from before the
// merge of /usr, is found.
func (c *closure) topLink(p string) error {
	if usrMerged(p) == p {
		return nil
	}
	top := strings.Split(p, "/")[1]
	return c.tree.Link(path.Join("/", c.prefix, top), "usr/"+top)
}

func (c *closure) addLibrary(name string) error {
	for _, dir := range c.libraries {
		p := path.Join(dir, name)
		if _, err := c.find(p); err == nil {
			return c.add(p, 0o644)
		}
	}
	return fmt.Errorf("library %s is in no package of the list: add the one that has it", name)
}

// find looks a path up in the packages, before and after the merge of /usr.
func (c *closure) find(p string) (string, error) {
	for _, dir := range c.dirs {
		for _, candidate := range []string{p, strings.TrimPrefix(p, "/usr")} {
			file := filepath.Join(dir, candidate)
			if _, err := os.Lstat(file); err == nil {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("find %s in the packages: %w", p, fs.ErrNotExist)
}

// usrMerged maps /lib/x to /usr/lib/x.
func usrMerged(p string) string {
	for _, top := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(p, top) {
			return "/usr" + p
		}
	}
	return p
}

type needs struct {
	loader    string
	libraries []string
	object    bool // ET_REL: a kernel module
}

func elfNeeds(file string) (needs, error) {
	f, err := os.Open(file)
	if err != nil {
		return needs{}, fmt.Errorf("read ELF: %w", err)
	}
	defer f.Close()
	n, err := readNeeds(f)
	if err != nil {
		return needs{}, fmt.Errorf("read ELF %s: %w", file, err)
	}
	return n, nil
}

func readNeeds(r io.ReaderAt) (needs, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return needs{}, err
	}
	n := needs{object: f.Type == elf.ET_REL}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		// PATH_MAX of Linux bounds what a loader's name can be.
		if p.Filesz > 4096 {
			return needs{}, errors.New("name of the loader is longer than a path can be")
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil && !errors.Is(err, io.EOF) {
			return needs{}, err
		}
		n.loader = string(bytes.TrimRight(name, "\x00"))
		if !path.IsAbs(n.loader) {
			return needs{}, fmt.Errorf("loader %q is no absolute path", n.loader)
		}
	}
	if n.libraries, err = f.ImportedLibraries(); err != nil {
		return needs{}, err
	}
	return n, nil
}
