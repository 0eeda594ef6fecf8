package datadisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson/init/userdata"
)

// programs runs the host's tools in place of the image's.
type programs struct{ t *testing.T }

func (p programs) Run(ctx context.Context, argv ...string) (string, int, error) {
	path, err := exec.LookPath(filepath.Base(argv[0]))
	if err != nil {
		p.t.Skipf("SKIPPED: needs %s", filepath.Base(argv[0]))
	}
	out, err := exec.CommandContext(ctx, path, argv[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

// bench is a machine whose disks are files.
type bench struct {
	Config
	said   []string
	mounts []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{}
	b.Config = Config{Sys: dir + "/sys", Dev: dir + "/dev", Root: dir + "/root", System: "vda", Tools: programs{t},
		Say:     func(line string) { b.said = append(b.said, line) },
		Mounted: func() ([]string, error) { return []string{"/", "/var", "/var/there"}, nil },
		Mount: func(device, path, fstype string, flags uintptr, data string) error {
			b.mounts = append(b.mounts, fmt.Sprintf("%s %s %s %x %s", filepath.Base(device), strings.TrimPrefix(path, dir+"/root"), fstype, flags, data))
			return nil
		}}
	b.disk(t, "vda", 8<<20)
	return b
}

// disk makes a disk of zeros; name may be DISK/PARTITION.
func (b *bench) disk(t *testing.T, name string, size int64) {
	t.Helper()
	real := filepath.Join(b.Sys, "devices", name)
	base := filepath.Base(name)
	err := errors.Join(os.MkdirAll(real, 0o755), os.MkdirAll(filepath.Join(b.Sys, "class/block"), 0o755), os.MkdirAll(b.Dev, 0o755),
		os.Symlink(real, filepath.Join(b.Sys, "class/block", base)), os.WriteFile(filepath.Join(b.Dev, base), nil, 0o600), os.Truncate(filepath.Join(b.Dev, base), size))
	if base != name {
		err = errors.Join(err, os.WriteFile(filepath.Join(real, "partition"), []byte("1\n"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) apply(t *testing.T, s userdata.Storage, want string) {
	t.Helper()
	err := Apply(t.Context(), b.Config, s)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("got %v, want %q", err, want)
	}
}

func (b *bench) bytes(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(b.node(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func where(key string) userdata.Place { return userdata.Place{Source: "u", Line: 3, Key: key} }

// A table is made once, is what sgdisk takes for whole, and stays.
func TestDisk(t *testing.T) {
	b := newBench(t)
	b.disk(t, "sdb", 64<<20)
	want := userdata.Storage{Disks: []userdata.Disk{{Place: where("disk_setup.sdb"), Device: "/dev/sdb", Parts: []int{25, 50}}}}
	b.apply(t, want, "")
	first := b.bytes(t, "sdb")
	b.apply(t, want, "")
	if !bytes.Equal(first, b.bytes(t, "sdb")) {
		t.Error("the second boot wrote again")
	}
	sgdisk, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Skip("SKIPPED: needs sgdisk to look at the table")
	}
	out, err := exec.Command(sgdisk, "-v", "-p", b.node("sdb")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") || !strings.Contains(string(out), "data-2") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
}

func TestDiskWithDataIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		at   int64
		data string
		want string
	}{
		"xfs":         {0, "XFSB", "holds an xfs file system and is not touched; write overwrite: true to lose it"},
		"unknown":     {100, "something", "holds data of an unknown kind"},
		"other state": {1024 + 0x38, "\x53\xef", "holds an ext file system"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.disk(t, "sdb", 64<<20)
			f, err := os.OpenFile(b.node("sdb"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte(c.data), c.at)
			f.Close()
			before := b.bytes(t, "sdb")
			disk := userdata.Disk{Place: where("disk_setup.sdb"), Device: "sdb", Parts: []int{100}}
			b.apply(t, userdata.Storage{Disks: []userdata.Disk{disk}}, "u: line 3: disk_setup.sdb: sdb "+c.want)
			if !bytes.Equal(before, b.bytes(t, "sdb")) {
				t.Fatal("the disk was written to")
			}
			disk.Overwrite = true
			b.apply(t, userdata.Storage{Disks: []userdata.Disk{disk}}, "")
			disk.Parts, disk.Overwrite = []int{50}, false
			b.apply(t, userdata.Storage{Disks: []userdata.Disk{disk}}, "holds another partition table")
		})
	}
}

func TestTooSmall(t *testing.T) {
	b := newBench(t)
	b.disk(t, "sdb", 2<<20)
	b.apply(t, userdata.Storage{Disks: []userdata.Disk{{Device: "sdb", Parts: []int{100}}}}, "too little for 1 partitions")
	b.disk(t, "sdc", 10<<20)
	b.apply(t, userdata.Storage{Disks: []userdata.Disk{{Device: "sdc", Parts: []int{1, 99}}}}, "no room for partition 1 of 1 %")
}

func TestOwnDisk(t *testing.T) {
	b := newBench(t)
	b.disk(t, "vda/vda5", 8<<20)
	const want = "of the disk that the machine runs from"
	b.apply(t, userdata.Storage{Disks: []userdata.Disk{{Device: "vda", Parts: []int{100}, Overwrite: true}}}, want)
	b.apply(t, userdata.Storage{Filesystems: []userdata.Filesystem{{Device: "vda5", Overwrite: true}}}, want)
	b.apply(t, userdata.Storage{Filesystems: []userdata.Filesystem{{Device: "vda", Partition: 5, Overwrite: true}}}, want)
	b.apply(t, userdata.Storage{Mounts: []userdata.Mount{{Device: "/dev/vda5", Path: "/mnt"}}}, want)
	if !bytes.Equal(b.bytes(t, "vda"), make([]byte, 8<<20)) {
		t.Error("it was written to")
	}
}

// Made once, kept with its files, and mounted.
func TestFilesystemAndMount(t *testing.T) {
	b := newBench(t)
	b.disk(t, "sdb", 64<<20)
	b.disk(t, "sdb/sdb1", 64<<20)
	s := userdata.Storage{
		Filesystems: []userdata.Filesystem{{Place: where("fs_setup[0]"), Device: "sdb", Partition: 1, Label: "data"}},
		Mounts: []userdata.Mount{{Device: "LABEL=data", Path: "/var/data", Type: "auto", Options: []string{"ro", "noatime", "noexec", "data=ordered"}},
			{Device: "absent", Path: "/var/there"}},
	}
	b.apply(t, s, "")
	first := probe(bytes.NewReader(b.bytes(t, "sdb1")))
	if first.fstype != "ext4" || first.label != "data" {
		t.Fatalf("got %+v", first)
	}
	b.apply(t, s, "")
	if again := probe(bytes.NewReader(b.bytes(t, "sdb1"))); again != first {
		t.Errorf("made anew: got %+v, want %+v", again, first)
	}
	want := fmt.Sprintf("sdb1 /var/data ext4 %x data=ordered", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_RDONLY|unix.MS_NOATIME|unix.MS_NOEXEC)
	if len(b.mounts) != 2 || b.mounts[0] != want {
		t.Errorf("got %q, want %q twice", b.mounts, want)
	}
	s.Filesystems[0].Label = "other"
	b.apply(t, s, `fs_setup[0]: sdb1 holds an ext4 file system with the label "data" and is not touched`)
	s.Filesystems[0].Overwrite, s.Mounts = true, nil
	b.apply(t, s, "")
	if got := probe(bytes.NewReader(b.bytes(t, "sdb1"))); got.label != "other" {
		t.Errorf("got %+v", got)
	}
}

func TestMountProblems(t *testing.T) {
	b := newBench(t)
	b.disk(t, "sdb", 8<<20)
	b.apply(t, userdata.Storage{Mounts: []userdata.Mount{{Device: "sdc", Path: "/mnt", NoFail: true, Place: where("mounts[0]")}}}, "")
	if len(b.said) != 1 || b.said[0] != "u: line 3: mounts[0]: sdc is not there (nofail: the boot goes on)" {
		t.Errorf("said %q", b.said)
	}
	b.apply(t, userdata.Storage{Mounts: []userdata.Mount{{Device: "sdc", Path: "/mnt"}}}, "sdc is not there")
	b.apply(t, userdata.Storage{Mounts: []userdata.Mount{{Device: "sdb", Path: "/mnt", Type: "auto"}}}, "holds no file system of the kind")
	if len(b.mounts) != 0 {
		t.Errorf("mounted %q", b.mounts)
	}
}

// A disk that shows up late is waited for.
func TestLateDisk(t *testing.T) {
	b := newBench(t)
	events := 0
	b.NextDevice = func(context.Context) error {
		if events++; events == 2 {
			b.disk(t, "sdb", 64<<20)
		}
		return nil
	}
	b.apply(t, userdata.Storage{Disks: []userdata.Disk{{Device: "sdb", Parts: []int{100}}}}, "")
	if events != 2 {
		t.Errorf("got %d events, want 2", events)
	}
}

func TestFind(t *testing.T) {
	b := newBench(t)
	b.disk(t, "nvme0n1", 8<<20)
	b.disk(t, "sdb/sdb1", 8<<20)
	put := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put(b.sys("nvme0n1")+"/device/serial", "vol0123 \n")
	put(b.sys("sdb1")+"/serial", "vol0123\n") // of its disk, which is another name
	put(b.sys("sdb1")+"/uevent", "DEVTYPE=partition\nPARTNAME=scratch\n")
	super := make([]byte, 4096)
	copy(super, "XFSB")
	copy(super[32:], "0123456789abcdef")
	copy(super[108:], "fast")
	put(b.node("nvme0n1"), string(super))
	for spec, want := range map[string]string{
		"sdb1": "sdb1", "/dev/sdb1": "sdb1", "/dev/disk/by-id/nvme-Amazon_EBS_vol0123": "nvme0n1", "PARTLABEL=scratch": "sdb1",
		"/dev/disk/by-partlabel/scratch": "sdb1", "LABEL=fast": "nvme0n1", "/dev/disk/by-label/fast": "nvme0n1",
		"UUID=30313233-3435-3637-3839-616263646566": "nvme0n1", "LABEL=slow": "", "UUID=": "", "/dev/mapper/x": "", "COLOUR=red": "",
		"/dev/disk/by-id/x-ol0123": "",
	} {
		got, err := b.find(spec)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q %v, want %q", spec, got, err, want)
		}
	}
	b.disk(t, "sdc", 8<<20)
	put(b.node("sdc"), string(super))
	if _, err := b.find("LABEL=fast"); err == nil || !strings.Contains(err.Error(), "is more than one device: nvme0n1, sdc") {
		t.Errorf("got %v", err)
	}
}

// What we probe, the file systems' own tools have written.
func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fs")
	for kind, argv := range map[string][]string{"ext4": {"mke2fs", "-q", "-F", "-L", "data", path}, "vfat": {"mkfs.vfat", "-n", "DATA", path}} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 40<<20)); err != nil {
			t.Fatal(err)
		}
		if _, code, err := (programs{t}).Run(t.Context(), argv...); code != 0 || err != nil {
			t.Fatal(code, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		have := probe(bytes.NewReader(data))
		if have.fstype != kind || !strings.EqualFold(have.label, "data") {
			t.Errorf("%s: got %+v", kind, have)
		}
		if blkid, err := exec.LookPath("blkid"); err == nil {
			out, err := exec.Command(blkid, "-p", "-o", "value", "-s", "UUID", path).Output()
			if err != nil || strings.TrimSpace(string(out)) != have.uuid {
				t.Errorf("%s: blkid says %q %v, we %q", kind, out, err, have.uuid)
			}
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add(make([]byte, 2048))
	f.Add([]byte("XFSB"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if have := probe(bytes.NewReader(data)); have.fstype == "" && have != (content{}) {
			t.Errorf("got %+v", have)
		}
	})
}

func TestSwapFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "swap")
	const page = 4096
	if err := makeSwap(path, 32<<20, page); err != nil {
		t.Fatal(err)
	}
	if !isSwap(path, 32<<20, page) || !isSwap(path, -1, page) || isSwap(path, 16<<20, page) || isSwap(path+"x", -1, page) {
		t.Error("want our own file known by its size")
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v %v, want mode 0600", st, err)
	}
	blkid, err := exec.LookPath("blkid")
	if err != nil {
		t.Skip("SKIPPED: needs blkid to look at the header")
	}
	if out, err := exec.Command(blkid, "-p", path).CombinedOutput(); err != nil || !strings.Contains(string(out), `TYPE="swap"`) || !strings.Contains(string(out), `VERSION="1"`) {
		t.Errorf("blkid: %v %s", err, out)
	}
}

func TestAutomaticSwap(t *testing.T) {
	for _, c := range []struct{ memory, free, bound, want int64 }{
		{4, 100, 0, 4}, {4, 8, 0, 2}, {4, 100, 3, 3}, {4, 100, 9, 4},
	} {
		if got := automatic(c.memory, c.free, c.bound); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
	b := newBench(t)
	b.apply(t, userdata.Storage{Swap: &userdata.Swap{Place: where("swap"), Path: "/", Size: 4096}}, "u: line 3: swap: 0 MiB of swap are of no use")
}
