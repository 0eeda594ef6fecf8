package grub

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"keelson/imagebuild/internal/debfile"

	"github.com/ulikunitz/xz/lzma"
)

var update = flag.Bool("update", false, "write the golden files anew")

// elf32 is an executable with one loadable segment of the given bytes.
func elf32(code []byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // 386
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, 0x9000) // entry
	b = le.AppendUint32(b, 52)     // program headers
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{52, 32, 1, 40, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, 84, 0x9000, 0x9000, uint32(len(code)), uint32(len(code)) + 100, 7, 32} {
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

// synthetic is a GRUB directory with the right shapes in it.
func synthetic() fstest.MapFS {
	m := fstest.MapFS{
		"boot.img":            {Data: bytes.Repeat([]byte{0xaa}, sectorSize)},
		"cdboot.img":          {Data: bytes.Repeat([]byte{0xdd}, cdSector)},
		"diskboot.img":        {Data: bytes.Repeat([]byte{0xbb}, sectorSize)},
		"lzma_decompress.img": {Data: bytes.Repeat([]byte{0xcc}, 100)},
		"kernel.img":          {Data: elf32([]byte("kernel"))},
	}
	var deps strings.Builder
	for _, name := range Modules() {
		m[name+".mod"] = &fstest.MapFile{Data: []byte("module " + name)}
		fmt.Fprintf(&deps, "%s: shared\n", name)
	}
	deps.WriteString("shared:\n")
	m["shared.mod"] = &fstest.MapFile{Data: []byte("shared")}
	m["moddep.lst"] = &fstest.MapFile{Data: []byte(deps.String())}
	return m
}

// unpack is what the decompressor does.
func unpack(t *testing.T, core []byte, decompressor int) []byte {
	t.Helper()
	le := binary.LittleEndian
	packed, size := le.Uint32(core[sectorSize+compressedSizeAt:]), le.Uint32(core[sectorSize+decompressedSizeAt:])
	header := []byte{(2*5+0)*9 + 3}
	header = le.AppendUint32(header, 1<<16)
	header = le.AppendUint64(header, uint64(size))
	data := core[sectorSize+decompressor:][:packed]
	r, err := lzma.NewReader(io.MultiReader(bytes.NewReader(header), bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || len(b) != int(size) {
		t.Fatalf("decompress: %d bytes of %d, %v", len(b), size, err)
	}
	return b
}

// objects takes a payload apart: kernel, then each object behind it.
func objects(t *testing.T, payload []byte, kernelLen int) (objs []string) {
	t.Helper()
	le := binary.LittleEndian
	info := payload[kernelLen:]
	if le.Uint32(info) != moduleMagic || int(le.Uint32(info[8:])) != len(info) {
		t.Fatalf("module header %x: total %d, want %d", info[:4], le.Uint32(info[8:]), len(info))
	}
	for b := info[le.Uint32(info[4:]):]; len(b) > 0; {
		n := le.Uint32(b[4:])
		objs = append(objs, string(b[:n]))
		b = b[n:]
	}
	return objs
}

func TestBuildSynthetic(t *testing.T) {
	le := binary.LittleEndian
	c, err := Build(synthetic(), 2048, 2, "/grub")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Boot) != 440 || le.Uint64(c.Boot[0x5c:]) != 2048 || le.Uint16(c.Boot[0x66:]) != 0x9090 {
		t.Errorf("boot code: %d bytes, core at %d, check %x", len(c.Boot), le.Uint64(c.Boot[0x5c:]), c.Boot[0x66:0x68])
	}
	list := c.Image[blocklistAt:sectorSize]
	if le.Uint64(list) != 2049 || int(le.Uint16(list[8:])) != len(c.Image)/sectorSize-1 || le.Uint16(list[10:]) != loadSegment {
		t.Errorf("block list %x for %d bytes", list, len(c.Image))
	}
	if got, want := c.CD, append(bytes.Repeat([]byte{0xdd}, cdSector), c.Image...); !bytes.Equal(got, want) {
		t.Errorf("for a CD: %d bytes, want cdboot.img and the core image, %d", len(got), len(want))
	}
	objs := objects(t, unpack(t, c.Image, 100), 8)
	if want := len(Modules()) + 2; len(objs) != want {
		t.Fatalf("objects: got %d, want %d", len(objs), want)
	}
	if !strings.Contains(objs[0], "shared") {
		t.Errorf("first object: got %q, want the dependency of all", objs[0])
	}
	if got := objs[len(objs)-1]; got[0] != objPrefix || !strings.HasPrefix(got[8:], "(,gpt2)/grub\x00") {
		t.Errorf("last object: got %q, want the prefix", got)
	}
}

func TestBuildReportsInputs(t *testing.T) {
	for _, c := range []struct{ name, file, content, want string }{
		{"no boot.img", "boot.img", "", "boot.img"},
		{"short cdboot.img", "cdboot.img", "x", "cdboot.img: 1 bytes"},
		{"short diskboot.img", "diskboot.img", "x", "diskboot.img: 1 bytes"},
		{"large decompressor", "lzma_decompress.img", strings.Repeat("x", 4000), "4000 bytes"},
		{"kernel no ELF", "kernel.img", "x", "kernel.img"},
		{"no module", "fat.mod", "", "fat.mod"},
		{"unknown module", "moddep.lst", "biosdisk:\n", "no module part_gpt"},
		{"circle", "moddep.lst", "biosdisk: a\na: biosdisk\n", "depends on itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := synthetic()
			if delete(dir, c.file); c.content != "" {
				dir[c.file] = &fstest.MapFile{Data: []byte(c.content)}
			}
			if _, err := Build(dir, 2048, 2, "/grub"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// grub-mkimage must put the same kernel, modules and prefix into its image.
func TestSameAsMkimage(t *testing.T) {
	dir := filepath.Dir(debfile.Find(t, "usr/lib/grub/i386-pc/moddep.lst", "grub-pc-bin"))
	c, err := Build(os.DirFS(dir), 2048, 2, "/grub")
	if err != nil {
		t.Fatal(err)
	}
	tool, err := exec.LookPath("grub-mkimage")
	if err != nil {
		t.Skip("grub-mkimage is absent (Debian: grub-common)")
	}
	ref := filepath.Join(t.TempDir(), "core.img")
	args := append([]string{"-O", "i386-pc", "-d", dir, "-p", "(,gpt2)/grub", "-o", ref}, Modules()...)
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("grub-mkimage: %v\n%s", err, out)
	}
	want, err := os.ReadFile(ref)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := fs.ReadFile(os.DirFS(dir), "lzma_decompress.img")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.ReadFile(filepath.Join(dir, "kernel.img"))
	if err != nil {
		t.Fatal(err)
	}
	flat, err := flatten(kernel)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := unpack(t, c.Image, len(dec)), unpack(t, want, len(dec))
	if !bytes.Equal(ours[:len(flat)], theirs[:len(flat)]) {
		t.Error("the kernels differ")
	}
	a, b := objects(t, ours, len(flat)), objects(t, theirs, len(flat))
	slices.Sort(a) // the order of modules may differ, as long as dependencies come first
	slices.Sort(b)
	if !slices.Equal(a, b) {
		t.Errorf("the objects differ: %d and %d", len(a), len(b))
	}
}

func TestRenderConfig(t *testing.T) {
	got, err := RenderConfig([]Entry{
		{"Keelson (slot a)", "/EFI/Linux/a.efi", Extent{120, 20_000}, Extent{20_120, 9}, "console=tty0 quiet  keelson.slot=a panic=10\n"},
		{"Keelson (slot b)", "/EFI/Linux/b.efi", Extent{130, 20_001}, Extent{20_131, 8}, "console=tty0 keelson.slot=b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/grub.cfg"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("grub.cfg: got\n%s\nwant\n%s", got, want)
	}
	if tool, err := exec.LookPath("grub-script-check"); err == nil {
		if out, err := exec.Command(tool, golden).CombinedOutput(); err != nil {
			t.Errorf("grub-script-check: %v\n%s", err, out)
		}
	}
	for name, es := range map[string][]Entry{
		"none":         nil,
		"no kernel":    {{"t", "/k", Extent{}, Extent{3, 4}, "x"}},
		"no initramfs": {{"t", "/k", Extent{1, 2}, Extent{3, 0}, "x"}},
		"headers":      {{"t", "/k", Extent{0, 2}, Extent{3, 4}, "x"}},
		"quote":        {{"a'b", "/k", Extent{1, 2}, Extent{3, 4}, "x"}},
		"no title":     {{"", "/k", Extent{1, 2}, Extent{3, 4}, "x"}},
		"newline":      {{"t", "/k", Extent{1, 2}, Extent{3, 4}, "a\nb"}},
		"unicode":      {{"t", "/k", Extent{1, 2}, Extent{3, 4}, "x=ü"}},
		"spaces":       {{"t", "/k", Extent{1, 2}, Extent{3, 4}, `x="a b"`}},
	} {
		if _, err := RenderConfig(es); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzDeps(f *testing.F) {
	f.Add([]byte("a: b c\nb:\nc: b\n"), "a")
	f.Add([]byte("a: a"), "a")
	f.Fuzz(func(t *testing.T, b []byte, want string) {
		deps := parseDeps(b)
		out, err := closure(deps, []string{want})
		if err != nil {
			return
		}
		for i, m := range out {
			for _, n := range deps[m] {
				if !slices.Contains(out[:i], n) {
					t.Fatalf("%s comes before %s", m, n)
				}
			}
		}
	})
}

func FuzzFlatten(f *testing.F) {
	f.Add(elf32([]byte("kernel")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := flatten(b); err == nil && len(out) > len(b)+3 {
			t.Fatalf("%d bytes out of %d", len(out), len(b))
		}
	})
}
