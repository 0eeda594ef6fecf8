package file

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWriteReplacesAndKeepsMode(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"one", "a longer second text", ""} {
		if err := Write(path, []byte(text), 0o664); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o664 {
			t.Errorf("mode: got %v, %v", info.Mode(), err)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

func TestFailedWriteLeavesTheOldFileAndNoTemporary(t *testing.T) {
	dir := t.TempDir()
	good, blocked := filepath.Join(dir, "good"), filepath.Join(dir, "blocked")
	if err := os.WriteFile(good, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(blocked, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A folder cannot be replaced by a file: the second rename fails, the third never happens.
	err := WriteAll([]File{{blocked, []byte("x"), 0o600}, {good, []byte("new"), 0o600}})
	if err == nil {
		t.Fatal("no error")
	}
	if got, _ := os.ReadFile(good); string(got) != "old" {
		t.Errorf("good: got %q, want the old text", got)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("left behind: %v", got)
	}
	if err := Write(filepath.Join(dir, "absent", "f"), nil, 0o600); err == nil {
		t.Error("write into an absent folder: no error")
	}
}

func TestWriteAllOfMany(t *testing.T) {
	dir := t.TempDir()
	var files []File
	for i := range 20 {
		sub := filepath.Join(dir, fmt.Sprint(i%3))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		files = append(files, File{filepath.Join(sub, fmt.Sprint(i)), []byte{byte(i)}, 0o600})
	}
	if err := WriteAll(files); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !Same(f) {
			t.Errorf("%s is not as given", f.Path)
		}
	}
}

func TestEnsureWritesOnlyWhatDiffers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, c := range []struct {
		name string
		data string
		mode os.FileMode
		want bool
	}{{"absent", "a", 0o600, true}, {"same", "a", 0o600, false}, {"bytes", "b", 0o600, true}, {"mode", "b", 0o644, true}, {"same again", "b", 0o644, false}} {
		got, err := Ensure(path, []byte(c.data), c.mode)
		if err != nil || got != c.want {
			t.Errorf("%s: got %v, %v; want %v", c.name, got, err, c.want)
		}
	}
	// A symbolic link with the right text behind it is not the file.
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+"2", path); err != nil {
		t.Fatal(err)
	}
	if got, err := Ensure(path, []byte("b"), 0o644); err != nil || !got {
		t.Errorf("link: got %v, %v; want it replaced", got, err)
	}
}

func TestSymlink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node-token")
	if err := os.WriteFile(path, []byte("a file before"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"token", "token", "other"} {
		if err := Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(path); err != nil || got != target {
			t.Errorf("got %q, %v; want %q", got, err, target)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

func TestSweepTakesOnlyTemporaries(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".passwd.123" + suffix, ".hidden", "x" + suffix, "passwd"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(names(t, dir)), "[.hidden passwd x"+suffix+"]"; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestReadersNeverSeeHalf writes a file from several goroutines while another reads it: every reading is one whole
// version.
func TestReadersNeverSeeHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	version := func(n int) []byte {
		data := make([]byte, 64<<10)
		for i := range data {
			data[i] = byte(n)
		}
		return data
	}
	if err := Write(path, version(0), 0o600); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	done := make(chan struct{})
	for w := range 3 {
		writers.Go(func() {
			for i := range 5 {
				if err := Write(path, version(w*5+i), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(done) }()
	for {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range data {
			if b != data[0] || len(data) != 64<<10 {
				t.Fatal("a reading mixes versions")
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
