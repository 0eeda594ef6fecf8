package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"time"

	"keelson/imagebuild/esp"
	"keelson/imagebuild/tree"
	"keelson/init/layout"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// Bounds of what is read from a volume: more is none of ours.
const (
	maxFiles = 1000
	maxDepth = 8
)

// volume reads every file of the ESP; nil where it cannot be read.
func (r *Report) volume(f *os.File, p partition) map[string][]byte {
	if err := checkFAT(io.NewSectionReader(f, p.start, p.end-p.start), p.end-p.start); err != nil {
		r.problem(regionESP, "%v", err)
		return nil
	}
	files := map[string][]byte{}
	if err := readVolume(f, p, files); err != nil {
		r.problem(regionESP, "%v", err)
		return nil
	}
	return files
}

// readVolume reads by go-diskfs, which trusts a volume more than is good.
func readVolume(f *os.File, p partition, files map[string][]byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the directories cannot be read: %v", v)
		}
	}()
	vol, err := fat32.Read(file.New(f, true), p.end-p.start, p.start, sector)
	if err != nil {
		return err
	}
	return readDir(vol, ".", files, 0)
}

func readDir(vol *fat32.FileSystem, dir string, files map[string][]byte, depth int) error {
	if depth > maxDepth {
		return errors.New("directories are nested too deeply")
	}
	entries, err := vol.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.Name() == "." || e.Name() == ".." {
			continue
		}
		if e.IsDir() {
			if err := readDir(vol, name, files, depth+1); err != nil {
				return err
			}
			continue
		}
		if len(files) >= maxFiles {
			return errors.New("too many files")
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		name = "/" + name
		in, err := vol.OpenFile(name, os.O_RDONLY)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if files[name], err = io.ReadAll(io.LimitReader(in, min(info.Size(), layout.ESPSize))); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkFAT sees to it that the allocation table can be followed: both copies
// are the same and no chain runs into itself or another one.
func checkFAT(r io.ReaderAt, size int64) error {
	boot := make([]byte, sector)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	reserved, length := int64(le.Uint16(boot[14:]))*sector, int64(le.Uint32(boot[36:]))*sector
	if boot[510] != 0x55 || boot[511] != 0xaa || le.Uint16(boot[11:]) != sector || boot[16] != 2 || boot[13] == 0 || reserved == 0 ||
		length == 0 || reserved+2*length >= size || length > size/64 {
		return errors.New("the boot sector is not that of a FAT32 volume of ours")
	}
	both := make([]byte, 2*length)
	if _, err := r.ReadAt(both, reserved); err != nil {
		return err
	}
	fat := both[:length]
	if !bytes.Equal(fat, both[length:]) {
		return errors.New("its two allocation tables differ")
	}
	clusters := uint32(min((size-reserved-2*length)/(int64(boot[13])*sector)+2, length/4))
	next := func(c uint32) uint32 { return le.Uint32(fat[4*c:]) & 0x0fffffff }
	pointed := make([]bool, clusters)
	for c := uint32(2); c < clusters; c++ {
		n := next(c)
		if n < 2 || n >= 0x0ffffff7 {
			continue
		}
		if n >= clusters || pointed[n] {
			return fmt.Errorf("the allocation of cluster %d leads nowhere or to another file", c)
		}
		pointed[n] = true
	}
	// With one pointer to each at most, what has no beginning is a ring.
	seen := make([]bool, clusters)
	for c := uint32(2); c < clusters; c++ {
		if pointed[c] {
			continue
		}
		for at := c; at >= 2 && at < clusters && !seen[at]; at = next(at) {
			seen[at] = true
		}
	}
	for c := uint32(2); c < clusters; c++ {
		if pointed[c] && !seen[c] {
			return fmt.Errorf("the allocation of cluster %d is a ring", c)
		}
	}
	return nil
}

// rewrite writes the volume anew from its own files and compares: names,
// times, allocation and what is free must be the same.
func (r *Report) rewrite(f *os.File, p partition, files map[string][]byte, kernel *kernelImage) {
	if files == nil || len(r.Added) > 0 {
		return // somebody's own files: the rest of the volume is theirs too
	}
	if err := compare(f, p, files, kernel); err != nil {
		r.problem(regionESP, "%v", err)
	}
}

func compare(f *os.File, p partition, files map[string][]byte, kernel *kernelImage) error {
	epoch, err := strconv.ParseInt(kernel.params[layout.ParamEpoch], 10, 64)
	if err != nil {
		return fmt.Errorf("the command line has no time: %w", err)
	}
	boot := make([]byte, sector)
	if _, err := f.ReadAt(boot, p.start); err != nil {
		return err
	}
	fresh, err := os.CreateTemp("", "keelson-esp-*")
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name())
	defer fresh.Close()
	var t tree.Tree
	for name, content := range files {
		if err := t.Bytes(name, 0o644, content); err != nil {
			return err
		}
	}
	options := esp.Options{Size: p.end - p.start, Label: layout.LabelESP, Serial: binary.LittleEndian.Uint32(boot[67:]), Time: time.Unix(epoch, 0)}
	if err := esp.Write(fresh, &t, options); err != nil {
		return err
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < options.Size; at += int64(len(a)) {
		if _, err := f.ReadAt(a, p.start+at); err != nil {
			return err
		}
		if _, err := fresh.ReadAt(b, at); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			i := 0
			for a[i] == b[i] {
				i++
			}
			return fmt.Errorf("byte %d of the partition is not what a fresh volume of its files has there", at+int64(i))
		}
	}
	return nil
}
