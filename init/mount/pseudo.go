package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// point is one file system to mount.
type point struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// firmware is where the variables of UEFI are.
const firmware = "/sys/firmware/efi/efivars"

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Pseudo mounts the kernel's file systems in the initramfs. SwitchRoot takes
// them along.
func Pseudo() error {
	points := []point{
		{"proc", "/proc", "proc", safe, ""},
		{"sysfs", "/sys", "sysfs", safe, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", safe, ""},
		// containerd and kubelet keep sockets and bundles in /run: no noexec.
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
	for _, p := range points {
		if err := p.mount(); err != nil {
			return err
		}
	}
	for _, l := range []struct{ target, link string }{
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	} {
		if err := os.Symlink(l.target, l.link); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make %s: %w", l.link, err)
		}
	}
	return nil
}

// Kernel mounts what is wanted only once the machine runs from its root. A
// kernel without one of these file systems is fine.
func Kernel() error {
	var errs []error
	for _, p := range []point{
		{"securityfs", "/sys/kernel/security", "securityfs", safe, ""},
		{"bpf", "/sys/fs/bpf", "bpf", safe, "mode=0700"},
		{"tracefs", "/sys/kernel/tracing", "tracefs", safe, "mode=0700"},
		{"pstore", "/sys/fs/pstore", "pstore", safe, ""},
		{"efivarfs", firmware, "efivarfs", safe | unix.MS_RDONLY, ""},
	} {
		if _, err := os.Stat(p.target); err != nil {
			continue
		}
		if err := p.mount(); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Firmware has do write the variables of UEFI, which nobody can else.
func Firmware(do func(dir string) error) error {
	const same = safe | unix.MS_REMOUNT
	err := unix.Mount("", firmware, "", same, "")
	if errors.Is(err, unix.EINVAL) { // it is not mounted
		err = point{"efivarfs", firmware, "efivarfs", safe, ""}.mount()
	}
	if err != nil {
		return fmt.Errorf("make %s writable: %w", firmware, err)
	}
	err = do(firmware)
	if back := unix.Mount("", firmware, "", same|unix.MS_RDONLY, ""); back != nil {
		err = errors.Join(err, fmt.Errorf("make %s read-only: %w", firmware, back))
	}
	return err
}

// Share lets mounts spread to and from containers, as kubelet wants it
// (mount_namespaces(7)). What is mounted below later is shared as well.
func Share() error {
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

func (p point) mount() error {
	if err := os.MkdirAll(p.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", p.target, err)
	}
	if err := unix.Mount(p.source, p.target, p.fstype, p.flags, p.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", p.fstype, p.target, err)
	}
	return nil
}
