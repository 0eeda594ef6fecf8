package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kept is how many old folders of data stay (k3s pkg/etcd, with its etcd-backup-<unix>).
const kept = 5

const oldPrefix = "etcd-old-"

// Replace puts a member's folder away as db/etcd-old-<unix> and has one with files in its place, in one step: a power
// cut leaves the old folder or the new one. The newest 5 old folders stay. It refuses while etcd runs.
func Replace(dataDir string, files map[string][]byte, now time.Time) (old string, err error) {
	dir := Dir(dataDir)
	if err := free(dir); err != nil {
		return "", fmt.Errorf("put %s away: %w", dir, err)
	}
	for at := now.Unix(); ; at++ {
		old = filepath.Join(filepath.Dir(dir), oldPrefix+strconv.FormatInt(at, 10))
		if err := os.Mkdir(old, 0o700); err == nil {
			break
		} else if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("put %s away: %w", dir, err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(old, name), content, 0o600); err != nil {
			return "", fmt.Errorf("put %s away: %w", dir, err)
		}
	}
	if err := syncDir(old); err != nil {
		return "", err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return "", fmt.Errorf("put %s away: %w", dir, err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return "", err
	}
	return old, prune(filepath.Dir(dir))
}

// free refuses when somebody has the database open. etcd's lock on it goes with its process.
func free(dir string) error {
	f, err := os.Open(filepath.Join(dir, "member", "snap", "db"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // which gives the lock back
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(ErrInUse, err)
	}
	return nil
}

// Running tells whether somebody has a member's database open.
func Running(dataDir string) (bool, error) {
	err := free(Dir(dataDir))
	if errors.Is(err, ErrInUse) {
		return true, nil
	}
	return false, err
}

// syncDir makes what a folder holds survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := syncFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func prune(db string) error {
	entries, err := os.ReadDir(db)
	if err != nil {
		return fmt.Errorf("look for old member data: %w", err)
	}
	var ages []int64
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e.Name(), oldPrefix); ok {
			if age, err := strconv.ParseInt(text, 10, 64); err == nil {
				ages = append(ages, age)
			}
		}
	}
	slices.Sort(ages)
	for _, age := range ages[:max(0, len(ages)-kept)] {
		if err := os.RemoveAll(filepath.Join(db, oldPrefix+strconv.FormatInt(age, 10))); err != nil {
			return fmt.Errorf("remove old member data: %w", err)
		}
	}
	return nil
}
