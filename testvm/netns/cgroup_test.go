package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseHierarchies(t *testing.T) {
	const (
		disk    = "24 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
		cpu     = "30 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
		memory  = "31 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		systemd = "32 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
		unified = "33 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
		part    = "34 25 0:29 /docker/1 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
	)
	for _, c := range []struct {
		name, mountinfo string
		want            []hierarchy
	}{
		{"none", disk, nil},
		{"version 1", disk + cpu + memory + systemd, []hierarchy{{"/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"}, {"/sys/fs/cgroup/memory", "memory"}}},
		{"both", unified + memory, []hierarchy{{"/sys/fs/cgroup/memory", "memory"}}},
		{"version 2", disk + unified, []hierarchy{{mount: "/sys/fs/cgroup/unified"}}},
		{"version 2 and systemd's name", systemd + unified, []hierarchy{{mount: "/sys/fs/cgroup/unified"}}},
		{"a part of one", part, nil},
		{"nonsense", "a - b\n - \nx\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseHierarchies([]byte(c.mountinfo)); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzParseHierarchies(f *testing.F) {
	f.Add([]byte("31 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"))
	f.Fuzz(func(t *testing.T, mountinfo []byte) {
		for _, h := range parseHierarchies(mountinfo) {
			if h.mount == "" {
				t.Errorf("a hierarchy without a mount: %+v", h)
			}
		}
	})
}

// What a machine made in its cgroups is gone when it starts again, and they are not.
func TestClear(t *testing.T) {
	needRoot(t)
	g, err := newCgroups("clear")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.remove(); err != nil {
			t.Error(err)
		}
	})
	for _, h := range g.all {
		if err := os.MkdirAll(filepath.Join(h.mount, g.name, "kubepods", "burstable", "pod1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := g.clear(); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range g.all {
		if left, err := filepath.Glob(filepath.Join(h.mount, g.name, "kubepods")); err != nil || len(left) != 0 {
			t.Errorf("%s: got %v, %v, want nothing left", h.mount, left, err)
		}
		if _, err := os.Stat(filepath.Join(h.mount, g.name)); err != nil {
			t.Errorf("the machine's own: %v", err)
		}
	}
}

// A run whose process is gone leaves cgroups, and maybe processes in them: both go. Those of a run that lives stay.
func TestSweep(t *testing.T) {
	needRoot(t)
	ours, err := newCgroups("sweep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ours.remove(); err != nil {
			t.Error(err)
		}
	})
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	left := &cgroups{ours.all, filepath.Join(cgroupRoot, fmt.Sprintf("%d-left", dead.Process.Pid))}
	for _, h := range left.all {
		if err := h.make(left.name + "/kubepods/pod1"); err != nil {
			t.Fatal(err)
		}
	}
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	if err := (&cgroups{left.all, left.name + "/kubepods/pod1"}).enter(sleeper.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process that was left: got %v, want it killed", err)
	}
	for _, h := range left.all {
		if _, err := os.Stat(filepath.Join(h.mount, left.name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %s is still there (%v)", h.mount, left.name, err)
		}
		if _, err := os.Stat(filepath.Join(h.mount, ours.name)); err != nil {
			t.Errorf("a run that lives lost its own: %v", err)
		}
	}
}

func TestOpenRoot(t *testing.T) {
	if _, err := OpenRoot(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "make image") {
		t.Errorf("no image: got %v, want advice", err)
	}
	needRoot(t)
	file := filepath.Join(t.TempDir(), "root.erofs")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRoot(file)
	if err != nil {
		t.Fatal(err)
	}
	backing := filepath.Join("/sys/block", filepath.Base(r.path), "loop/backing_file")
	if got, err := os.ReadFile(backing); err != nil || strings.TrimSpace(string(got)) != file {
		t.Errorf("backing file: got %q, %v, want %s", got, err, file)
	}
	if readOnly, err := unix.IoctlGetInt(int(r.loop.Fd()), unix.BLKROGET); err != nil || readOnly != 1 {
		t.Errorf("the device is read-only: got %d, %v, want 1", readOnly, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(backing); err == nil && strings.TrimSpace(string(got)) == file {
		t.Error("the device is still in use")
	}
}
