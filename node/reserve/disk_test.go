package reserve

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// small mounts an ext4 of 256 MiB, made as the machine makes its own.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "disk"), filepath.Join(dir, "at")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 256*mib), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-b", "4096", image).CombinedOutput(); err != nil {
		t.Skipf("no file system of its own: mke2fs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("no file system of its own, which takes root and loop devices: mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return at
}

// fill writes a file until so much is left free.
func fill(t *testing.T, path string, left uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 256<<10)
	for {
		d, err := Look(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		if d.Free <= left {
			return
		}
		if _, err := f.Write(chunk[:min(uint64(len(chunk)), max(d.Free-left, 4096))]); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil { // blocks are allocated late
			t.Fatal(err)
		}
	}
}

// On a real file system: it fills up, old files go, then the reserve; what must be written can be; the reserve comes
// back.
func TestOnASmallDisk(t *testing.T) {
	b := newBench(t)
	dir := small(t)
	b.cfg.Dir = dir
	b.disk = func() (Disk, error) { return Look(dir) }
	var gone []string
	b.cfg.Spares = []Spare{{What: "old snapshots of etcd", Give: func(_ context.Context, enough func() bool) ([]string, error) {
		for _, name := range []string{"s-1", "s-2"} {
			if enough() {
				break
			}
			if err := os.Remove(filepath.Join(dir, name)); err == nil {
				gone = append(gone, name)
			}
		}
		return gone, nil
	}}}
	look := func(want string) Disk {
		t.Helper()
		if err := b.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, _ := b.State()
		if s.Reason != want {
			t.Fatalf("got %s (%+v), want %s", s.Reason, s.Disk, want)
		}
		return s.Disk
	}
	for _, name := range []string{"s-1", "s-2"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 8*mib), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unix.Sync()
	before := look(ReasonEnough)
	l := limitsOf(before.Total)
	with := look(ReasonEnough)
	if with.Reserve < l.size || before.Free-with.Free < l.size {
		t.Fatalf("a reserve of %d was taken: %+v, then %+v", l.size, before, with)
	}
	fill(t, filepath.Join(dir, "big"), l.low-mib)
	look(ReasonEnough)
	if !slices.Equal(gone, []string{"s-1", "s-2"}) && !slices.Equal(gone, []string{"s-1"}) {
		t.Errorf("gone: %v", gone)
	}
	_ = os.Remove(filepath.Join(dir, "s-2"))
	fill(t, filepath.Join(dir, "big"), 0)
	if err := os.WriteFile(filepath.Join(dir, "wal"), make([]byte, 8*mib), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if d := look(ReasonReleased); d.Reserve != 0 || d.Free < l.size-2*mib {
		t.Errorf("after the reserve was given up: %+v", d)
	}
	wal, err := os.Create(filepath.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Write(make([]byte, 8*mib)); err != nil || wal.Sync() != nil || wal.Close() != nil {
		t.Errorf("a write after the reserve was given up: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "big")); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	if d := look(ReasonEnough); d.Reserve < l.size {
		t.Errorf("with space again: %+v", d)
	}
}

func TestTake(t *testing.T) {
	dir := small(t)
	if err := take(dir, 1<<40); err == nil {
		t.Error("more was taken than there is")
	}
	if d, err := Look(dir); err != nil || d.Reserve != 0 {
		t.Errorf("after that: %+v, %v; want nothing held", d, err)
	}
	if err := errors.Join(take(dir, 8*mib), take(dir, 16*mib), take(dir, 16*mib)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, Name))
	if err != nil || info.Size() != 16*mib || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if d, err := Look(dir); err != nil || d.Reserve < 16*mib || d.Reserve > 17*mib || d.InMemory {
		t.Errorf("it holds %+v, %v", d, err)
	}
	if err := errors.Join(release(dir), release(dir)); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, Name)); err != nil {
		t.Fatal(err)
	}
	if err := take(dir, 8*mib); err == nil {
		t.Error("a link was followed")
	}
}

func TestLook(t *testing.T) {
	if _, err := Look(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that is not there: no error")
	}
	if d, err := Look("/dev/shm"); err == nil && !d.InMemory {
		t.Errorf("memory was taken for a disk: %+v", d)
	}
	dir := t.TempDir()
	if !SameFileSystem(dir, filepath.Dir(dir)) || SameFileSystem(dir, "/proc") || SameFileSystem(dir, "/nowhere") {
		t.Error("file systems are not told apart")
	}
}
