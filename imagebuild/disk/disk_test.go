package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keelson/init/layout"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// sparse is 8 MiB with three islands of data in it.
func sparse() []byte {
	b := make([]byte, 8<<20)
	copy(b[4096:], random(100))
	copy(b[3<<20-10:], random(20)) // across a chunk
	copy(b[len(b)-1:], []byte{7})
	return b
}

func image() Image {
	core, root := random(50_000), sparse()
	return Image{
		Seed: []byte("seed"), BootCode: bytes.Repeat([]byte{0x90}, 440),
		Partitions: []Partition{
			{Number: layout.NumberBIOS, Label: layout.LabelBIOS, Type: layout.TypeBIOSBoot, Size: layout.BIOSSize,
				Data: bytes.NewReader(core), Len: int64(len(core))},
			{Number: layout.NumberESP, Label: layout.LabelESP, Type: layout.TypeESP, Size: 40 << 20},
			{Number: layout.NumberRootA, Label: layout.LabelRootA, Type: layout.TypeRootAMD64, Attrs: layout.AttrRoot,
				Data: bytes.NewReader(root[:len(root)-4096*3+1]), Len: int64(len(root) - 4096*3 + 1)},
		},
	}
}

func writeImage(t *testing.T, img Image) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	size, err := Write(path, img)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != size || size%layout.Align != 0 || st.Mode().Perm() != 0o644 {
		t.Fatalf("image: %v, %v, want %d bytes", st, err, size)
	}
	return path
}

func TestTableAndContents(t *testing.T) {
	img := image()
	path := writeImage(t, img)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(file.New(f, true), 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(file.New(f, true), uint64(len(b))); err != nil {
		t.Errorf("verify: %v", err)
	}
	at := uint64(FirstLBA)
	for i, want := range img.Partitions {
		got := table.Partitions[i]
		if got.Name != want.Label || !strings.EqualFold(string(got.Type), want.Type) || got.Attributes != want.Attrs || got.Start != at {
			t.Errorf("partition %d: got %s %s %x at %d, want %s at %d", i+1, got.Name, got.Type, got.Attributes, got.Start, want.Label, at)
		}
		at = got.End + 1
		content := make([]byte, want.Len)
		if want.Data != nil {
			if _, err := want.Data.ReadAt(content, 0); err != nil {
				t.Fatal(err)
			}
		}
		part := b[got.Start*512 : (got.End+1)*512]
		if !bytes.Equal(part[:want.Len], content) {
			t.Errorf("%s: contents differ", want.Label)
		}
		if len(bytes.Trim(part[want.Len:], "\x00")) != 0 {
			t.Errorf("%s: something stands behind the contents", want.Label)
		}
	}
	if !bytes.Equal(b[:440], img.BootCode) || b[510] != 0x55 || b[511] != 0xaa || b[446+4] != 0xee {
		t.Errorf("MBR: boot code or protective partition is wrong: %x", b[440:512])
	}
	if got := binary.LittleEndian.Uint32(b[446+12:]); int(got) != len(b)/512-1 {
		t.Errorf("protective partition: %d sectors of %d", got, len(b)/512)
	}
}

func TestSgdisk(t *testing.T) {
	tool, err := exec.LookPath("sgdisk")
	if err != nil {
		t.Skip("sgdisk is absent (Debian: gdisk)")
	}
	path := writeImage(t, image())
	out, err := exec.Command(tool, "-v", path).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("No problems found")) {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	out, err = exec.Command(tool, "-i", "3", path).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("'KEELSON-ROOT-A'")) ||
		!bytes.Contains(bytes.ToLower(out), []byte(layout.TypeRootAMD64)) || !bytes.Contains(out, []byte("Attribute flags: 9000000000000000")) {
		t.Errorf("sgdisk -i 3: %v\n%s", err, out)
	}
}

func TestReproducible(t *testing.T) {
	read := func(img Image) []byte {
		b, err := os.ReadFile(writeImage(t, img))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, b := read(image()), read(image())
	if !bytes.Equal(a, b) {
		t.Error("two images of the same parts differ")
	}
	other := image()
	other.Seed = []byte("other")
	if bytes.Equal(a[512:1024], read(other)[512:1024]) {
		t.Error("another seed gives the same disk GUID")
	}
}

func TestHoles(t *testing.T) {
	path := writeImage(t, image())
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	// Tables, core image and three islands: far from the 50 MiB it shows.
	if used := st.Blocks * 512; used > 1<<20 {
		t.Errorf("the image takes %d bytes on disk", used)
	}
}

type failing struct{}

func (failing) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errors.New("bad sector")
	}
	p[0] = 1
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	one := bytes.NewReader([]byte{1})
	for _, c := range []struct {
		name string
		edit func(*Image)
		want string
	}{
		{"none", func(i *Image) { i.Partitions = nil }, "no partitions"},
		{"too large", func(i *Image) { i.Partitions[0].Len = 2 << 20 }, "do not fit"},
		{"unaligned", func(i *Image) { i.Partitions[1].Size++ }, "no positive multiple"},
		{"nothing", func(i *Image) { i.Partitions[1].Size = 0 }, "no positive multiple"},
		{"no data", func(i *Image) { i.Partitions[1].Len = 1 }, "no data"},
		{"short data", func(i *Image) { i.Partitions[1].Data, i.Partitions[1].Len = one, 2 }, "EOF"},
		{"read error", func(i *Image) { i.Partitions[1].Data, i.Partitions[1].Len = failing{}, 2<<20 }, "KEELSON-ESP: read"},
		{"long boot code", func(i *Image) { i.BootCode = make([]byte, 441) }, "440"},
		{"same number", func(i *Image) { i.Partitions[1].Number = 1 }, "duplicate"},
		{"bad type", func(i *Image) { i.Partitions[1].Type = "linux" }, "disk "},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := image()
			c.edit(&img)
			path := filepath.Join(t.TempDir(), "disk.raw")
			if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Write(path, img); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			// What was there stays, and nothing else is left behind.
			left, _ := os.ReadDir(filepath.Dir(path))
			if b, err := os.ReadFile(path); err != nil || string(b) != "old" || len(left) != 1 {
				t.Errorf("after the error: %q, %v, %d files", b, err, len(left))
			}
		})
	}
}

func TestLead(t *testing.T) {
	img := image()
	img.Active = true
	var got []int64
	img.Lead = func(starts []int64, size int64) ([]byte, error) {
		got = append(starts, size)
		return []byte("volume"), nil
	}
	b, err := os.ReadFile(writeImage(t, img))
	if err != nil {
		t.Fatal(err)
	}
	want := []int64{1 << 20, 2 << 20, 42 << 20, int64(len(b))}
	if !slices.Equal(got, want) || string(b[LeadAt:LeadAt+6]) != "volume" || b[446] != 0x80 {
		t.Errorf("places %v, want %v; lead %q, entry %#x", got, want, b[LeadAt:LeadAt+6], b[446])
	}
	img.Lead = func([]int64, int64) ([]byte, error) { return make([]byte, 1<<20), nil }
	if _, err := Write(filepath.Join(t.TempDir(), "x"), img); err == nil {
		t.Error("a lead that reaches the first partition was taken")
	}
}
