package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"keelson/init/layout"

	"golang.org/x/sys/unix"
)

// State mounts the checked ext4 on /var and gives it the folders that the
// machine counts on.
func State(device string) error {
	p := point{device, layout.State, "ext4", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME, "errors=remount-ro"}
	if err := p.mount(); err != nil {
		return err
	}
	return stateFolders()
}

// StateInMemory mounts a state that ends with the machine. It may take most of the memory: what a node needs for itself
// stays below what is left.
func StateInMemory() error {
	p := point{"tmpfs", layout.State, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=60%"}
	if err := p.mount(); err != nil {
		return err
	}
	return stateFolders()
}

func stateFolders() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{layout.StateKeelson, 0o755}, {layout.RancherState, 0o755}, {layout.Logs, 0o755},
		{"/var/log/pods", 0o755}, {"/var/log/containers", 0o755}, {"/var/lib/rancher", 0o755}, {"/var/tmp", 0o1777},
	} {
		if err := os.MkdirAll(d.path, d.mode.Perm()); err != nil {
			return fmt.Errorf("make folders of the state: %w", err)
		}
	}
	if err := os.Chmod("/var/tmp", 0o777|os.ModeSticky); err != nil {
		return fmt.Errorf("make folders of the state: %w", err)
	}
	for _, l := range []struct{ target, link string }{{"/run", "/var/run"}, {"/run/lock", "/var/lock"}} {
		if err := os.Symlink(l.target, l.link); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make folders of the state: %w", err)
		}
	}
	return nil
}

// BindRancher puts the kept settings of the node at their place in /etc.
func BindRancher() error {
	if err := os.MkdirAll(layout.EtcRancher, 0o755); err != nil {
		return fmt.Errorf("bind %s: %w", layout.EtcRancher, err)
	}
	if err := unix.Mount(layout.RancherState, layout.EtcRancher, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", layout.RancherState, layout.EtcRancher, err)
	}
	return nil
}

// ReleaseState takes the state away again, before anything of the node uses it.
func ReleaseState() error {
	for _, at := range []string{layout.EtcRancher, layout.State} {
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return nil
}

// ext4ResizeIoctl is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) of fs/ext4/ext4.h.
const ext4ResizeIoctl = 1<<30 | 8<<16 | 'f'<<8 | 16

// GrowState enlarges the mounted state to the size of its partition.
func GrowState(partition uint64) error {
	dir, err := os.Open(layout.State)
	if err != nil {
		return fmt.Errorf("enlarge the state: %w", err)
	}
	defer dir.Close()
	blocks := partition / layout.BlockSize
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4ResizeIoctl, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return fmt.Errorf("enlarge the state to %d blocks: %w", blocks, errno)
	}
	return nil
}

// Cgroup mounts the unified hierarchy and hands every controller down.
func Cgroup() error {
	const root = "/sys/fs/cgroup"
	p := point{"cgroup2", root, "cgroup2", safe, "nsdelegate,memory_recursiveprot"}
	if err := p.mount(); err != nil {
		return err
	}
	return EnableControllers(root)
}

// EnableControllers makes all controllers of a cgroup available to its children.
func EnableControllers(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	return enable(dir, string(b))
}
