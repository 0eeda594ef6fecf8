package firmware

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/tree"
)

// pkg is a package with files; a content that begins with -> is a link.
func pkg(t *testing.T, name string, files map[string]string) Package {
	t.Helper()
	p := Package{Name: name, Dir: t.TempDir()}
	files["usr/share/doc/"+name+"/copyright"] = "free to distribute\n"
	for file, content := range files {
		full := filepath.Join(p.Dir, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(content, "->"); link {
			err = os.Symlink(target, full)
		} else if content != "absent" {
			err = os.WriteFile(full, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func packages(t *testing.T) []Package {
	return []Package{
		pkg(t, "firmware-one", map[string]string{
			"lib/firmware/card.fw": "12345", "lib/firmware/ice/ddp/ice-1.pkg": "123", "lib/firmware/ice/ddp/ice.pkg": "->ice-1.pkg",
			"lib/firmware/unused.fw": "x", "lib/firmware/multi/a.bin": "a", "lib/firmware/multi/b.bin": "b", "lib/firmware/multi/sub/c.bin": "c",
		}),
		pkg(t, "firmware-two", map[string]string{"usr/lib/firmware/other.fw": "12", "usr/lib/firmware/card.fw": "of the second"}),
	}
}

func entries(t *testing.T, put func(*tree.Tree) error) string {
	t.Helper()
	var tr tree.Tree
	if err := put(&tr); err != nil {
		t.Fatal(err)
	}
	all, err := tr.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		switch {
		case e.Target != "":
			out = append(out, e.Path+"->"+e.Target)
		case e.Mode.IsRegular():
			out = append(out, e.Path)
		}
	}
	return strings.Join(out, " ")
}

func TestFind(t *testing.T) {
	for _, c := range []struct{ names, files, terms, missing string }{
		{"", "", "", ""},
		{"card.fw", "/f/card.fw", "firmware-one", ""},
		{"other.fw newer.fw newer.fw", "/f/other.fw", "firmware-two", "newer.fw"},
		{"ice/ddp/ice.pkg", "/f/ice/ddp/ice-1.pkg /f/ice/ddp/ice.pkg->ice-1.pkg", "firmware-one", ""},
		{"ice/ddp/ice.pkg ice/ddp/ice-1.pkg", "/f/ice/ddp/ice-1.pkg /f/ice/ddp/ice.pkg->ice-1.pkg", "firmware-one", ""},
		{"multi/*", "/f/multi/a.bin /f/multi/b.bin", "firmware-one", ""},
		{"none/*.bin", "", "", "none/*.bin"},
	} {
		s, err := Find(packages(t), strings.Fields(c.names))
		if err != nil {
			t.Errorf("Find(%q): %v", c.names, err)
			continue
		}
		if got := entries(t, func(tr *tree.Tree) error { return s.Put(tr, "/f") }); got != c.files {
			t.Errorf("Find(%q): got %s, want %s", c.names, got, c.files)
		}
		want := c.terms
		if want != "" {
			want = "/doc/" + want + "/copyright"
		}
		if got := entries(t, func(tr *tree.Tree) error { return s.PutTerms(tr, "/doc") }); got != want {
			t.Errorf("terms of %q: got %s, want %s", c.names, got, want)
		}
		if got := strings.Join(s.Missing, " "); got != c.missing {
			t.Errorf("missing of %q: got %s, want %s", c.names, got, c.missing)
		}
	}
}

func TestString(t *testing.T) {
	s, err := Find(packages(t), []string{"card.fw", "newer.fw"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.String(); s.Len() != 1 || s.Size != 5 || !strings.Contains(got, "1 files") || !strings.Contains(got, "no package has newer.fw") {
		t.Errorf("set: %d files, %d bytes, %q", s.Len(), s.Size, got)
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct{ name, file, content, want string }{
		{"name leads out", "lib/firmware/x", "x", "without .."},
		{"link leads out", "lib/firmware/a", "->../../etc/passwd", "lead out"},
		{"absolute link", "lib/firmware/a", "->/etc/passwd", "absolute"},
		{"link to itself", "lib/firmware/a", "->a", "nowhere"},
		{"link to nothing", "lib/firmware/a", "->b", "no such file"},
		{"no terms", "lib/firmware/a", "x", "handed on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pkg(t, "firmware-bad", map[string]string{c.file: c.content})
			if c.name == "no terms" {
				if err := os.RemoveAll(filepath.Join(p.Dir, "usr")); err != nil {
					t.Fatal(err)
				}
			}
			name := "[a]" // a pattern: a plain name that leads nowhere is just absent
			if c.name == "name leads out" {
				name = "../x"
			}
			if _, err := Find([]Package{p}, []string{name}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Find: got %v, want an error with %q", err, c.want)
			}
		})
	}
}
