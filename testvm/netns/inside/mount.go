package inside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keelson/init/layout"
	"keelson/init/mount"
)

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// point is one file system to mount below the new root.
type point struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (p point) mount(root string) error {
	target := filepath.Join(root, p.target)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", p.target, err)
	}
	if err := unix.Mount(p.source, target, p.kind, p.flags, p.data); err != nil {
		return fmt.Errorf("mount %s %s on %s: %w", p.kind, p.source, p.target, err)
	}
	return nil
}

// bind puts a folder of the host at a place of the machine. What a bind mount may do is a second call's business
// (mount(2)).
func bind(from, to string, flags uintptr) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", from, to, err)
	}
	if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", from, to, err)
	}
	return nil
}

// fileSystems puts the machine's root together and makes it the root of this process.
func fileSystems(c Config) error {
	// Nothing that is mounted from now on is seen by the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	if c.Folder {
		if err := bind(c.Root, c.At, unix.MS_RDONLY); err != nil {
			return err
		}
	} else if err := unix.Mount(c.Root, c.At, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("mount root %s: %w", c.Root, err)
	}
	if err := bind(c.State, filepath.Join(c.At, layout.State), unix.MS_NOSUID|unix.MS_NODEV); err != nil {
		return err
	}
	for _, p := range []point{
		{"proc", "/proc", "proc", safe, ""},
		// Read-only: the devices behind it are the host's.
		{"sysfs", "/sys", "sysfs", safe | unix.MS_RDONLY, ""},
		{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "/dev/mqueue", "mqueue", safe, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := p.mount(c.At); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return devices(filepath.Join(c.At, "dev")) },
		func() error { return cgroups(c) },
		func() error { return hideSysctls(c.At) },
		func() error { return pivot(c.At) },
		mount.Share,
		mount.Volatile,
		folders,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// devices makes the nodes that every Linux program counts on (Documentation/admin-guide/devices.txt), and the kernel
// log, which kubelet reads.
func devices(dir string) error {
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"kmsg", 1, 11}, {"tty", 5, 0},
	} {
		path := filepath.Join(dir, d.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make device %s: %w", d.name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // against the umask
			return fmt.Errorf("make device %s: %w", d.name, err)
		}
	}
	for link, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			return fmt.Errorf("make device %s: %w", link, err)
		}
	}
	return nil
}

// cgroups mounts what the host has, of which the namespace shows the machine's part alone.
func cgroups(c Config) error {
	const at = "/sys/fs/cgroup"
	if len(c.Cgroups) == 0 {
		return point{"cgroup2", at, "cgroup2", safe, ""}.mount(c.At)
	}
	if err := (point{"tmpfs", at, "tmpfs", safe, "mode=0755"}).mount(c.At); err != nil {
		return err
	}
	for _, h := range c.Cgroups {
		if err := (point{"cgroup", filepath.Join(at, h.Name), "cgroup", safe, h.Controllers}).mount(c.At); err != nil {
			return err
		}
	}
	return nil
}

// ownSysctls are those that kubelet sets and that belong to the whole kernel (k8s.io/kubernetes
// pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables): the machine gets files of its own in their place.
func ownSysctls() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// hideSysctls keeps the machine from changing the host's kernel: what is not the network's, which is the machine's
// own, is read-only.
func hideSysctls(root string) error {
	sys := filepath.Join(root, "proc/sys")
	for _, dir := range []string{"vm", "kernel", "fs"} {
		path := filepath.Join(sys, dir)
		if err := bind(path, path, safe|unix.MS_RDONLY); err != nil {
			return err
		}
	}
	for _, name := range ownSysctls() {
		path := filepath.Join(sys, name)
		value, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err != nil {
			return fmt.Errorf("read sysctl: %w", err)
		}
		own := filepath.Join(root, "run", "sysctl."+strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(own, value, 0o644); err != nil {
			return fmt.Errorf("copy sysctl: %w", err)
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind sysctl %s: %w", name, err)
		}
	}
	return nil
}

// pivot makes the new root the root, and lets go of the host's (pivot_root(2), "pivot_root(".", ".")").
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return os.Chdir("/")
}

// folders are those that init makes on STATE.
func folders() error {
	for _, dir := range []string{
		layout.StateKeelson, layout.RancherState, layout.Logs, layout.Run, "/var/log/pods", "/var/log/containers",
		"/var/lib/rancher", "/var/tmp",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folders of the state: %w", err)
		}
	}
	if err := os.Symlink("/run", "/var/run"); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folders of the state: %w", err)
	}
	return mount.BindRancher()
}
