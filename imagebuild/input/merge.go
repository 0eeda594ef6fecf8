package input

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Merge makes one folder of the files of several packages, as if they were installed, and returns its name: the folder lies in
// cache under a name made of the packages' hashes, and is made once. Files are shared with the packages' own folders, so both
// must be on one file system. A file that two packages have is an error, as it is to dpkg.
func Merge(cache string, packages []Package) (string, error) {
	h := sha256.New()
	for _, p := range packages {
		fmt.Fprintln(h, p.SHA256)
	}
	dir := filepath.Join(cache, hex.EncodeToString(h.Sum(nil)))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for merged packages: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("merge packages: %w", err)
	}
	work, err := os.MkdirTemp(cache, ".merge-")
	if err != nil {
		return "", fmt.Errorf("merge packages: %w", err)
	}
	defer os.RemoveAll(work)
	for _, p := range packages {
		if err := mergeOne(work, p.Dir); err != nil {
			return "", fmt.Errorf("merge package %s: %w", p.Name, err)
		}
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return "", fmt.Errorf("merge packages: %w", err)
	}
	// Another build may have been faster.
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("merge packages: %w", err)
	}
	return dir, nil
}

func mergeOne(to, from string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			points, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(points, target)
		}
		return os.Link(name, target)
	})
}
