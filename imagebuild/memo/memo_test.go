package memo

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"keelson/imagebuild/tree"
)

func load(t *testing.T, file string) *Memo {
	t.Helper()
	m, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStoreForgetsWhatIsUnused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "memo.json")
	m := load(t, file)
	m.Set("a", "1")
	m.Set("b", "2")
	if err := m.Store(); err != nil {
		t.Fatal(err)
	}
	m = load(t, file)
	if got, ok := m.Get("a"); !ok || got != "1" {
		t.Errorf("Get(a): got %q, %v", got, ok)
	}
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := load(t, file).Get("b"); !ok {
		t.Error("a build that has not ended forgets what it did not use")
	}
	if err := m.Store(); err != nil {
		t.Fatal(err)
	}
	m = load(t, file)
	if _, ok := m.Get("b"); ok {
		t.Error("what a build did not use is still there after it")
	}
	if _, ok := m.Get("a"); !ok {
		t.Error("what a build used is gone after it")
	}
}

func TestBrokenMemoIsEmpty(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memo.json")
	if err := os.WriteFile(file, []byte("{\"a\": "), 0o644); err != nil {
		t.Fatal(err)
	}
	m := load(t, file)
	if _, ok := m.Get("a"); ok {
		t.Error("a broken memo knows something")
	}
	m.Set("a", "1")
	if err := m.Store(); err != nil {
		t.Fatal(err)
	}
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	of := func(change func(*tree.Tree) error) string {
		t.Helper()
		var tr tree.Tree
		for _, err := range []error{tr.File("/a/f", 0o644, file), tr.Link("/a/l", "f"), tr.Bytes("/b", 0o644, []byte("b"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if change != nil {
			if err := change(&tr); err != nil {
				t.Fatal(err)
			}
		}
		got, err := load(t, filepath.Join(dir, "memo")).Digest(&tr, "/a")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := of(nil)
	if of(nil) != first {
		t.Error("the same tree has two digests")
	}
	if of(func(tr *tree.Tree) error { return tr.Bytes("/b", 0o644, []byte("c")) }) != first {
		t.Error("what is not below the root counts")
	}
	for name, change := range map[string]func(*tree.Tree) error{
		"mode":   func(tr *tree.Tree) error { return tr.File("/a/f", 0o755, file) },
		"target": func(tr *tree.Tree) error { return tr.Link("/a/l", "g") },
		"more":   func(tr *tree.Tree) error { return tr.Dir("/a/d", 0o755) },
		"bytes":  func(tr *tree.Tree) error { return tr.Bytes("/a/f", 0o644, []byte("two")) },
	} {
		if of(change) == first {
			t.Errorf("a change of %s does not change the digest", name)
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file, store := filepath.Join(dir, "f"), filepath.Join(dir, "memo")
	if err := os.WriteFile(file, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := load(t, store)
	// SHA-256 of "abc": FIPS 180-2, appendix B.1.
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for range 2 {
		if got, err := m.File(file); err != nil || got != want {
			t.Errorf("File: got %s, %v", got, err)
		}
		if err := m.Store(); err != nil {
			t.Fatal(err)
		}
		m = load(t, store)
	}
	// Same size and, as far as a program can set it, same time.
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("xyz"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got, err := m.File(file); err != nil || got == want {
		t.Errorf("File after a change: got %s, %v, want another hash", got, err)
	}
	if _, err := m.File(filepath.Join(dir, "absent")); err == nil {
		t.Error("File of what is absent: got no error")
	}
}
