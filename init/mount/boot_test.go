package mount

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"keelson/init/layout"

	"golang.org/x/sys/unix"
)

// inside tells a test that it is in a mount namespace of its own; its value is the folder that becomes its initramfs.
const inside = "KEELSON_TEST_MOUNTS"

// initramfs runs a test anew in a process whose mounts are its own and whose root is an empty file system in memory
// with the folders dir. It is true in that process; elsewhere the test was run when it returns. Files of prepare are
// made before, where the host's tools can be reached.
func initramfs(t *testing.T, prepare func(dir string)) bool {
	t.Helper()
	if dir := os.Getenv(inside); dir != "" {
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("tmpfs", filepath.Join(dir, "root"), "tmpfs", 0, "mode=0755"),
			os.Mkdir(filepath.Join(dir, "root", "files"), 0o755),
			unix.Mount(filepath.Join(dir, "files"), filepath.Join(dir, "root", "files"), "", unix.MS_BIND, ""),
			unix.Chroot(filepath.Join(dir, "root")), os.Chdir("/"),
		); errors.Is(err, unix.EPERM) {
			t.Skipf("SKIPPED: mounts are forbidden here: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	dir := t.TempDir()
	for _, name := range []string{"root", "files"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if prepare != nil {
		prepare(filepath.Join(dir, "files"))
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("SKIPPED: mount namespaces are forbidden here: %v", err)
	case err != nil:
		t.Fatalf("in its namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
	return false
}

// mounted lists this process' mount points and their options, in the order of their mounting.
func mounted(t *testing.T) (points []string, options map[string]string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if points, err = ParsePoints(string(b)); err != nil {
		t.Fatal(err)
	}
	options = map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		options[f[4]] = f[5] + " " + strings.Join(f[6:], " ")
	}
	return points, options
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// The mounts of a boot in their order, from an initramfs to a root in memory that stands for the verified one.
func TestBootsMounts(t *testing.T) {
	if !initramfs(t, nil) {
		return
	}
	for _, name := range []string{"/init", "/usr/lib/module.ko", "/lib/link", "/kept"} {
		mustWrite(t, name, "of the initramfs")
	}
	old, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()

	if err := Pseudo(); err != nil {
		t.Fatal(err)
	}
	_, options := mounted(t)
	for at, want := range map[string]string{
		"/proc": "nosuid,nodev,noexec", "/sys": "nosuid,nodev,noexec", "/dev": "nosuid", "/dev/pts": "nosuid,noexec",
		"/dev/shm": "nosuid,nodev", "/run": "nosuid,nodev", "/dev/mqueue": "nosuid,nodev,noexec",
	} {
		for _, o := range strings.Split(want, ",") {
			if !strings.Contains(options[at], o) {
				t.Errorf("%s: got %q, want %s among its options", at, options[at], o)
			}
		}
	}
	if strings.Contains(options["/run"], "noexec") {
		t.Errorf("/run: got %q; containers' bundles are run from there", options["/run"])
	}
	if target, err := os.Readlink("/dev/stdin"); err != nil || target != "/proc/self/fd/0" {
		t.Errorf("/dev/stdin: got %q, %v", target, err)
	}
	if err := Kernel(); err != nil {
		t.Errorf("what this kernel may lack: %v", err)
	}

	if err := (point{"tmpfs", newRoot, "tmpfs", 0, "mode=0755"}).mount(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "var"} {
		if err := os.Mkdir(filepath.Join(newRoot, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, newRoot+layout.FactoryEtc+"/ssl/ca.pem", "certificate")
	if err := SwitchRoot(); err != nil {
		t.Fatal(err)
	}
	names, err := old.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"init", "usr", "lib"} {
		if slices.Contains(names, gone) {
			t.Errorf("the initramfs still holds %s: %q", gone, names)
		}
	}
	if _, err := os.Stat("/kept"); err == nil {
		t.Error("the initramfs is still the root")
	}
	points, _ := mounted(t)
	for _, at := range []string{"/", "/dev", "/dev/pts", "/proc", "/sys", "/run"} {
		if !slices.Contains(points, at) {
			t.Errorf("%s was left behind: %q", at, points)
		}
	}

	if err := Share(); err != nil {
		t.Fatal(err)
	}
	if err := Volatile(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("/etc/ssl/ca.pem"); err != nil || string(b) != "certificate" {
		t.Errorf("/etc from the image: got %q, %v", b, err)
	}
	if info, err := os.Stat("/tmp"); err != nil || info.Mode()&os.ModeSticky == 0 || info.Mode().Perm() != 0o777 {
		t.Errorf("/tmp: got %v, %v, want a folder for all", info.Mode(), err)
	}
	if _, options = mounted(t); !strings.Contains(options["/tmp"], "shared:") {
		t.Errorf("/tmp: got %q, want it shared with containers", options["/tmp"])
	}
}

// A state in memory has what one on a disk has, and goes away as a whole.
func TestStateInMemory(t *testing.T) {
	if !initramfs(t, nil) {
		return
	}
	if err := Pseudo(); err != nil {
		t.Fatal(err)
	}
	if err := StateInMemory(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat("/var/tmp"); err != nil || info.Mode()&os.ModeSticky == 0 || info.Mode().Perm() != 0o777 {
		t.Errorf("/var/tmp: got %v, %v, want a folder for all", info.Mode(), err)
	}
	for link, want := range map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"} {
		if got, err := os.Readlink(link); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %s", link, got, err, want)
		}
	}
	if err := BindRancher(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, layout.EtcRancher+"/rke2/config.yaml", "token: x\n")
	if _, err := os.Stat(layout.RancherState + "/rke2/config.yaml"); err != nil {
		t.Errorf("settings are not kept with the state: %v", err)
	}
	if err := ReleaseState(); err != nil {
		t.Fatal(err)
	}
	if points, _ := mounted(t); slices.Contains(points, layout.State) || slices.Contains(points, layout.EtcRancher) {
		t.Errorf("mounts: got %q, want none of the state", points)
	}
	if err := ReleaseState(); err == nil || !strings.Contains(err.Error(), "unmount "+layout.EtcRancher) {
		t.Errorf("a state that is not there: got %v, want an error that names the place", err)
	}
}

// The state of a disk grows with its partition while it is in use, ends with all that is mounted below, and is made
// read-only where something keeps it.
func TestStateOfADisk(t *testing.T) {
	const small, large = 32 << 20, 96 << 20
	if !initramfs(t, func(dir string) {
		mkfs, err := exec.LookPath("mkfs.ext4")
		if err != nil {
			t.Skip("SKIPPED: mkfs.ext4 is not installed (package e2fsprogs)")
		}
		disk := filepath.Join(dir, "state.ext4")
		mustWrite(t, disk, "")
		if err := os.Truncate(disk, large); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(mkfs, "-q", "-b", "4096", disk, "32M").CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
	}) {
		return
	}
	if err := Pseudo(); err != nil {
		t.Fatal(err)
	}
	device := loop(t, "/files/state.ext4")
	if err := State(device); err != nil {
		t.Fatal(err)
	}
	size := func() uint64 {
		var s unix.Statfs_t
		if err := unix.Statfs(layout.State, &s); err != nil {
			t.Fatal(err)
		}
		return s.Blocks * uint64(s.Bsize)
	}
	if got := size(); got > small {
		t.Fatalf("state: got %d bytes, want at most %d", got, small)
	}
	may, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	switch err := GrowState(large); {
	case may == 0 && errors.Is(err, unix.EPERM):
		t.Log("not tried here: only a process with CAP_SYS_RESOURCE may enlarge an ext4")
	case err != nil:
		t.Fatal(err)
	}
	if got := size(); may != 0 && got < 2*small {
		t.Errorf("state that has grown: got %d bytes, want nearly %d", got, large)
	}
	if _, options := mounted(t); !strings.Contains(options[layout.State], "nosuid,nodev,noatime") || !strings.Contains(options[layout.State], "errors=remount-ro") {
		t.Errorf("state: got %q", options[layout.State])
	}

	below := filepath.Join(layout.State, "lib", "with space")
	if err := (point{"tmpfs", below, "tmpfs", 0, ""}).mount(); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(filepath.Join(layout.State, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := UnmountState(layout.State); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a state with a file open to be written: got %v, want an error", err)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := os.Open(filepath.Join(layout.State, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := UnmountState(layout.State); err != nil {
		t.Errorf("a state with a file open to be read: %v", err)
	}
	points, options := mounted(t)
	if slices.Contains(points, below) || !strings.HasPrefix(options[layout.State], "ro,") {
		t.Errorf("state that is kept busy: got %q of %q, want it read-only and nothing below", options[layout.State], points)
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"in use until now", "gone"} {
		if err := UnmountState(layout.State); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if points, _ := mounted(t); slices.Contains(points, layout.State) {
			t.Errorf("%s: state is still mounted: %q", want, points)
		}
	}
}

// loop is a device whose content is the file's, until the process ends.
func loop(t *testing.T, path string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("SKIPPED: no loop devices: %v", err)
	}
	defer control.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := "/dev/loop" + strconv.Itoa(n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) {
			device.Close()
			continue // somebody else took it
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { device.Close() })
		return name
	}
}

// What cannot be mounted is named with its place.
func TestMountErrors(t *testing.T) {
	if !initramfs(t, nil) {
		return
	}
	if err := Pseudo(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, "/file", "")
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"no device for the root", func() error { return Root("/dev/mapper/none") }, "mount erofs on /newroot: no such file or directory"},
		{"no device for the state", func() error { return State("/dev/none") }, "mount ext4 on /var: no such file or directory"},
		{"a file in the way", func() error { return point{"tmpfs", "/file/below", "tmpfs", 0, ""}.mount() }, "mount /file/below: mkdir /file: not a directory"},
		{"no settings kept", BindRancher, "bind " + layout.RancherState + " on " + layout.EtcRancher},
		{"no factory settings", Volatile, "fill /etc: open " + layout.FactoryEtc},
		{"growing what is not ext4", func() error { return GrowState(1 << 20) }, "enlarge the state to 256 blocks: inappropriate ioctl for device"},
		{"a root that is no mount", SwitchRoot, "move /dev to the root: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
