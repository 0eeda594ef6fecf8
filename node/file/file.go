// Package file writes files whole or not at all. It is the one place in node that does, and every file that must
// survive a power cut goes through it: new bytes stand in a temporary file beside the target, reach the disk, and
// take the target's name in one rename, which reaches the disk too before the call returns.
//
// It never makes folders and never follows the target when that is a symbolic link: the link is replaced.
package file

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file to be.
type File struct {
	Path string
	Data []byte
	Mode fs.FileMode // permission bits, kept whatever the umask says
}

// prefix and suffix mark temporary files. kubelet and containerd skip names that begin with a dot.
const (
	prefix = "."
	suffix = ".keelson-tmp"
)

// fewFiles is the most files that are synced one by one; for more, one sync of the file system costs less.
const fewFiles = 3

// Write puts data into path.
func Write(path string, data []byte, mode fs.FileMode) error {
	return WriteAll([]File{{Path: path, Data: data, Mode: mode}})
}

// Ensure makes path hold data with mode, and tells whether it had to write.
func Ensure(path string, data []byte, mode fs.FileMode) (changed bool, err error) {
	if Same(File{Path: path, Data: data, Mode: mode}) {
		return false, nil
	}
	return true, Write(path, data, mode)
}

// Same tells whether f is on disk already, as a regular file of these bytes and this mode.
func Same(f File) bool {
	info, err := os.Lstat(f.Path)
	if err != nil || info.Mode() != f.Mode.Perm() || info.Size() != int64(len(f.Data)) {
		return false
	}
	have, err := os.ReadFile(f.Path)
	return err == nil && bytes.Equal(have, f.Data)
}

// WriteAll writes several files. Each is whole or untouched, whenever the power goes; they take their names in the
// order given; and all are on disk when WriteAll returns.
func WriteAll(files []File) (err error) {
	temps := make([]string, 0, len(files))
	defer func() {
		for _, t := range temps {
			_ = os.Remove(t)
		}
	}()
	each := len(files) <= fewFiles
	for _, f := range files {
		temp, err := writeTemp(f, each)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		temps = append(temps, temp)
	}
	folders := map[string]bool{}
	for _, f := range files {
		folders[filepath.Dir(f.Path)] = true
	}
	if !each {
		if err := syncAll(folders, unix.Syncfs); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := os.Rename(temps[0], f.Path); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		temps = temps[1:]
	}
	return syncAll(folders, unix.Fsync)
}

// Symlink makes path a symbolic link to target, in place of whatever file or link is there.
func Symlink(target, path string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), prefix+filepath.Base(path)+".*"+suffix)
	if err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	name := temp.Name()
	_ = temp.Close()
	defer os.Remove(name)
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Symlink(target, name); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Rename(name, path); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return syncAll(map[string]bool{filepath.Dir(path): true}, unix.Fsync)
}

// Sweep removes the temporary files that a power cut left in a folder. Call it before the first write of a
// process: beside a writer it would take that one's file away.
func Sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) && !e.IsDir() {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
	}
	return nil
}

// writeTemp puts f's bytes beside its path and gives the temporary name.
func writeTemp(f File, sync bool) (name string, err error) {
	temp, err := os.CreateTemp(filepath.Dir(f.Path), prefix+filepath.Base(f.Path)+".*"+suffix)
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := temp.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if err := temp.Chmod(f.Mode.Perm()); err != nil {
		return "", err
	}
	if _, err := temp.Write(f.Data); err != nil {
		return "", err
	}
	if sync {
		if err := temp.Sync(); err != nil {
			return "", err
		}
	}
	return temp.Name(), nil
}

func syncAll(folders map[string]bool, sync func(fd int) error) error {
	for folder := range folders {
		d, err := os.Open(folder)
		if err != nil {
			return fmt.Errorf("sync folder: %w", err)
		}
		err = sync(int(d.Fd()))
		_ = d.Close()
		if err != nil {
			return fmt.Errorf("sync folder %s: %w", folder, err)
		}
	}
	return nil
}
