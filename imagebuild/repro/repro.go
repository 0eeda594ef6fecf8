// Package repro builds twice under circumstances as different as a machine
// allows, and says where the results differ.
//
// The two builds stand in other folders, whose files have other ages, with
// other time zones, languages, home folders and file modes; the second has one
// processor and, in a user namespace of its own, another user. What it runs is
// the builder itself, as a program; it never looks into artefacts, only at
// their bytes.
package repro

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config of a comparison.
type Config struct {
	Source   string     // the checkout
	Work     string     // where both builds are made; emptied before
	Commands [][]string // the builder and its arguments; it leaves artefacts in Result
	Result   string     // folder of the artefacts in the checkout
	Ignore   []string   // names of files in it that are no artefacts
	Fresh    bool       // the second build begins with an empty build cache of Go
	Output   io.Writer
}

// circumstances of one build.
type circumstances struct {
	dir    string
	age    time.Time // of all sources
	env    []string
	umask  int
	oneCPU bool
	uid    int // in a user namespace; 0: the user who runs this
}

// Difference is a file that is not the same in both builds.
type Difference struct {
	File   string
	Offset int64  // of the first byte that differs
	Why    string // where it is not a byte
}

func (d Difference) String() string {
	if d.Why != "" {
		return d.File + ": " + d.Why
	}
	return fmt.Sprintf("%s: differs from byte %d on", d.File, d.Offset)
}

// Run builds twice and compares. It returns how many files are the same, and
// those that are not.
func Run(ctx context.Context, c Config) (same int, differences []Difference, err error) {
	if err := os.RemoveAll(c.Work); err != nil {
		return 0, nil, fmt.Errorf("repro: %w", err)
	}
	both := []circumstances{
		{
			dir: filepath.Join(c.Work, "one"), age: time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC), umask: 0o022,
			env: []string{"TZ=Pacific/Kiritimati", "LC_ALL=C"},
		}, {
			dir: filepath.Join(c.Work, "another", "much longer path"), age: time.Date(2030, 11, 12, 13, 14, 15, 0, time.UTC), umask: 0o077,
			env: []string{"TZ=America/St_Johns", "LC_ALL=de_DE.UTF-8"}, oneCPU: true, uid: 4242,
		},
	}
	if c.Fresh {
		both[1].env = append(both[1].env, "GOCACHE="+filepath.Join(c.Work, "go-cache"))
	}
	// Both are of the checkout as it is now.
	for _, one := range both {
		if err := copySource(ctx, c.Source, one.dir, one.age); err != nil {
			return 0, nil, fmt.Errorf("repro: %w", err)
		}
	}
	for i, one := range both {
		fmt.Fprintf(c.Output, "build %d of 2, in %s\n", i+1, one.dir)
		for _, command := range c.Commands {
			if err := one.build(ctx, c, command); err != nil {
				return 0, nil, fmt.Errorf("repro: build %d: %w", i+1, err)
			}
		}
	}
	return Compare(filepath.Join(both[0].dir, c.Result), filepath.Join(both[1].dir, c.Result), c.Ignore)
}

// copySource copies what git knows or does not ignore, and as much of a
// repository as tells the commit.
func copySource(ctx context.Context, from, to string, age time.Time) error {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", from}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", args[0], err)
		}
		return string(out), nil
	}
	list, err := git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimRight(list, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name), age); errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not committed yet
		} else if err != nil {
			return err
		}
	}
	head, err := git("rev-parse", "HEAD")
	if err != nil {
		return err
	}
	objects, err := git("rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err != nil {
		return err
	}
	// A repository of its own with the objects of the other: a commit that is
	// made meanwhile must not reach the second build.
	for name, text := range map[string]string{"HEAD": head, "objects/info/alternates": objects, "refs/.keep": ""} {
		file := filepath.Join(to, ".git", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, age time.Time) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, content, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(to, age, age)
}

// build runs the builder. Umask and processors are inherited from the thread
// that starts it.
func (o circumstances) build(ctx context.Context, c Config, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.dir, c.Output, c.Output
	home := filepath.Join(o.dir, "build", "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	cmd.Env = append(withGo(ctx), append(o.env, "HOME="+home)...)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if o.oneCPU {
		var all unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return fmt.Errorf("ask for processors: %w", err)
		}
		var one unix.CPUSet
		for cpu := range 1024 {
			if all.IsSet(cpu) {
				one.Set(cpu)
				break
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("take one processor: %w", err)
		}
		defer unix.SchedSetaffinity(0, &all)
	}
	if o.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: o.uid, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: o.uid, HostID: os.Getegid(), Size: 1}},
		}
	}
	was := syscall.Umask(o.umask)
	defer syscall.Umask(was)
	err := cmd.Start()
	if o.uid != 0 && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL)) {
		return fmt.Errorf("start as another user: %w: this needs user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), or root", err)
	}
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// withGo is the environment with Go's caches where they are: the home folder
// that they hang on is about to be another.
func withGo(ctx context.Context) []string {
	env := os.Environ()
	for _, name := range []string{"GOMODCACHE", "GOCACHE", "GOPROXY", "GOSUMDB", "GOFLAGS", "GOTOOLCHAIN"} {
		if out, err := exec.CommandContext(ctx, "go", "env", name).Output(); err == nil && len(bytes.TrimSpace(out)) > 0 {
			env = append(env, name+"="+strings.TrimSpace(string(out)))
		}
	}
	return env
}

// Compare compares every file of two folders but those with ignored names.
func Compare(a, b string, ignore []string) (same int, differences []Difference, err error) {
	inA, err := files(a, ignore)
	if err != nil {
		return 0, nil, fmt.Errorf("compare: %w", err)
	}
	inB, err := files(b, ignore)
	if err != nil {
		return 0, nil, fmt.Errorf("compare: %w", err)
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(inA, inB)))) {
		switch {
		case !slices.Contains(inA, name):
			differences = append(differences, Difference{File: name, Why: "only the second build made it"})
		case !slices.Contains(inB, name):
			differences = append(differences, Difference{File: name, Why: "only the first build made it"})
		default:
			offset, err := firstDifference(filepath.Join(a, name), filepath.Join(b, name))
			if err != nil {
				return 0, nil, fmt.Errorf("compare: %w", err)
			}
			if offset >= 0 {
				differences = append(differences, Difference{File: name, Offset: offset})
			} else {
				same++
			}
		}
	}
	return same, differences, nil
}

func files(dir string, ignore []string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(ignore, d.Name()) && path != dir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.IsDir() {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			out = append(out, rel)
		}
		return nil
	})
	return out, err
}

// firstDifference is the first offset at which two files differ, -1 where
// they are the same; the length of the shorter one where the other goes on.
func firstDifference(a, b string) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if x, y := bufA[:n], bufB[:m]; !bytes.Equal(x, y) {
			i := 0
			for i < min(n, m) && x[i] == y[i] {
				i++
			}
			return at + int64(i), nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return 0, err
			}
		}
		if n < len(bufA) {
			return -1, nil
		}
		at += int64(n)
	}
}
