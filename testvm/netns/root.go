package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Root is what machines have as their root: the image's EROFS on a loop device that they share, so that the kernel
// keeps its content once, or a folder.
type Root struct {
	path   string
	folder bool
	loop   *os.File // holds the device; the kernel frees it with the last user
}

// OpenRoot opens build/<arch>/root.erofs, or a folder.
func OpenRoot(path string) (*Root, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open root: %w: build the image first (make image)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if info.IsDir() {
		return &Root{path: path, folder: true}, nil
	}
	if err := Check(); err != nil {
		return nil, err
	}
	backing, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	defer backing.Close()
	loop, err := attach(backing)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", path, err)
	}
	return &Root{path: loop.Name(), loop: loop}, nil
}

// attach makes a read-only loop device of a file (loop(4)). Somebody else may be faster at taking the free one.
func attach(backing *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("find a loop device: %w", err)
	}
	defer control.Close()
	for range 16 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{
			Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set %s up: %w", loop.Name(), err)
		}
	}
	return nil, errors.New("find a loop device: each free one was taken by somebody else")
}

// Close lets go of it; machines that run keep it.
func (r *Root) Close() error {
	if r.loop == nil {
		return nil
	}
	return r.loop.Close()
}
