package rootfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"keelson/imagebuild/tree"
)

// Rules say what a finished root may not hold.
type Rules struct {
	Arch    string   // as Go names it
	Layers  string   // directory whose children are roots of their own
	Factory string   // what /etc is filled from
	Runtime []string // directories filled while the machine runs: links may point there
}

// interpreters are programs that run what they are given. "node" is the
// supervisor here, and Node.js is caught by its libraries.
func interpreters() []string {
	return []string{
		"sh", "ash", "bash", "rbash", "dash", "csh", "tcsh", "ksh", "mksh", "zsh", "fish", "busybox", "toybox", "sash",
		"perl", "python", "ruby", "lua", "luajit", "tclsh", "expect", "php", "guile", "nodejs", "deno", "bun", "awk", "gawk",
		"mawk", "nawk", "sed", "ed", "vi", "vim", "emacs", "gdb", "irb", "pwsh", "gosh", "elvish",
	}
}

// Lint returns what is wrong with a tree, a line each: a shell or other
// interpreter, a script, a setuid or setgid bit, a file or directory that
// everyone may write, a device, a dangling link, an ELF whose loader or
// library is absent. It checks the root and each layer as a root.
func Lint(t *tree.Tree, rules Rules) ([]string, error) {
	entries, err := t.Entries()
	if err != nil {
		return nil, err
	}
	all := view{entries: map[string]tree.Entry{}, rules: rules}
	layers := map[string]*view{}
	for _, e := range entries {
		all.entries[e.Path] = e
		if rest, below := strings.CutPrefix(e.Path, rules.Layers+"/"); below && rules.Layers != "" {
			name, inner, _ := strings.Cut(rest, "/")
			if layers[name] == nil {
				layers[name] = &view{entries: map[string]tree.Entry{}, rules: rules, root: rules.Layers + "/" + name}
			}
			layers[name].entries["/"+inner] = e
		}
	}
	var out []string
	for _, e := range entries {
		at := &all
		inner := e.Path
		if rest, below := strings.CutPrefix(e.Path, rules.Layers+"/"); below && rules.Layers != "" {
			name, in, _ := strings.Cut(rest, "/")
			at, inner = layers[name], "/"+in
		}
		wrong, err := at.check(inner, e)
		if err != nil {
			return nil, fmt.Errorf("lint %s: %w", e.Path, err)
		}
		for _, w := range wrong {
			out = append(out, e.Path+": "+w)
		}
	}
	return out, nil
}

// view is a tree as one who has it for a root sees it.
type view struct {
	root    string
	entries map[string]tree.Entry
	rules   Rules
}

func (v *view) check(p string, e tree.Entry) ([]string, error) {
	var out []string
	if e.UID != 0 || e.GID != 0 {
		out = append(out, fmt.Sprintf("owner %d:%d is not root", e.UID, e.GID))
	}
	if e.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		out = append(out, "has a setuid or setgid bit")
	}
	if e.Mode&fs.ModeSymlink == 0 && e.Mode.Perm()&0o002 != 0 && !(e.Mode.IsDir() && e.Mode&fs.ModeSticky != 0) {
		out = append(out, "can be written by everyone")
	}
	if name := strings.TrimRight(path.Base(p), "0123456789.-"); !e.Mode.IsDir() && isProgramDir(path.Dir(p)) && slices.Contains(interpreters(), name) {
		out = append(out, "is a shell or interpreter by its name")
	}
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		if !v.resolves(p) {
			out = append(out, fmt.Sprintf("link to %s leads nowhere", e.Target))
		}
	case e.Mode.IsRegular():
		wrong, err := v.checkFile(e)
		if err != nil {
			return nil, err
		}
		out = append(out, wrong...)
	case !e.Mode.IsDir():
		out = append(out, "is a device")
	}
	return out, nil
}

func isProgramDir(dir string) bool {
	return strings.HasSuffix(dir, "/bin") || strings.HasSuffix(dir, "/sbin") || strings.HasSuffix(dir, "/libexec")
}

func (v *view) checkFile(e tree.Entry) ([]string, error) {
	if e.Size < 4 {
		return nil, nil
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	if head[0] == '#' && head[1] == '!' {
		return []string{"is a script"}, nil
	}
	if string(head) != "\x7fELF" {
		return nil, nil
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		whole, err := content(e)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(whole)
	}
	n, err := readNeeds(r)
	if err != nil {
		return []string{"is a broken ELF file: " + err.Error()}, nil
	}
	if n.object {
		return nil, nil
	}
	var out []string
	if n.loader != "" && !v.resolves(n.loader) {
		out = append(out, "needs the loader "+n.loader+", which is absent")
	}
	for _, library := range n.libraries {
		if !slices.ContainsFunc(LibraryDirs(v.rules.Arch), func(dir string) bool { return v.resolves(path.Join(dir, library)) }) {
			out = append(out, "needs the library "+library+", which is absent")
		}
	}
	return out, nil
}

// resolves follows links as the running machine will: /etc is what the
// factory directory holds, and what is made at run time is taken on trust.
func (v *view) resolves(p string) bool {
	todo := strings.Split(strings.Trim(p, "/"), "/")
	at := "/"
	for steps := 0; len(todo) > 0; steps++ {
		if steps > 400 { // a ring of links
			return false
		}
		name := todo[0]
		todo = todo[1:]
		if name == "" {
			continue
		}
		at = path.Join(at, name)
		if factory, ok := strings.CutPrefix(at, v.rules.Factory); ok && v.rules.Factory != "" && (factory == "" || factory[0] == '/') {
			at = "/etc" + factory
		}
		for _, dir := range v.rules.Runtime {
			if at == dir || strings.HasPrefix(at, dir+"/") {
				return true
			}
		}
		e, ok := v.lookup(at)
		if !ok {
			return false
		}
		if e.Mode&fs.ModeSymlink == 0 {
			continue
		}
		if path.IsAbs(e.Target) {
			at = "/"
		} else {
			at = path.Dir(at)
		}
		todo = append(strings.Split(e.Target, "/"), todo...)
	}
	return true
}

func (v *view) lookup(p string) (tree.Entry, bool) {
	if rest, ok := strings.CutPrefix(p, "/etc"); ok && v.rules.Factory != "" && (rest == "" || rest[0] == '/') {
		if e, ok := v.entries[v.rules.Factory+rest]; ok {
			return e, true
		}
	}
	e, ok := v.entries[p]
	return e, ok
}

func content(e tree.Entry) ([]byte, error) {
	if e.Size == 0 {
		return nil, nil
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
