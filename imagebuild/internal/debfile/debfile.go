// Package debfile finds files of Debian packages for tests of the format
// packages: where the package is installed, or in the builder's cache of
// unpacked packages. It is imported by tests only.
package debfile

import (
	"os"
	"path/filepath"
	"testing"
)

// Find returns a path of the file rel (as in "usr/lib/..."), or skips the
// test and says which package has it.
func Find(t testing.TB, rel, pkg string) string {
	t.Helper()
	if found := All(rel); len(found) > 0 {
		return found[len(found)-1]
	}
	t.Skipf("%s is absent: build an image once, or install Debian's %s", rel, pkg)
	return ""
}

// All returns every path of the file rel.
func All(rel string) []string {
	patterns := []string{filepath.Join("/", rel)}
	if root := moduleRoot(); root != "" {
		patterns = append(patterns, filepath.Join(root, "build/cache/unpacked/*", rel))
	}
	var out []string
	for _, p := range patterns {
		found, _ := filepath.Glob(p)
		if len(found) > 0 && len(out) == 0 {
			out = found
		}
	}
	return out
}

func moduleRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	return ""
}
