package datadisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/userdata"
)

const swapPage = 4096

// What a document names by mistake is not lost: a file is replaced only where
// it holds nothing, or swap.
func TestSwapNeverTakesAFile(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    string // "" where swap takes its place
	}{
		"empty":                         {"", ""},
		"zeros, of a boot cut off":      {strings.Repeat("\x00", 3*swapPage), ""},
		"zeros, less than a page":       {"\x00\x00", ""},
		"swap of another size":          {strings.Repeat("\x00", swapPage-10) + "SWAPSPACE2", ""},
		"a short text":                  {"token\n", "holds something else than swap and is not touched; name another file"},
		"a database":                    {strings.Repeat("\x00", 16) + "bbolt" + strings.Repeat("\x00", 5*swapPage), "holds something else than swap"},
		"the mark at another place":     {"SWAPSPACE2" + strings.Repeat("\x00", swapPage), "holds something else than swap"},
		"one byte at the page's end":    {strings.Repeat("\x00", swapPage-1) + "x", "holds something else than swap"},
		"the mark of the old version 0": {strings.Repeat("\x00", swapPage-10) + "SWAP-SPACE", "holds something else than swap"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "swap")
			if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			err := makeSwap(path, 8<<20, swapPage)
			if c.want == "" {
				if st, _ := os.Stat(path); err != nil || !isSwap(path, 8<<20, swapPage) || st.Mode().Perm() != 0o600 {
					t.Fatalf("got %v, want swap in its place", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != c.content {
				t.Errorf("the file was changed: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestSwapOnWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link} {
		if err := makeSwap(path, 8<<20, swapPage); err == nil || !strings.Contains(err.Error(), path+" is no file; name another") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := os.Readlink(link); err != nil {
		t.Error(err)
	}
}

// A power cut leaves a file by another name, which the next boot begins again;
// a disk without the room leaves nothing.
func TestSwapIsWholeOrNot(t *testing.T) {
	dir := t.TempDir()
	path, left := filepath.Join(dir, "swap"), filepath.Join(dir, unfinishedSwap)
	if err := os.WriteFile(left, []byte("half a header"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeSwap(path, 8<<20, swapPage); err != nil || !isSwap(path, 8<<20, swapPage) {
		t.Errorf("after a cut: %v", err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what the cut left is still there: %v", err)
	}
	err := makeSwap(filepath.Join(dir, "much"), 1<<60, swapPage)
	if err == nil || !strings.Contains(err.Error(), "make "+dir+"/much of ") {
		t.Errorf("more than there is room for: got %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v %v, want the swap file alone", entries, err)
	}
}

// The operator reads where the mistake is.
func TestSwapMistakeHasItsPlace(t *testing.T) {
	b := newBench(t)
	if err := errors.Join(os.MkdirAll(b.Root, 0o755), os.WriteFile(filepath.Join(b.Root, "db"), []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	b.apply(t, userdata.Storage{Swap: &userdata.Swap{Place: where("swap"), Path: "/db", Size: 32 << 20}}, "u: line 3: swap: "+b.Root+"/db holds something else than swap")
}
