package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"keelson/init/layout"
)

// MountReadOnly mounts a volume below /run/keelson, without honouring device
// files, setuid bits or programs on it.
func MountReadOnly(v Volume) (Mounted, error) {
	dir := filepath.Join(layout.Run, "source", filepath.Base(v.Device))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Mounted{}, fmt.Errorf("mount %s: %w", v.Device, err)
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	if err := unix.Mount(v.Device, dir, v.FSType, flags, ""); err != nil {
		return Mounted{}, fmt.Errorf("mount %s as %s: %w", v.Device, v.FSType, err)
	}
	return Mounted{Dir: dir, Close: func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return errors.Join(fmt.Errorf("unmount %s: %w", v.Device, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
		return os.Remove(dir)
	}}, nil
}
