package input

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/input/apt"
)

// archive is an archive in memory.
type archive struct {
	debs      map[string][]byte // name=version
	packages  []apt.Package     // newest first
	updates   int
	downloads int
	damage    bool
}

func (a *archive) add(name, version string, depends ...string) apt.Package {
	deb := debOf(name + " " + version)
	sum := sha256.Sum256(deb)
	p := apt.Package{Name: name, Version: version, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(deb)), Depends: depends}
	if a.debs == nil {
		a.debs = map[string][]byte{}
	}
	a.debs[name+"="+version] = deb
	a.packages = append([]apt.Package{p}, a.packages...)
	return p
}

func debOf(text string) []byte {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	_ = w.WriteHeader(&tar.Header{Name: "./file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	b := []byte("!<arch>\n")
	b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", "data.tar", 0, 0, 0, "100644", data.Len())
	return append(b, data.Bytes()...)
}

func (a *archive) drop(name, version string) {
	var kept []apt.Package
	for _, p := range a.packages {
		if p.Name != name || p.Version != version {
			kept = append(kept, p)
		}
	}
	a.packages = kept
}

func (a *archive) Update(context.Context) error { a.updates++; return nil }

func (a *archive) Candidates(_ context.Context, names ...string) (map[string]apt.Package, error) {
	out := map[string]apt.Package{}
	for _, name := range names {
		for _, p := range a.packages {
			if _, have := out[name]; p.Name == name && !have {
				out[name] = p
			}
		}
	}
	return out, nil
}

func (a *archive) Versions(_ context.Context, names ...string) ([]apt.Package, error) {
	return a.packages, nil
}

func (a *archive) Download(_ context.Context, dir string, packages ...apt.Package) error {
	a.downloads += len(packages)
	for i, p := range packages {
		deb := bytes.Clone(a.debs[p.Name+"="+p.Version])
		if a.damage {
			deb[len(deb)-1] ^= 1
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.deb", i)), deb, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type fixture struct {
	archive *archive
	cache   string
	log     bytes.Buffer
	list    List
	lock    []apt.Package
	strict  bool
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{archive: &archive{}, cache: t.TempDir()}
	f.list = List{Suite: "bookworm", Wants: []Want{{Name: "tool"}, {Name: "kernel", Pattern: "kernel-6.12.*"}}}
	kernel := f.archive.add("kernel-6.12.1", "6.12.1-1")
	f.archive.add("kernel", "6.12.1-1", "unrelated", "kernel-6.12.1")
	f.lock = []apt.Package{f.archive.add("tool", "1"), kernel}
	return f
}

func (f *fixture) packages() *Packages {
	return New(Config{List: f.list, Lock: f.lock, Strict: f.strict, Cache: f.cache, Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		Open: func() (Archive, error) { return f.archive, nil }})
}

func TestEnsureTakesTheLocked(t *testing.T) {
	f := newFixture(t)
	f.archive.add("tool", "2")
	got, err := f.packages().Ensure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"tool 1", "kernel-6.12.1 6.12.1-1"} {
		if text, err := os.ReadFile(filepath.Join(got[i].Dir, "file")); err != nil || string(text) != want || !got[i].Locked {
			t.Errorf("package %d: got %q, %v, locked %v, want %q of the lock", i, text, err, got[i].Locked, want)
		}
	}
	if one, err := Find(got, "kernel"); err != nil || one.Name != "kernel-6.12.1" {
		t.Errorf("Find(kernel): got %s, %v, want the real package", one.Name, err)
	}
	if _, err := Find(got, "absent"); err == nil {
		t.Error("Find(absent): got no error")
	}
	updates := f.archive.updates
	if _, err := f.packages().Ensure(context.Background()); err != nil {
		t.Fatal(err)
	}
	if f.archive.updates != updates || f.archive.downloads != 2 {
		t.Errorf("second Ensure: %d updates and %d downloads, want the cache to do", f.archive.updates-updates, f.archive.downloads)
	}
}

func TestEnsureReplacesWhatIsGone(t *testing.T) {
	f := newFixture(t)
	f.archive.drop("tool", "1")
	f.archive.add("tool", "2")
	got, err := f.packages().Ensure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Version != "2" || got[0].Locked || got[0].Replaces != "1" {
		t.Errorf("tool: got %+v, want version 2 in place of 1", got[0])
	}
	if n := strings.Count(f.log.String(), "tool 1 of the lock is gone"); n != 1 {
		t.Errorf("log says %d times that the locked version is gone, want once:\n%s", n, f.log.String())
	}
	// A newer one does not change builds with this lock any more, and no
	// client runs, but the build still says what it took.
	f.archive.add("tool", "3")
	f.log.Reset()
	updates := f.archive.updates
	if got, err = f.packages().Ensure(context.Background()); err != nil || got[0].Version != "2" || f.archive.updates != updates {
		t.Errorf("second Ensure: got %s, %v, %d updates, want 2 from the cache", got[0].Version, err, f.archive.updates-updates)
	}
	if !strings.Contains(f.log.String(), "is gone") {
		t.Error("second Ensure: the log does not say that the locked version is gone")
	}
	f.strict = true
	if _, err := f.packages().Ensure(context.Background()); err == nil || !strings.Contains(err.Error(), "make lock") {
		t.Errorf("strict Ensure: got %v, want a refusal that says what to do", err)
	}
}

func TestEnsureReplacesAKernelWhoseNameIsGone(t *testing.T) {
	f := newFixture(t)
	f.archive.packages = nil
	f.archive.add("tool", "1")
	f.archive.add("kernel-6.12.9", "6.12.9-1")
	f.archive.add("kernel", "6.12.9-1", "kernel-6.12.9")
	got, err := f.packages().Ensure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if one, err := Find(got, "kernel"); err != nil || one.Name != "kernel-6.12.9" || one.Replaces != "6.12.1-1" {
		t.Errorf("kernel: got %+v, %v, want 6.12.9", one, err)
	}
}

func TestEnsureRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*fixture)
		want  string
	}{
		{"damaged download", func(f *fixture) { f.archive.damage = true }, "no fetched file has SHA-256"},
		{"same version, other bytes", func(f *fixture) { f.lock[0].SHA256 = strings.Repeat("0", 64) }, "tampered"},
		{"not in the lock, strict", func(f *fixture) { f.lock, f.strict = f.lock[1:], true }, "not in the lock"},
		{"nowhere", func(f *fixture) { f.list.Wants = append(f.list.Wants, Want{Name: "absent"}) }, "none of that name"},
		{"no match", func(f *fixture) { f.list.Wants, f.lock = []Want{{Name: "kernel", Pattern: "kernel-7.*"}}, nil }, "matches kernel-7.*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			c.spoil(f)
			if _, err := f.packages().Ensure(context.Background()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Ensure: got %v, want an error with %q", err, c.want)
			}
		})
	}
	t.Run("damaged cache", func(t *testing.T) {
		f := newFixture(t)
		if _, err := f.packages().Ensure(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(f.cache, "unpacked")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.cache, "deb", f.lock[0].SHA256+".deb"), []byte("junk"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := f.packages().Ensure(context.Background()); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("Ensure: got %v, want it to see the damage", err)
		}
	})
	t.Run("no client", func(t *testing.T) {
		p := New(Config{List: newFixture(t).list, Cache: t.TempDir(), Log: slog.New(slog.DiscardHandler),
			Open: func() (Archive, error) { return nil, errors.New("no apt here") }})
		if _, err := p.Ensure(context.Background()); err == nil || !strings.Contains(err.Error(), "no apt here") {
			t.Errorf("Ensure: got %v", err)
		}
	})
}

func TestNewest(t *testing.T) {
	f := newFixture(t)
	f.archive.add("tool", "2")
	got, err := f.packages().Newest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	text := string(RenderLock(got))
	if !strings.Contains(text, "\ntool 2 ") || !strings.Contains(text, "\nkernel-6.12.1 6.12.1-1 ") {
		t.Errorf("lock of the newest:\n%s", text)
	}
	back, err := LoadLock("x", []byte(text))
	if err != nil || len(back) != 2 {
		t.Errorf("LoadLock of it: got %d packages, %v", len(back), err)
	}
	if got, want := strings.Join(Changes(f.lock, got), "; "), "tool: 1 -> 2"; got != want {
		t.Errorf("Changes: got %q, want %q", got, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, c := range []struct{ name, text, want string }{
		{"list without suite", "tool\n", "f:1: want \"suite"},
		{"list line", "suite x\n\na b\n", "f:3:"},
		{"list pattern", "suite x\na > [\n", "f:2: pattern"},
		{"empty list", "suite x\n", "no package"},
	} {
		if _, err := LoadList("f", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	for _, c := range []struct{ name, text, want string }{
		{"fields", "a 1 " + sum + "\n", "f:1: want"},
		{"hash", "# c\na 1 xyz 5\n", "f:2: \"xyz\""},
		{"upper case", "a 1 " + strings.ToUpper(sum) + " 5\n", "SHA-256"},
		{"size", "a 1 " + sum + " -1\n", "no size"},
		{"twice", "a 1 " + sum + " 1\na 2 " + sum + " 1\n", "f:2: package a is there twice"},
	} {
		if _, err := LoadLock("f", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func FuzzLoadLock(f *testing.F) {
	f.Add([]byte("a 1 " + strings.Repeat("ab", 32) + " 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lock, err := LoadLock("f", text)
		if err != nil {
			return
		}
		back, err := LoadLock("f", RenderLock(lock))
		if err != nil || len(back) != len(lock) {
			t.Errorf("lock %q does not survive being written: %v", text, err)
		}
	})
}

// TestCommittedFiles loads the project's own list and lock.
func TestCommittedFiles(t *testing.T) {
	files, err := filepath.Glob("../../configs/packages/*.list")
	if err != nil || len(files) == 0 {
		t.Fatalf("package lists: got %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list, err := LoadList(file, text)
		if err != nil {
			t.Fatal(err)
		}
		lockName := strings.TrimSuffix(file, ".list") + ".lock"
		if text, err = os.ReadFile(lockName); err != nil {
			t.Fatal(err)
		}
		lock, err := LoadLock(lockName, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range list.Wants {
			if _, ok := find(lock, want); !ok {
				t.Errorf("%s: %s is not in it: run `make lock`", lockName, want.Name)
			}
		}
		if len(lock) != len(list.Wants) {
			t.Errorf("%s has %d packages, the list has %d", lockName, len(lock), len(list.Wants))
		}
	}
}
