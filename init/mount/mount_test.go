package mount

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParsePoints(t *testing.T) {
	got, err := ParsePoints("26 1 253:0 / / ro,relatime shared:1 - erofs /dev/dm-0 ro\n" +
		"30 26 253:5 / /var rw - ext4 /dev/vda5 rw\n31 30 0:40 / /var/with\\040space\\134 rw - tmpfs x rw\n")
	if want := []string{"/", "/var", `/var/with space\`}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := ParsePoints("1 2 3\n"); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("short line: got %v", err)
	}
}

func FuzzParsePoints(f *testing.F) {
	f.Add(`26 1 253:0 / /a\040b\ ro`)
	f.Fuzz(func(t *testing.T, s string) {
		points, _ := ParsePoints(s)
		for _, p := range points {
			topOf(p)
		}
	})
}

func TestCopyTree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "ssl/certs"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "ssl/certs/ca"), []byte("pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../run/x", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(to, "ssl/certs/ca"))
	if err != nil || string(b) != "pem" {
		t.Errorf("got %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(to, "ssl/certs/ca")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if l, err := os.Readlink(filepath.Join(to, "link")); err != nil || l != "../run/x" {
		t.Errorf("link: %q, %v", l, err)
	}
	if err := copyTree(filepath.Join(from, "none"), to); err == nil {
		t.Error("absent tree: got no error")
	}
}

func TestEnable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu memory\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := EnableControllers(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil || string(b) != "+memory" { // the last write; the real file takes each
		t.Errorf("got %q, %v", b, err)
	}
	if err := EnableControllers(filepath.Join(dir, "none")); err == nil {
		t.Error("no hierarchy: got no error")
	}
}
