package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"keelson/imagebuild/internal/debfile"
)

// stub is the least PE32+ image there can be: one section, and room for
// spare more in the headers.
func stub(spare int) []byte {
	le := binary.LittleEndian
	const pe, optLen, align = 0x40, 240, 0x200
	table := pe + 4 + coffLen + optLen
	headers := int(alignUp(uint32(table+(1+spare)*sectionLen), 8))
	// The specification wants a multiple of the file alignment; exactly full
	// headers are what the test of a full table needs.
	b := make([]byte, int(alignUp(uint32(headers), align))+align)
	copy(b, "MZ")
	le.PutUint32(b[peOffsetAt:], pe)
	copy(b[pe:], "PE\x00\x00")
	coff := b[pe+4:]
	le.PutUint16(coff, 0x8664)
	le.PutUint16(coff[coffSections:], 1)
	le.PutUint16(coff[coffOptSize:], optLen)
	opt := coff[coffLen:]
	le.PutUint16(opt[optMagic:], magicPE32Plus)
	le.PutUint32(opt[optInitialized:], 100)
	le.PutUint32(opt[optSectionAlign:], 0x200)
	le.PutUint32(opt[optFileAlign:], align)
	le.PutUint32(opt[optHeadersSize:], uint32(headers))
	le.PutUint32(opt[optChecksum:], 0xdeadbeef)
	le.PutUint32(opt[108:], 16) // data directories
	s := b[table:]
	copy(s, ".text")
	le.PutUint32(s[8:], 0x123)
	le.PutUint32(s[12:], 0x4000)
	le.PutUint32(s[16:], align)
	le.PutUint32(s[20:], uint32(len(b)-align))
	return b
}

func parts() Parts {
	return Parts{
		OSRelease: []byte("ID=keelson\n"), Cmdline: "console=ttyS0 quiet", Uname: "6.12.0",
		Initrd: bytes.Repeat([]byte("i"), 5000), Linux: bytes.Repeat([]byte("l"), 10001),
	}
}

func check(t *testing.T, img []byte, want Parts) {
	t.Helper()
	got, err := Read(img)
	if err != nil {
		t.Fatal(err)
	}
	if got.Cmdline != want.Cmdline || got.Uname != want.Uname || !bytes.Equal(got.OSRelease, want.OSRelease) ||
		!bytes.Equal(got.Initrd, want.Initrd) || !bytes.Equal(got.Linux, want.Linux) {
		t.Error("Read does not give back what Build was given")
	}
	// The standard library's reader is the second opinion.
	f, err := pe.NewFile(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	var end uint32
	for _, s := range f.Sections {
		if s.VirtualAddress < end {
			t.Errorf("section %s at %#x overlaps the one before", s.Name, s.VirtualAddress)
		}
		if strings.Contains(".osrel .cmdline .uname .initrd .linux", s.Name) && (s.VirtualAddress%pageSize != 0 || s.Offset%0x200 != 0) {
			t.Errorf("section %s: address %#x, offset %#x are not aligned", s.Name, s.VirtualAddress, s.Offset)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	if opt.SizeOfImage < end || opt.SizeOfImage%pageSize != 0 {
		t.Errorf("SizeOfImage: got %#x, sections end at %#x", opt.SizeOfImage, end)
	}
	if opt.CheckSum != 0 {
		t.Errorf("CheckSum: got %#x, want 0", opt.CheckSum)
	}
	if last := f.Sections[len(f.Sections)-1]; last.Name != ".linux" {
		t.Errorf("last section: got %s, want .linux", last.Name)
	}
}

func TestBuild(t *testing.T) {
	img, err := Build(stub(5), parts())
	if err != nil {
		t.Fatal(err)
	}
	check(t, img, parts())
	again, err := Build(stub(5), parts())
	if err != nil || !bytes.Equal(img, again) {
		t.Error("two images of the same parts differ")
	}
}

func TestWriteStream(t *testing.T) {
	p := parts()
	want, err := Build(stub(5), p)
	if err != nil {
		t.Fatal(err)
	}
	initrd := p.Initrd
	p.Initrd = nil
	var got bytes.Buffer
	if err := Write(&got, stub(5), p, Stream{iotest.OneByteReader(bytes.NewReader(initrd)), int64(len(initrd))}); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %d bytes, %v, want what Build makes", got.Len(), err)
	}
	for name, s := range map[string]Stream{
		"short":   {bytes.NewReader(initrd), int64(len(initrd)) + 1},
		"long":    {bytes.NewReader(initrd), int64(len(initrd)) - 1},
		"empty":   {bytes.NewReader(nil), 0},
		"failing": {iotest.ErrReader(io.ErrClosedPipe), 1},
	} {
		if err := Write(io.Discard, stub(5), p, s); err == nil || !strings.Contains(err.Error(), ".initrd") {
			t.Errorf("%s: got %v, want an error about .initrd", name, err)
		}
	}
}

func TestLocate(t *testing.T) {
	p := parts()
	img, err := Build(stub(5), p)
	if err != nil {
		t.Fatal(err)
	}
	linux, initrd, err := Locate(img)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at   Extent
		want []byte
	}{"kernel": {linux, p.Linux}, "initramfs": {initrd, p.Initrd}} {
		got := img[c.at.First*sectorSize:][:c.at.Count*sectorSize]
		if rest, ok := bytes.CutPrefix(got, c.want); !ok || len(rest) >= sectorSize || len(bytes.Trim(rest, "\x00")) > 0 {
			t.Errorf("%s: the sectors %+v do not hold it and zeros", name, c.at)
		}
	}
	for name, c := range map[string]struct {
		img  []byte
		want string
	}{
		"text":      {[]byte("hello"), "MZ"},
		"no kernel": {stub(5), "no section"},
		"unaligned": {func() []byte {
			b := bytes.Clone(img)
			h, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			last := b[h.table+(len(h.sections)-1)*sectionLen:]
			binary.LittleEndian.PutUint32(last[20:], h.sections[len(h.sections)-1].offset-8)
			return b
		}(), "no section .linux in whole sectors"},
	} {
		if _, _, err := Locate(c.img); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestBuildOnSystemdStub(t *testing.T) {
	b, err := os.ReadFile(debfile.Find(t, "usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Build(b, parts())
	if err != nil {
		t.Fatal(err)
	}
	check(t, img, parts())
	tool, err := exec.LookPath("objcopy")
	if err != nil {
		t.Skip("objcopy is absent (Debian: binutils)")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "uki.efi"), filepath.Join(dir, "linux")
	if err := os.WriteFile(in, img, 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command(tool, "-O", "binary", "--only-section=.linux", in, out).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, msg)
	}
	if got, _ := os.ReadFile(out); !bytes.HasPrefix(got, parts().Linux) {
		t.Errorf("objcopy: got %d bytes for .linux, want %d", len(got), len(parts().Linux))
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		stub []byte
		edit func(*Parts)
		want string
	}{
		{"headers full", stub(4), func(*Parts) {}, "room for 5 sections, 6 are needed"},
		{"no kernel", stub(5), func(p *Parts) { p.Linux = nil }, ".linux is empty"},
		{"no command line", stub(5), func(p *Parts) { p.Cmdline = " \n" }, ".cmdline is empty"},
		{"newline in command line", stub(5), func(p *Parts) { p.Cmdline = "a\nb" }, "printable ASCII"},
		{"long command line", stub(5), func(p *Parts) { p.Cmdline = strings.Repeat("a", 2048) }, "2047"},
		{"stub is text", []byte("hello"), func(*Parts) {}, "MZ"},
		{"stub is a PE32", func() []byte { b := stub(5); b[0x40+4+coffLen] = 0x0b; b[0x40+4+coffLen+1] = 1; return b }(), func(*Parts) {}, "PE32+"},
		{"stub is cut", stub(5)[:0x300], func(*Parts) {}, "past the end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts()
			c.edit(&p)
			if _, err := Build(c.stub, p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	img, err := Build(stub(20), parts())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(img, parts()); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("building on a finished image: got %v", err)
	}
	if _, err := Read(stub(5)); err == nil || !strings.Contains(err.Error(), "no section .osrel, .cmdline") {
		t.Errorf("reading a bare stub: got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	img, err := Build(stub(5), parts())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img)
	f.Add(stub(5))
	f.Fuzz(func(t *testing.T, b []byte) {
		Read(b)
		if linux, initrd, err := Locate(b); err == nil {
			for _, at := range []Extent{linux, initrd} {
				if (at.First+at.Count)*sectorSize > int64(len(b)) {
					t.Fatalf("%+v is past the end of %d bytes", at, len(b))
				}
			}
		}
		// What parse accepts, Build must cope with as well.
		if out, err := Build(b, parts()); err == nil {
			if _, err := Read(out); err != nil {
				t.Fatalf("Build made an image that Read refuses: %v", err)
			}
		}
	})
}
