package rootfs

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/erofs"
	"keelson/imagebuild/tree"

	goerofs "github.com/erofs/go-erofs"
)

func sound(t *testing.T) *tree.Tree {
	t.Helper()
	var tr tree.Tree
	for _, err := range []error{
		Skeleton(&tr, []string{"/proc", "/run", "/etc"}),
		tr.Bytes("/usr/bin/node", 0o755, []byte("static")),
		tr.Link("/usr/bin/tool", "node"),
		tr.Link("/usr/bin/absolute", "/bin/node"),
		tr.Bytes("/usr/share/factory/etc/passwd", 0o644, []byte("x")),
		tr.Link("/usr/share/factory/etc/mtab", "../proc/self/mounts"),
		tr.Link("/usr/share/factory/etc/alias", "passwd"),
		tr.Link("/usr/share/users", "/etc/passwd"),
		tr.Link("/usr/lib/resolv.conf", "/run/resolv.conf"),
		tr.Bytes("/usr/lib/sh", 0o644, []byte("a folder of data may have any name")),
		tr.Dir("/layers/base/tmp", fs.ModeSticky|0o777),
		tr.Bytes("/layers/base/bin/prog", 0o755, []byte("x")),
		tr.Link("/layers/base/bin/link", "/bin/prog"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &tr
}

func testRules() Rules {
	return Rules{Arch: "amd64", Layers: "/layers", Factory: "/usr/share/factory/etc", Runtime: []string{"/proc", "/run"}}
}

func TestLint(t *testing.T) {
	if wrong, err := Lint(sound(t), testRules()); err != nil || len(wrong) != 0 {
		t.Fatalf("Lint of a sound root: got %v, %v", wrong, err)
	}
	for _, c := range []struct {
		name string
		add  func(*tree.Tree) error
		want string
	}{
		{"shell", func(t *tree.Tree) error { return t.Bytes("/usr/bin/bash", 0o755, []byte("x")) }, "/usr/bin/bash: is a shell"},
		{"link called sh", func(t *tree.Tree) error { return t.Link("/usr/bin/sh", "node") }, "/usr/bin/sh: is a shell"},
		{"versioned interpreter", func(t *tree.Tree) error { return t.Bytes("/usr/bin/python3.11", 0o755, []byte("x")) }, "is a shell"},
		{"shell in a layer", func(t *tree.Tree) error { return t.Bytes("/layers/base/bin/dash", 0o755, []byte("x")) }, "/layers/base/bin/dash: is a shell"},
		{"script", func(t *tree.Tree) error { return t.Bytes("/usr/share/x", 0o644, []byte("#!/bin/sh\n")) }, "is a script"},
		{"setuid", func(t *tree.Tree) error {
			return t.Add(tree.Entry{Path: "/usr/bin/su", Mode: fs.ModeSetuid | 0o755})
		}, "setuid"},
		{"setgid folder", func(t *tree.Tree) error { return t.Dir("/usr/g", fs.ModeSetgid|0o755) }, "setgid"},
		{"writable file", func(t *tree.Tree) error { return t.Bytes("/usr/w", 0o666, nil) }, "written by everyone"},
		{"writable folder", func(t *tree.Tree) error { return t.Dir("/usr/w", 0o777) }, "written by everyone"},
		{"owner", func(t *tree.Tree) error { return t.Add(tree.Entry{Path: "/usr/o", Mode: 0o644, UID: 7}) }, "owner 7:0"},
		{"device", func(t *tree.Tree) error {
			return t.Add(tree.Entry{Path: "/usr/d", Mode: fs.ModeDevice | 0o600, Major: 1})
		}, "is a device"},
		{"dangling link", func(t *tree.Tree) error { return t.Link("/usr/bin/l", "absent") }, "leads nowhere"},
		{"ring of links", func(t *tree.Tree) error { return t.Link("/usr/bin/l", "l") }, "leads nowhere"},
		{"link out of its layer", func(t *tree.Tree) error { return t.Link("/layers/base/bin/l", "/usr/bin/node") }, "leads nowhere"},
		{"dangling in the factory", func(t *tree.Tree) error { return t.Link("/usr/share/factory/etc/l", "absent") }, "leads nowhere"},
		{"broken ELF", func(t *tree.Tree) error { return t.Bytes("/usr/bin/e", 0o755, []byte("\x7fELF but no more")) }, "broken ELF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := sound(t)
			if err := c.add(tr); err != nil {
				t.Fatal(err)
			}
			wrong, err := Lint(tr, testRules())
			if err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], c.want) {
				t.Errorf("Lint: got %q, %v, want one with %q", wrong, err, c.want)
			}
		})
	}
}

func TestLintELF(t *testing.T) {
	dir := dynamic(t)
	for _, c := range []struct {
		name   string
		remove string
		want   string
	}{
		{"whole", "", ""},
		{"no library", "/usr/lib/x86_64-linux-gnu/libseven.so.1.0", "needs the library libseven.so.1"},
		{"no loader", "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "needs the loader"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := sound(t)
			if err := Programs(tr, "/", "amd64", []string{dir}, []string{"/usr/sbin/prog"}); err != nil {
				t.Fatal(err)
			}
			if c.remove != "" {
				tr.Remove(c.remove)
			}
			wrong, err := Lint(tr, testRules())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(wrong, "\n"); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("Lint: got %q, want %q", got, c.want)
			}
		})
	}
}

// TestLoad checks that a root is judged alike in a folder and in an image.
func TestLoad(t *testing.T) {
	tr := sound(t)
	if err := tr.Add(tree.Entry{Path: "/usr/bin/su", Mode: fs.ModeSetuid | 0o755}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := erofs.Write(f, tr, erofs.Options{Time: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	fsys, err := goerofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := Lint(back, testRules())
	if err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "/usr/bin/su: has a setuid") {
		t.Errorf("Lint of the image: got %q, %v, want the setuid file alone", wrong, err)
	}

	dir := t.TempDir()
	write(t, dir, "usr/bin/w", "x", 0o666)
	if back, err = Load(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if wrong, err = Lint(back, testRules()); err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "/usr/bin/w: can be written") {
		t.Errorf("Lint of the folder: got %q, %v", wrong, err)
	}
}

func FuzzReadNeeds(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	if b, err := os.ReadFile("/usr/bin/true"); err == nil && len(b) < 1<<17 {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := readNeeds(bytes.NewReader(b))
		if err == nil && n.loader != "" && n.loader[0] != '/' {
			t.Errorf("readNeeds: accepted the loader %q", n.loader)
		}
	})
}
