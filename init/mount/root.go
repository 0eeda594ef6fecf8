package mount

import (
	"fmt"
	"os"
	"path/filepath"

	"keelson/init/layout"

	"golang.org/x/sys/unix"
)

// newRoot is where the root is before the switch.
const newRoot = "/newroot"

// Root mounts the verified root from its device-mapper node.
func Root(device string) error {
	return point{device, newRoot, "erofs", unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID, ""}.mount()
}

// SwitchRoot makes the mounted root the root of every process, the kernel's
// threads included, and gives the initramfs' memory back, but for the running
// program.
//
// The process is not replaced: its code stays in the memory of the initramfs,
// so that a damaged root cannot take PID 1's own pages away, and open sockets
// lose no event.
func SwitchRoot() error {
	old, err := os.OpenRoot("/")
	if err != nil {
		return fmt.Errorf("open the initramfs: %w", err)
	}
	defer old.Close()
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the root: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch to the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter /: %w", err)
	}
	for _, name := range []string{"lib", "usr", "init"} {
		if err := old.RemoveAll(name); err != nil {
			return fmt.Errorf("empty the initramfs: %w", err)
		}
	}
	return nil
}

// Volatile mounts the file systems in memory: /tmp, and /etc filled from the
// image.
func Volatile() error {
	for _, p := range []point{
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/etc", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := p.mount(); err != nil {
			return err
		}
	}
	return copyTree(layout.FactoryEtc, "/etc")
}

// copyTree copies directories, files and symbolic links.
func copyTree(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("fill %s: %w", to, err)
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if err := copyOne(e, src, dst); err != nil {
			return fmt.Errorf("fill %s: %w", dst, err)
		}
	}
	return nil
}

func copyOne(e os.DirEntry, src, dst string) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		if err := os.Mkdir(dst, mode.Perm()); err != nil && !os.IsExist(err) {
			return err
		}
		return copyTree(src, dst)
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	case mode.IsRegular():
		data, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, data, mode.Perm())
	default:
		return fmt.Errorf("%s is neither file, directory nor link", src)
	}
}
