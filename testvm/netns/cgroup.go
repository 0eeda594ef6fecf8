package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"keelson/testvm/netns/inside"
)

// cgroupRoot is the folder, in every hierarchy, below which each run has one of its own: <pid>-<machine>.
const cgroupRoot = "keelson-netns"

// hierarchy is a mount of cgroups on the host.
type hierarchy struct {
	mount       string
	controllers string // of version 1; empty for version 2
}

// parseHierarchies reads /proc/self/mountinfo (proc_pid_mountinfo(5)). Where version 1 has controllers, the unified
// hierarchy beside it is of no use; a hierarchy without controllers (systemd's) neither.
func parseHierarchies(mountinfo []byte) []hierarchy {
	var one, two []hierarchy
	for line := range strings.Lines(string(mountinfo)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || left[3] != "/" {
			continue
		}
		switch right[0] {
		case "cgroup2":
			two = append(two, hierarchy{mount: left[4]})
		case "cgroup":
			controllers := slices.DeleteFunc(strings.Split(right[2], ","), func(o string) bool {
				return o == "rw" || o == "ro" || strings.Contains(o, "=") || o == "xattr" || o == "noprefix" || o == "clone_children"
			})
			if len(controllers) > 0 {
				one = append(one, hierarchy{left[4], strings.Join(controllers, ",")})
			}
		}
	}
	if len(one) > 0 {
		return one
	}
	return two[:min(len(two), 1)]
}

// cgroups are one machine's, in every hierarchy.
type cgroups struct {
	all  []hierarchy
	name string // below each mount
}

// newCgroups makes them.
func newCgroups(machine string) (*cgroups, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	g := &cgroups{parseHierarchies(info), filepath.Join(cgroupRoot, fmt.Sprintf("%d-%s", os.Getpid(), machine))}
	if len(g.all) == 0 {
		return nil, errors.New("find cgroups: none are mounted on this host")
	}
	for _, h := range g.all {
		if err := h.make(g.name); err != nil {
			return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), g.remove())
		}
	}
	return g, nil
}

// make makes the folders of a path below the mount, each able to hold processes and folders.
func (h hierarchy) make(name string) error {
	at := h.mount
	for part := range strings.SplitSeq(name, "/") {
		if h.controllers == "" {
			if err := handDown(at); err != nil {
				return err
			}
		}
		parent := at
		at = filepath.Join(at, part)
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if !slices.Contains(strings.Split(h.controllers, ","), "cpuset") {
			continue
		}
		// A new cpuset of version 1 has neither CPUs nor memory (cpuset(7)), and takes no process then.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(at, file), value, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// handDown gives a cgroup's controllers of version 2 to its children.
func handDown(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return err
		}
	}
	return nil
}

// enter puts a process into them.
func (g *cgroups) enter(pid int) error {
	for _, h := range g.all {
		if err := os.WriteFile(filepath.Join(h.mount, g.name, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return nil
}

// inside is what PID 1 mounts.
func (g *cgroups) inside() []inside.Hierarchy {
	var all []inside.Hierarchy
	for _, h := range g.all {
		if h.controllers != "" {
			all = append(all, inside.Hierarchy{Name: filepath.Base(h.mount), Controllers: h.controllers})
		}
	}
	return all
}

// clear removes what the machine has made in them, which a machine that loses its power does not find again either. To a
// kubelet that starts they would be containers, and cAdvisor looks for the process of each for seconds.
func (g *cgroups) clear() error {
	var errs []error
	for _, h := range g.all {
		dir := filepath.Join(h.mount, g.name)
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			if e.IsDir() {
				errs = append(errs, removeCgroup(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// remove removes them; no process is in them any more.
func (g *cgroups) remove() error {
	var errs []error
	for _, h := range g.all {
		errs = append(errs, removeCgroup(filepath.Join(h.mount, g.name)))
		// The folder of all runs goes with the last of them.
		if err := os.Remove(filepath.Join(h.mount, cgroupRoot)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes a folder of cgroups from the leaves up: the files in it are the kernel's.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// Sweep removes what runs have left behind whose process is gone: cgroups, after the end of whatever is still in
// them. Only machines of this package are ever in these.
func Sweep() error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, h := range parseHierarchies(info) {
		left, err := filepath.Glob(filepath.Join(h.mount, cgroupRoot, "*-*"))
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		for _, dir := range left {
			owner, _, _ := strings.Cut(filepath.Base(dir), "-")
			pid, err := strconv.Atoi(owner)
			if err != nil || unix.Kill(pid, 0) == nil {
				continue
			}
			errs = append(errs, killAll(dir), removeCgroup(dir))
		}
		if err := os.Remove(filepath.Join(h.mount, cgroupRoot)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// killAll ends every process in a folder of cgroups and waits for them to be gone.
func killAll(dir string) error {
	var waits []*os.File
	defer func() {
		for _, f := range waits {
			f.Close()
		}
	}()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, field := range bytes.Fields(data) {
			pid, err := strconv.Atoi(string(field))
			if err != nil {
				return err
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return err
			}
			waits = append(waits, os.NewFile(uintptr(fd), "pidfd"))
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end what is in %s: %w", dir, err)
	}
	for _, f := range waits {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 10000); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for what was in %s: %w", dir, err)
		}
	}
	return nil
}
