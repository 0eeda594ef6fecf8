package datadisk

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"keelson/init/userdata"
)

// unfinishedSwap is what a file is called before it is swap; nobody else has such a name.
const unfinishedSwap = ".keelson-swap"

// leastSwap is below what swap is of any use.
const leastSwap = 16 << 20

// swap makes the file where it is not as asked, and uses it.
func (c Config) swap(s userdata.Swap) error {
	path := filepath.Join(c.Root, s.Path)
	page := int64(os.Getpagesize())
	if s.Size == 0 && isSwap(path, -1, page) || s.Size > 0 && isSwap(path, s.Size/page*page, page) {
		return swapOn(path)
	}
	size := s.Size
	if size == 0 {
		var info unix.Sysinfo_t
		var disk unix.Statfs_t
		if err := errors.Join(unix.Sysinfo(&info), unix.Statfs(filepath.Dir(path), &disk)); err != nil {
			return fmt.Errorf("size of the memory: %w", err)
		}
		size = automatic(int64(info.Totalram)*int64(info.Unit), int64(disk.Bavail)*disk.Bsize, s.Max)
	}
	if size = size / page * page; size < leastSwap {
		return fmt.Errorf("%d MiB of swap are of no use; give it %d MiB or more, or the disk more room", size>>20, leastSwap>>20)
	}
	if err := makeSwap(path, size, page); err != nil {
		return err
	}
	return swapOn(path)
}

// automatic is as much as there is memory, within a quarter of the free disk
// and the bound that was given.
func automatic(memory, free, bound int64) int64 {
	size := min(memory, free/4)
	if bound > 0 {
		size = min(size, bound)
	}
	return size
}

// isSwap reports whether a file is swap space of that size, -1 for any.
func isSwap(path string, size, page int64) bool {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() || size >= 0 && st.Size() != size {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 10)
	_, err = f.ReadAt(magic, page-10)
	return err == nil && string(magic) == "SWAPSPACE2"
}

// replaceable says why what is at the path must stay, nil where there is nothing: no file, an empty one, zeros, or swap of
// another size.
func replaceable(path string, page int64) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no file; name another", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, page)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if len(bytes.Trim(head[:n], "\x00")) > 0 && !isSwap(path, -1, page) {
		return fmt.Errorf("%s holds something else than swap and is not touched; name another file", path)
	}
	return nil
}

// makeSwap writes the header of version 1 (union swap_header of
// include/linux/swap.h) into a file without holes. Until that is whole it has
// another name, so that a power cut leaves nothing that is taken for data.
func makeSwap(path string, size, page int64) error {
	head := make([]byte, page)
	binary.NativeEndian.PutUint32(head[1024:], 1)
	binary.NativeEndian.PutUint32(head[1028:], uint32(size/page-1))
	rand.Read(head[1036:1052])
	copy(head[page-10:], "SWAPSPACE2")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := replaceable(path, page); err != nil {
		return err
	}
	// The room of an old one is needed, too.
	unfinished := filepath.Join(filepath.Dir(path), unfinishedSwap)
	for _, old := range []string{path, unfinished} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if err == nil {
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(unfinished, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make %s of %d MiB: %w", path, size>>20, err), os.Remove(unfinished))
	}
	return nil
}

func swapOn(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 && errno != unix.EBUSY { // it is on
		return fmt.Errorf("use %s as swap: %w", path, errno)
	}
	return nil
}

// SwapOff takes the file out of use, which must be before its file system is
// unmounted.
func SwapOff(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 && errno != unix.EINVAL { // it is not on
		return fmt.Errorf("take %s out of use: %w", path, errno)
	}
	return nil
}
