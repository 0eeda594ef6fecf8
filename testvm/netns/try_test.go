package netns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is tried leaves nothing behind, and what a host forbids is named.
func TestTry(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "try")
	if err := Try(dir, filepath.Join(f.dir, "nsinit"), f.root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
	err := Try(dir, filepath.Join(f.dir, "nsinit"), &Root{path: filepath.Join(f.dir, "no-device")})
	if err == nil || !strings.Contains(err.Error(), "this host does not let machines run: mount the image's root (erofs)") {
		t.Errorf("without a root: got %v", err)
	}
	if err := Try(dir, filepath.Join(f.dir, "no-program"), f.root); err == nil {
		t.Error("a machine without a program was made")
	}
}
