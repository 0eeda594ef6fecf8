package reserve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Name of the reserve's file, in the data folder.
const Name = "disk-reserve"

// Disk is a file system as it is now.
type Disk struct {
	Total    uint64
	Free     uint64 // for everybody; what the reserve holds is not free
	Reserve  uint64 // what the reserve holds
	InMemory bool
}

// Low tells whether it is nearly full.
func (d Disk) Low() bool { return d.Free < limitsOf(d.Total).low }

// Look asks the file system that dir is on.
func Look(dir string) (Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Disk{}, fmt.Errorf("look at disk space: statfs %s: %w", dir, err)
	}
	d := Disk{Total: s.Blocks * uint64(s.Bsize), Free: s.Bavail * uint64(s.Bsize)}
	d.InMemory = s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC
	var f unix.Stat_t
	err := unix.Lstat(filepath.Join(dir, Name), &f)
	if err == nil {
		d.Reserve = uint64(f.Blocks) * 512 // stat(2)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Disk{}, fmt.Errorf("look at the disk reserve: %w", err)
	}
	return d, nil
}

// take has the file hold so many bytes: all of them, or there is none. A file that a power cut left half done is
// continued.
func take(dir string, bytes uint64) (err error) {
	path := filepath.Join(dir, Name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("take the disk reserve: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(fmt.Errorf("take the disk reserve: %w", err), release(dir))
		}
	}()
	for {
		// Extents without content: the disk is not written to, and nothing that was deleted shows.
		if err = unix.Fallocate(int(f.Fd()), 0, 0, int64(bytes)); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// release makes room. It works on a disk that has no block left.
func release(dir string) error {
	if err := os.Remove(filepath.Join(dir, Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give the disk reserve up: %w", err)
	}
	return nil
}

// SameFileSystem tells whether what is freed in one folder is of use to the other.
func SameFileSystem(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev
}
