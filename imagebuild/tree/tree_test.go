package tree

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func paths(t *testing.T, tr *Tree) []string {
	t.Helper()
	es, err := tr.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Path)
	}
	return out
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestEntriesOrderAndParents(t *testing.T) {
	var tr Tree
	must(t,
		tr.Bytes("/a-b", 0o644, nil),
		tr.Bytes("/a/b/c", 0o644, []byte("x")),
		tr.Dir("/a", 0o700),
		tr.Link("/a/z", "b"),
	)
	got := strings.Join(paths(t, &tr), " ")
	if want := "/ /a /a/b /a/b/c /a/z /a-b"; got != want {
		t.Errorf("entries: got %s, want %s", got, want)
	}
	es, _ := tr.Entries()
	if es[1].Mode != fs.ModeDir|0o700 {
		t.Errorf("mode of /a: got %v, want the one that was given", es[1].Mode)
	}
	if es[2].Mode != fs.ModeDir|0o755 {
		t.Errorf("mode of the implied /a/b: got %v, want drwxr-xr-x", es[2].Mode)
	}
}

func TestAddReplacesAndRemove(t *testing.T) {
	var tr Tree
	must(t, tr.Bytes("/x", 0o644, []byte("one")), tr.Bytes("/x", 0o755, []byte("three")),
		tr.Bytes("/d/e/f", 0o644, nil), tr.Bytes("/dd", 0o644, nil))
	if e, ok := tr.Get("/x"); !ok || e.Size != 5 || e.Mode != 0o755 {
		t.Errorf("Get(/x): got %+v, %v, want the second entry", e, ok)
	}
	tr.Remove("/d")
	if got := strings.Join(paths(t, &tr), " "); got != "/ /dd /x" {
		t.Errorf("after Remove(/d): got %s", got)
	}
	if tr.Len() != 2 {
		t.Errorf("Len: got %d, want 2", tr.Len())
	}
}

func TestAddRefuses(t *testing.T) {
	opener := func() (io.ReadCloser, error) { return nil, nil }
	for _, c := range []struct {
		name string
		e    Entry
		want string
	}{
		{"relative", Entry{Path: "a"}, "absolute"},
		{"dots", Entry{Path: "/a/../b"}, "absolute"},
		{"slash at end", Entry{Path: "/a/"}, "absolute"},
		{"nul", Entry{Path: "/a\x00b"}, "NUL"},
		{"long", Entry{Path: "/" + strings.Repeat("a", 256)}, "255"},
		{"root a file", Entry{Path: "/"}, "root"},
		{"no opener", Entry{Path: "/a", Size: 3}, "opener"},
		{"link to nothing", Entry{Path: "/a", Mode: fs.ModeSymlink}, "target"},
		{"link with content", Entry{Path: "/a", Mode: fs.ModeSymlink, Target: "b", Open: opener}, "only a regular file"},
		{"device out of range", Entry{Path: "/a", Mode: fs.ModeDevice, Major: 1 << 12}, "out of range"},
		{"socket", Entry{Path: "/a", Mode: fs.ModeSocket}, "not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tr Tree
			if err := tr.Add(c.e); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Add: got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestParentThatIsAFile(t *testing.T) {
	var tr Tree
	must(t, tr.Bytes("/a", 0o644, nil), tr.Bytes("/a/b", 0o644, nil))
	if _, err := tr.Entries(); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("Entries: got %v, want an error about the parent", err)
	}
}

func TestFile(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.WriteFile(src, []byte("hello"), 0o600))
	var tr Tree
	must(t, tr.File("/bin/x", 0o755, src))
	e, _ := tr.Get("/bin/x")
	r, err := e.Open()
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "hello" || e.Size != 5 {
		t.Errorf("File: got %q, size %d, %v", b, e.Size, err)
	}
	if err := tr.File("/bin/y", 0o755, filepath.Dir(src)); err == nil {
		t.Error("File of a directory: got no error")
	}
	if err := tr.File("/bin/y", 0o755, src+"-absent"); err == nil {
		t.Error("File of nothing: got no error")
	}
}
