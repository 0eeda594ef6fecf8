package input

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/input/apt"
)

// onDisk is a package whose unpacked files are those of the map; a name that
// begins with "->" is what a link points to.
func onDisk(t *testing.T, cache, name string, files map[string]string) Package {
	t.Helper()
	dir := filepath.Join(cache, "unpacked", name)
	for file, text := range files {
		full := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, full)
		} else {
			err = os.WriteFile(full, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Package{Package: apt.Package{Name: name, SHA256: name + "-sum"}, Dir: dir}
}

func TestMerge(t *testing.T) {
	cache := t.TempDir()
	one := onDisk(t, cache, "one", map[string]string{"usr/include/one.h": "1", "usr/lib/libone.so": "->libone.so.1"})
	two := onDisk(t, cache, "two", map[string]string{"usr/include/two.h": "2", "usr/include/asm/x.h": "x"})
	dir, err := Merge(filepath.Join(cache, "sysroot"), []Package{one, two})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"usr/include/one.h": "1", "usr/include/two.h": "2", "usr/include/asm/x.h": "x"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
	if got, err := os.Readlink(filepath.Join(dir, "usr/lib/libone.so")); err != nil || got != "libone.so.1" {
		t.Errorf("link: got %q, %v", got, err)
	}
	// It is made once: the same folder, and files of it are not written anew.
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Merge(filepath.Join(cache, "sysroot"), []Package{one, two})
	if err != nil || again != dir {
		t.Errorf("again: got %s, %v, want %s", again, err, dir)
	}
	if after, err := os.Stat(dir); err != nil || !os.SameFile(before, after) {
		t.Errorf("the folder was made a second time: %v", err)
	}
	// Other packages make another folder.
	if other, err := Merge(filepath.Join(cache, "sysroot"), []Package{one}); err != nil || other == dir {
		t.Errorf("one of the packages: got %s, %v", other, err)
	}
}

func TestMergeRefuses(t *testing.T) {
	cache := t.TempDir()
	one := onDisk(t, cache, "one", map[string]string{"usr/include/same.h": "1"})
	two := onDisk(t, cache, "two", map[string]string{"usr/include/same.h": "2"})
	gone := Package{Package: apt.Package{Name: "gone", SHA256: "gone"}, Dir: filepath.Join(cache, "gone")}
	for name, c := range map[string]struct {
		packages []Package
		want     string
	}{
		"a file that two have":        {[]Package{one, two}, "merge package two: link"},
		"a package that is not there": {[]Package{gone}, "merge package gone"},
	} {
		if _, err := Merge(filepath.Join(cache, "sysroot"), c.packages); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Nothing half made stays.
	left, err := os.ReadDir(filepath.Join(cache, "sysroot"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", names(left), err)
	}
}

func names(entries []fs.DirEntry) (out []string) {
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
