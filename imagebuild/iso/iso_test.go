package iso

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

func volume() Volume {
	return Volume{
		Label: "KEELSON", Time: time.Unix(1_700_000_000, 0), Size: 8 << 20, EFI: 2 << 20, EFILen: 4 << 20,
		BIOS: bytes.Repeat([]byte("loader"), 1000),
		Files: []File{
			{Name: "README.TXT", Data: []byte("what this is\n")},
			{Name: "EFI.IMG", Offset: 2 << 20, Size: 4 << 20},
		},
	}
}

// medium is a whole medium with the volume at its place.
func medium(t *testing.T, v Volume) string {
	t.Helper()
	b, err := Render(v, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "test.iso")
	whole := make([]byte, v.Size)
	copy(whole[Start:], b)
	copy(whole[2<<20:], "the EFI system partition")
	if err := os.WriteFile(name, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRenderIsReadByAnother(t *testing.T) {
	f, err := os.Open(medium(t, volume()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := iso9660.Read(file.New(f, true), 8<<20, 0, Sector)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(fs.Label()), "KEELSON"; got != want {
		t.Errorf("label: got %q, want %q", got, want)
	}
	for name, want := range map[string]string{"/README.TXT": "what this is\n", "/EFI.IMG": "the EFI system partition"} {
		in, err := fs.OpenFile(name, os.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// The reference reader says what can be started, and finds nothing to complain of.
func TestRenderWithXorriso(t *testing.T) {
	if _, err := exec.LookPath("xorriso"); err != nil {
		t.Skip("xorriso is not here: make deps installs it")
	}
	name := medium(t, volume())
	out, err := exec.Command("xorriso", "-indev", name, "-report_el_torito", "plain", "-find", "/", "-exec", "report_lba").CombinedOutput()
	if err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	for _, want := range []string{"El Torito boot img :   1  BIOS  y   none", "El Torito boot img :   2  UEFI  y   none", "Volume id    : 'KEELSON'", "'/README.TXT'", "'/EFI.IMG'"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "WARNING") || strings.Contains(string(out), "FAILURE") {
		t.Errorf("xorriso complains:\n%s", out)
	}
	extracted := filepath.Join(t.TempDir(), "readme")
	if out, err := exec.Command("xorriso", "-osirrox", "on", "-indev", name, "-extract", "/README.TXT", extracted).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	got, err := os.ReadFile(extracted)
	if err != nil || string(got) != "what this is\n" {
		t.Errorf("README.TXT: got %q, %v", got, err)
	}
}

func TestCatalog(t *testing.T) {
	v := volume()
	le := binary.LittleEndian
	for _, c := range []struct {
		name     string
		bios     bool
		size     int64
		platform byte
		at       int // of the UEFI entry
		sectors  uint16
	}{
		{"both", true, 4 << 20, platformX86, 96, 8192},
		{"UEFI alone", false, 4 << 20, platformEFI, 32, 8192},
		{"more than 16 bits count", true, 5 << 20, platformX86, 96, 10240},
		{"a large one", true, 6 << 20 * 8, platformX86, 96, 0},
	} {
		v.EFILen, v.Size = c.size, 64<<20
		bios := int64(0)
		if c.bios {
			bios = 23 * Sector
		}
		b := v.catalog(bios)
		var sum uint16
		for i := 0; i < 32; i += 2 {
			sum += le.Uint16(b[i:])
		}
		if sum != 0 || b[1] != c.platform {
			t.Errorf("%s: validation entry with sum %d of platform %#x", c.name, sum, b[1])
		}
		e := b[c.at:]
		if e[0] != bootable || le.Uint32(e[8:]) != uint32(v.EFI/Sector) || le.Uint16(e[6:]) != c.sectors {
			t.Errorf("%s: UEFI entry % x, want %d sectors", c.name, e[:12], c.sectors)
		}
	}
}

func TestBootInfo(t *testing.T) {
	b := withBootInfo(bytes.Repeat([]byte{1}, 3000), 23*Sector)
	le := binary.LittleEndian
	var sum uint32
	for i := 64; i < len(b); i += 4 {
		sum += le.Uint32(b[i:])
	}
	got := [4]uint32{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])}
	if want := [4]uint32{16, 23, 4096, sum}; got != want || len(b) != 4096 {
		t.Errorf("got %v in %d bytes, want %v in 4096", got, len(b), want)
	}
}

// What firmware starts is found again in the volume, and its bytes make the same volume.
func TestLoader(t *testing.T) {
	v := Medium{
		Version: "1", Time: time.Unix(1_700_000_000, 0), Size: 8 << 20, BIOS: bytes.Repeat([]byte("loader"), 1000), EFI: 2 << 20, EFILen: 4 << 20, Root: 6 << 20, RootLen: 1 << 20,
	}
	volume, err := Render(v.Volume(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Loader(volume)
	if err != nil || !bytes.Equal(found, Loaded(v.BIOS)) {
		t.Fatalf("got %d bytes, %v, want what was rendered", len(found), err)
	}
	v.BIOS = found
	if again, err := Render(v.Volume(), 1<<20); err != nil || !bytes.Equal(again, volume) {
		t.Errorf("another volume of the same loader (%v)", err)
	}
	if !bytes.Contains(volume, []byte("Keelson 1: an operating system")) {
		t.Error("README.TXT does not say the version")
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut": volume[:loaderAt-Start+Sector], "zeros": make([]byte, 64<<10)} {
		if got, err := Loader(b); err == nil {
			t.Errorf("%s: got %d bytes", name, len(got))
		}
	}
}

func FuzzLoader(f *testing.F) {
	f.Add(make([]byte, 64<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Loader(b); err == nil && len(got) > len(b) {
			t.Fatalf("%d bytes of %d", len(got), len(b))
		}
	})
}

func TestRenderIsTheSameTwice(t *testing.T) {
	one, err := Render(volume(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Render(volume(), 1<<20)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two renderings differ (%v)", err)
	}
}

func TestRefuses(t *testing.T) {
	for name, change := range map[string]func(*Volume){
		"label":            func(v *Volume) { v.Label = "keelson" },
		"time":             func(v *Volume) { v.Time = time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC) },
		"size":             func(v *Volume) { v.Size++ },
		"EFI outside":      func(v *Volume) { v.EFI = v.Size },
		"name":             func(v *Volume) { v.Files[0].Name = "read me" },
		"name twice":       func(v *Volume) { v.Files[1].Name = v.Files[0].Name },
		"extent outside":   func(v *Volume) { v.Files[1].Offset = v.Size },
		"extent unaligned": func(v *Volume) { v.Files[1].Offset++ },
		"too large":        func(v *Volume) { v.Files[0].Data = make([]byte, 1<<20) },
		"too many": func(v *Volume) {
			for c := 'A'; c <= 'Z'; c++ {
				v.Files = append(v.Files, File{Name: strings.Repeat(string(c), 20) + ".TXT", Data: []byte("x")}, File{Name: strings.Repeat(string(c), 19) + ".TXT", Data: []byte("x")})
			}
		},
	} {
		v := volume()
		change(&v)
		if _, err := Render(v, 1<<20); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
