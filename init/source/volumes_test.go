package source

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/init/userdata"
)

// image makes a file system by its reference tool.
func image(t *testing.T, path string, size int64, tool string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not installed (Debian: dosfstools, xorriso, e2fsprogs)", tool)
	}
	if size > 0 {
		write(t, path, "")
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", tool, err, out)
	}
}

// Every form that the reference tools write, and what they write without label.
func TestProbeForms(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in/user-data", "#cloud-config\n")
	file := dir + "/image"
	iso := func(args ...string) []string {
		return append(append([]string{"-as", "mkisofs", "-quiet"}, args...), "-o", file, dir+"/in")
	}
	tests := []struct {
		name, fstype, label string
		size                int64
		tool                string
		args                []string
	}{
		{"FAT12", "vfat", "CIDATA", 1 << 20, "mkfs.vfat", []string{"-F", "12", "-n", "CIDATA", file}},
		{"FAT16", "vfat", "cidata", 16 << 20, "mkfs.vfat", []string{"-F", "16", "-n", "cidata", file}},
		{"FAT32 with large sectors", "vfat", "CIDATA", 300 << 20, "mkfs.vfat", []string{"-F", "32", "-S", "4096", "-n", "CIDATA", file}},
		{"FAT of a floppy", "vfat", "CIDATA", 1440 << 10, "mkfs.vfat", []string{"-n", "CIDATA", file}},
		{"FAT without label", "vfat", "NO NAME", 1 << 20, "mkfs.vfat", []string{file}},
		{"ISO", "iso9660", "CIDATA", 0, "xorriso", iso("-V", "CIDATA")},
		{"ISO with Joliet", "iso9660", "cidata", 0, "xorriso", iso("-V", "cidata", "-J", "-joliet-long")},
		{"ISO with the longest label", "iso9660", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", 0, "xorriso", iso("-V", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345")},
		{"hybrid ISO with a partition table", "iso9660", "cidata", 0, "xorriso", iso("-V", "cidata", "-partition_offset", "16")},
		{"ext4 with the label", "", "", 8 << 20, "mke2fs", []string{"-q", "-F", "-t", "ext4", "-L", "cidata", file}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer os.Remove(file)
			image(t, file, tt.size, tt.tool, tt.args...)
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if fstype, label := Probe(f); fstype != tt.fstype || label != tt.label {
				t.Errorf("got %q %q, want %q %q", fstype, label, tt.fstype, tt.label)
			}
		})
	}
}

// A FAT boot sector with one field at a time wrong is no FAT.
func TestProbeDamagedFAT(t *testing.T) {
	good := make([]byte, 512)
	good[510], good[511] = 0x55, 0xaa
	good[12], good[13], good[16], good[22] = 2, 1, 2, 1 // 512 bytes, one sector a cluster, two FATs of one sector
	good[38] = 0x29
	copy(good[43:], "CIDATA     ")
	tests := []struct {
		name string
		at   int
		to   byte
		want string
	}{
		{"as it is", 0, 0xeb, "CIDATA"},
		{"no signature", 511, 0, ""},
		{"sectors of nothing", 12, 0, ""},
		{"sectors of 768 bytes", 12, 3, ""},
		{"sectors of 8 KiB", 12, 32, ""},
		{"no clusters", 13, 0, ""},
		{"no FAT", 16, 0, ""},
		{"no extended boot record", 38, 0, ""},
		{"FAT32 by its size field", 22, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := slices.Clone(good)
			b[tt.at] = tt.to
			if _, label := Probe(bytes.NewReader(b)); label != tt.want {
				t.Errorf("got %q, want %q", label, tt.want)
			}
		})
	}
}

// The kernel writes a slash in a device's name as !, which leads this test to
// files of its own instead of /dev.
func TestFindVolumes(t *testing.T) {
	dir := t.TempDir()
	device := func(name string) string {
		return "..!" + strings.ReplaceAll(strings.TrimPrefix(dir, "/"), "/", "!") + "!" + name
	}
	image(t, dir+"/sdb", 1<<20, "mkfs.vfat", "-n", "CIDATA", dir+"/sdb")
	image(t, dir+"/sdc", 1<<20, "mkfs.vfat", "-n", "KEELSON-ESP", dir+"/sdc")
	image(t, dir+"/sdd", 1<<20, "mkfs.vfat", "-n", "cidata", dir+"/sdd")
	write(t, dir+"/sde", "too short for anything")
	sys := t.TempDir()
	for _, name := range []string{"sdb", "sdc", "sdd", "sde", "sr0"} { // sr0 has no medium
		write(t, filepath.Join(sys, device(name), "size"), "2048\n")
	}
	for _, name := range []string{"dm-0", "ram0", "zram0", "fd0", "nbd0", "md0"} {
		write(t, filepath.Join(sys, name, "size"), "0\n")
	}
	image(t, dir+"/sdf", 1<<20, "mkfs.vfat", "-n", "CONFIG-2", dir+"/sdf")
	write(t, filepath.Join(sys, device("sdf"), "size"), "2048\n")
	got, err := FindVolumes(sys, false)
	want := []Volume{{"/dev/.." + dir + "/sdb", "vfat", "CIDATA"}, {"/dev/.." + dir + "/sdd", "vfat", "cidata"}, {"/dev/.." + dir + "/sdf", "vfat", "CONFIG-2"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v %v, want %v", got, err, want)
	}
	if _, err := FindVolumes(filepath.Join(sys, "absent"), false); err == nil || !strings.HasPrefix(err.Error(), "list block devices: ") {
		t.Errorf("got %v, want an error for an absent folder", err)
	}
}

func TestQuiet(t *testing.T) {
	for name, want := range map[string]bool{"vda": false, "vdb1": false, "sr0": false, "nvme0n1": false, "mmcblk0": false, "loop0": false,
		"dm-0": true, "ram1": true, "zram0": true, "fd0": true, "nbd3": true, "md127": true} {
		if got := quiet(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// All four names of all sources, in the order that userdata.Load expects.
func TestPrecedenceOfEveryName(t *testing.T) {
	root := t.TempDir()
	for _, name := range names() {
		write(t, root+"/esp/keelson/"+name, "1")
		write(t, root+"/sdb/"+name, "2")
		write(t, root+"/sr0/"+name, "3")
		write(t, root+"/fw/"+name+"/raw", "4")
		write(t, root+"/esp/"+name, "beside the folder")
	}
	f := &folders{root: root}
	docs, err := Collect(t.Context(), Config{
		ESP: "esp", FwCfg: root + "/fw", Mount: f.mount,
		Volumes: func() ([]Volume, error) { return []Volume{{Device: "sdb"}, {Device: "sr0"}}, nil },
	})
	if err != nil || f.open != 0 {
		t.Fatalf("got %v and %d open volumes", err, f.open)
	}
	for name, list := range map[string][]userdata.Document{"user-data": docs.User, "vendor-data": docs.Vendor, "meta-data": docs.Meta, "network-config": docs.Network} {
		want := "ESP: N=1 | cidata volume sdb: N=2 | cidata volume sr0: N=3 | fw_cfg: N=4"
		if got := sources(list); got != strings.ReplaceAll(want, "N", name) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// The stored copy never mixes with what a source gives now.
func TestSourcesHideTheStoredCopy(t *testing.T) {
	root := t.TempDir()
	stored := root + "/stored"
	if err := Store(stored, userdata.Documents{User: []userdata.Document{{Source: "old", Data: []byte("old")}}}); err != nil {
		t.Fatal(err)
	}
	none := func() ([]Volume, error) { return nil, nil }
	never := func(context.Context) error {
		t.Error("waited for a device beside a stored copy")
		return errors.New("no")
	}
	docs, err := Collect(t.Context(), Config{Stored: stored, FwCfg: root + "/fw", Volumes: none, Settle: 1, NextDevice: never})
	if err != nil || sources(docs.User) != "old=old" {
		t.Errorf("got %s %v, want the stored copy", sources(docs.User), err)
	}
	write(t, root+"/fw/meta-data/raw", "new")
	docs, err = Collect(t.Context(), Config{Stored: stored, FwCfg: root + "/fw", Volumes: none})
	if err != nil || len(docs.User) != 0 || sources(docs.Meta) != "fw_cfg: meta-data=new" {
		t.Errorf("got %v %v, want the new meta-data alone", docs, err)
	}
	// A command line that cannot be read is told of, and the copy still serves.
	docs, err = Collect(t.Context(), Config{Stored: stored, Cmdline: "keelson.user-data=*", Volumes: none})
	if err == nil || !strings.Contains(err.Error(), "encode the document by base64 -w0") || sources(docs.User) != "old=old" {
		t.Errorf("got %s %v, want the copy and the error", sources(docs.User), err)
	}
}

func TestErrorsOfVolumes(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/sdb/user-data", "2")
	write(t, root+"/sdc/vendor-data/x", "a folder in place of the file")
	boom := errors.New("boom")
	one := func(device string) func() ([]Volume, error) {
		return func() ([]Volume, error) { return []Volume{{Device: device, FSType: "iso9660"}}, nil }
	}
	plain := &folders{root: root}
	stuck := func(v Volume) (Mounted, error) {
		m, err := plain.mount(v)
		return Mounted{Dir: m.Dir, Close: func() error { return errors.Join(boom, m.Close()) }}, err
	}
	tests := []struct {
		name string
		cfg  Config
		want string
		docs int
	}{
		{"search fails", Config{Volumes: func() ([]Volume, error) { return nil, boom }}, "boom", 0},
		{"module is built in", Config{Volumes: one("sdb"), Mount: plain.mount, LoadModule: func(...string) error { return boom }}, "", 1},
		{"neither module nor mount", Config{Volumes: one("sdx"), Mount: (&folders{failed: "sdx"}).mount, LoadModule: func(...string) error { return boom }},
			"cidata volume sdx: bad superblock\nboom", 0},
		{"unmount fails", Config{Volumes: one("sdb"), Mount: stuck}, "boom", 1},
		{"not a file", Config{Volumes: one("sdc"), Mount: plain.mount}, "cidata volume sdc: read vendor-data: not a regular file", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := Collect(t.Context(), tt.cfg)
			if err == nil && tt.want != "" || err != nil && err.Error() != tt.want || len(docs.User) != tt.docs || plain.open != 0 {
				t.Errorf("got %v, %s and %d open, want %q and %d documents", err, sources(docs.User), plain.open, tt.want, tt.docs)
			}
		})
	}
}

// A copy that cannot be written leaves the old one, and nothing beside it.
func TestStoreIsWholeOrNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "user-data")
	old := userdata.Documents{User: []userdata.Document{{Source: "a", Data: []byte("old")}}}
	if err := Store(path, old); err != nil {
		t.Fatal(err)
	}
	huge := userdata.Documents{User: []userdata.Document{{Source: "a", Data: make([]byte, maxStored)}}}
	if err := Store(path, huge); err == nil || err.Error() != "store user-data: 42 MiB are more than the 32 MiB that can be kept" {
		t.Errorf("got %v, want the size refused", err)
	}
	if docs, err := readStored(path); err != nil || sources(docs.User) != "a=old" {
		t.Errorf("got %s %v, want the old copy", sources(docs.User), err)
	}
	if err := Store(filepath.Join(dir, "absent", "x"), old); err == nil || !strings.HasPrefix(err.Error(), "store user-data: ") {
		t.Errorf("got %v, want an error for an absent folder", err)
	}
	if err := Store(dir, old); err == nil {
		t.Error("want an error where a folder is in the way")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("got %v %v, want the one file", left, err)
	}
}
