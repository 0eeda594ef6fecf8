package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/tree"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

const size = 48 << 20

func options() Options {
	return Options{Size: size, Label: "KEELSON-ESP", Serial: 0x1234abcd, Time: time.Date(2024, 2, 29, 13, 45, 58, 0, time.UTC)}
}

func parts() Parts {
	return Parts{
		Arch: "amd64", Slot: "a", Loader: []byte("loader"),
		UKI:        bytes.Repeat([]byte("uki!"), 5<<20), // more than one chunk
		GrubConfig: bytes.Repeat([]byte("set timeout=0\n"), 5_001),
	}
}

func write(t *testing.T, tr *tree.Tree, o Options) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := Write(f, tr, o); err != nil {
		t.Fatal(err)
	}
	return f
}

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	tr, err := Contents(parts())
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func wantFiles() map[string][]byte {
	p := parts()
	return map[string][]byte{
		"/EFI/BOOT/BOOTX64.EFI": p.Loader, "/EFI/systemd/systemd-bootx64.efi": p.Loader,
		"/EFI/Linux/keelson-a.efi": p.UKI, "/loader/loader.conf": []byte("timeout 0\neditor no\n"),
		"/grub/grub.cfg": p.GrubConfig,
	}
}

func TestReadBack(t *testing.T) {
	f := write(t, sample(t), options())
	vol, err := fat32.Read(file.New(f, true), size, 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range wantFiles() {
		in, err := vol.OpenFile(name, os.O_RDONLY)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
}

func TestFsck(t *testing.T) {
	tool, err := exec.LookPath("fsck.vfat")
	if err != nil {
		t.Skip("fsck.vfat is absent (Debian: dosfstools)")
	}
	f := write(t, sample(t), options())
	out, err := exec.Command(tool, "-n", "-v", f.Name()).CombinedOutput()
	if err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	for _, complaint := range []string{"unset", "wrong", "Dirty", "differ", "should"} {
		if bytes.Contains(out, []byte(complaint)) {
			t.Errorf("fsck.vfat complains:\n%s", out)
		}
	}
}

func TestMtools(t *testing.T) {
	for _, tool := range []string{"mcopy", "mdir"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is absent (Debian: mtools)", tool)
		}
	}
	f := write(t, sample(t), options())
	for name, want := range wantFiles() {
		got, err := exec.Command("mcopy", "-i", f.Name(), "::"+name, "-").Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("mcopy %s: got %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	out, err := exec.Command("mdir", "-i", f.Name(), "-/", "::").CombinedOutput()
	if err != nil {
		t.Fatalf("mdir: %v\n%s", err, out)
	}
	for _, want := range []string{"KEELSON-ESP", "1234-ABCD", "2024-02-29", "13:45"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("mdir: no %q in\n%s", want, out)
		}
	}
}

func TestReproducible(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000") // what go-diskfs would look at
	a, err := os.ReadFile(write(t, sample(t), options()).Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1500000000")
	b, err := os.ReadFile(write(t, sample(t), options()).Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two volumes of one tree differ")
	}
	if got := binary.LittleEndian.Uint32(a[bpbSerial:]); got != 0x1234abcd {
		t.Errorf("serial: got %#x", got)
	}
	if !bytes.Equal(a[:2*sector], a[backupSector*sector:(backupSector+2)*sector]) {
		t.Error("the backup of boot and FSInfo sectors differs")
	}
}

// Many directory entries make a directory of several clusters, and deep ones
// have a ".." that is not the root.
func TestManyAndDeep(t *testing.T) {
	var tr tree.Tree
	for i := range 60 {
		name := "/a/b/c/a file with a long name " + strings.Repeat("x", i)
		if err := tr.Bytes(name, 0o644, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	f := write(t, &tr, options())
	tool, err := exec.LookPath("fsck.vfat")
	if err != nil {
		t.Skip("fsck.vfat is absent (Debian: dosfstools)")
	}
	if out, err := exec.Command(tool, "-n", f.Name()).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
}

func TestWriteRefuses(t *testing.T) {
	file := func(size int64, content string, err error) *tree.Tree {
		var tr tree.Tree
		if err := tr.Add(tree.Entry{Path: "/f", Mode: 0o644, Size: size, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), err
		}}); err != nil {
			t.Fatal(err)
		}
		return &tr
	}
	var link tree.Tree
	if err := link.Link("/l", "x"); err != nil {
		t.Fatal(err)
	}
	ok := file(1, "x", nil)
	for _, c := range []struct {
		name string
		tree *tree.Tree
		edit func(*Options)
		want string
	}{
		{"small", ok, func(o *Options) { o.Size = 33 << 20 }, "size"},
		{"odd size", ok, func(o *Options) { o.Size++ }, "size"},
		{"no label", ok, func(o *Options) { o.Label = "" }, "label"},
		{"long label", ok, func(o *Options) { o.Label = "TWELVE-CHARS" }, "label"},
		{"before 1980", ok, func(o *Options) { o.Time = time.Unix(0, 0) }, "1980"},
		{"link", &link, func(*Options) {}, "/l: FAT holds"},
		{"empty file", file(0, "", nil), func(*Options) {}, "empty files"},
		{"huge file", file(1<<32, "", nil), func(*Options) {}, "more than FAT"},
		{"short", file(5, "abc", nil), func(*Options) {}, "size changed"},
		{"opener", file(5, "abc", errors.New("boom")), func(*Options) {}, "boom"},
		{"full", file(size, strings.Repeat("x", size), nil), func(*Options) {}, "esp: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options()
			c.edit(&o)
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Write(f, c.tree, o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// The last clusters that the FAT has room for and the volume has not must
// never be used: fill the volume to the brim and one byte beyond.
func TestBrim(t *testing.T) {
	one := make([]byte, size)
	fits := func(n int64) error {
		var tr tree.Tree
		if err := tr.Bytes("/f", 0o644, one[:n]); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return Write(f, &tr, options())
	}
	lo, hi := int64(40<<20), int64(size)
	for hi-lo > 512 {
		mid := (lo + hi) / 2 / 512 * 512
		if fits(mid) == nil {
			lo = mid
		} else {
			hi = mid
		}
	}
	var tr tree.Tree
	if err := tr.Bytes("/f", 0o644, one[:lo]); err != nil {
		t.Fatal(err)
	}
	f := write(t, &tr, options())
	info := make([]byte, sector)
	if _, err := f.ReadAt(info, fsinfoSector*sector); err != nil {
		t.Fatal(err)
	}
	if free := binary.LittleEndian.Uint32(info[fsinfoFree:]); free != 0 {
		t.Errorf("free clusters at the brim: got %d, want 0", free)
	}
}

func TestContents(t *testing.T) {
	arm := parts()
	arm.Arch, arm.GrubConfig = "arm64", nil
	tr, err := Contents(arm)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/EFI/BOOT/BOOTAA64.EFI", "/EFI/systemd/systemd-bootaa64.efi", "/EFI/Linux/keelson-a.efi"} {
		if e, ok := tr.Get(p); !ok || e.Mode != fs.FileMode(0o644) {
			t.Errorf("arm64: no %s", p)
		}
	}
	if _, ok := tr.Get("/grub/grub.cfg"); ok {
		t.Error("arm64: there is a grub.cfg")
	}
	none := parts()
	none.UKI = nil
	for _, p := range []Parts{none, {Arch: "mips"}} {
		if _, err := Contents(p); err == nil {
			t.Errorf("%s without UKI: got no error", p.Arch)
		}
	}
}
