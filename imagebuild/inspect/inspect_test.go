package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/internal/testpe"
	"keelson/imagebuild/pkcs7"
	"keelson/imagebuild/uki"
	"keelson/init/layout"
)

const release = "ID=keelson\nIMAGE_VERSION=1\nPRETTY_NAME=\"Keelson 1\"\nBUILD_ID=c0ffee\n"

func inspectFile(t *testing.T, name string, p *pkcs7.Pair) (*Report, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p == nil {
		return Image(f, nil)
	}
	return Image(f, p.Certificate)
}

func TestIntact(t *testing.T) {
	p, stranger := testkey.New(t, "signer"), testkey.New(t, "stranger")
	signed, unsigned := image(t, p), image(t, nil)
	for _, c := range []struct {
		name, file      string
		asked           *pkcs7.Pair
		signed, trusted bool
	}{
		{"signed, nobody asked", signed, nil, true, false},
		{"signed by whom was asked", signed, p, true, true},
		{"signed by another", signed, stranger, true, false},
		{"unsigned, nobody asked", unsigned, nil, false, false},
		{"unsigned, asked", unsigned, p, false, false},
	} {
		r, err := inspectFile(t, c.file, c.asked)
		if err != nil || len(r.Problems) != 0 || len(r.Added) != 0 {
			t.Errorf("%s: got %v, %+v", c.name, err, r)
			continue
		}
		if (r.Signer != nil) != c.signed || r.Trusted != c.trusted {
			t.Errorf("%s: signer %v, trusted %v", c.name, r.Signer != nil, r.Trusted)
		}
		if r.Release["BUILD_ID"] != "c0ffee" || r.Kernel != "6.12" || r.Packages != 2 || r.SBOM != 1 {
			t.Errorf("%s: contents %+v", c.name, r)
		}
	}
}

// One changed byte anywhere is found, and the region is named.
func TestChangedByte(t *testing.T) {
	name := image(t, testkey.New(t, "signer"))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const espAt, rootAt = layout.Align + layout.BIOSSize, layout.Align + layout.BIOSSize + 40<<20
	kernelAt := espAt + bytes.Index(b[espAt:], []byte("linuxlinux"))
	sumsAt := espAt + bytes.Index(b[espAt:], []byte("  /EFI/BOOT/BOOTX64.EFI"))
	treeAt := rootAt + bytes.Index(b[rootAt:], []byte("verity\x00\x00"))
	for _, c := range []struct {
		name   string
		at     int
		region string
	}{
		{"boot code", 3, regionMBR},
		{"disk signature", 441, regionMBR},
		{"protective entry", 446 + 4, regionMBR},
		{"MBR's end", 510, regionMBR},
		{"header's signature", sector, regionGPT},
		{"header's checksum", sector + 16, regionGPT},
		{"disk GUID", sector + 60, regionGPT},
		{"behind the header", sector + 200, regionGPT},
		{"an entry's name", 2*sector + 60, regionGPT},
		{"an unused entry", 2*sector + 100*entryLen, regionGPT},
		{"behind the table", 40 * sector, regionGap},
		{"core image", layout.Align + 2, regionBIOS},
		{"behind the core image", layout.Align + 5000, regionBIOS},
		{"volume's jump", espAt, regionESP},
		{"volume's serial", espAt + 67, regionESP},
		{"volume's label", espAt + 71, regionESP},
		{"volume's FSInfo", espAt + sector + 488, regionESP},
		{"allocation table", espAt + 32*sector + 40, regionESP},
		{"loader", espAt + bytes.Index(b[espAt:], testpe.Program(1024, 0)[1024:1060]) + 7, regionLoader},
		{"kernel image", kernelAt + 50_000, regionUKI},
		{"file for BIOS", espAt + bytes.Index(b[espAt:], []byte("timeout 0")), regionESP},
		{"hashes", sumsAt - 5, regionESP},
		{"free space of the volume", rootAt - 100, regionESP},
		{"EROFS superblock", rootAt + 1024, regionRoot},
		{"a file of the root", rootAt + bytes.Index(b[rootAt:], []byte("0123456789abcdef")) + 300_000, regionRoot},
		{"UUID of the hash tree", treeAt + 20, regionTree},
		{"salt of the hash tree", treeAt + 90, regionTree},
		{"hash tree", treeAt + layout.BlockSize + 40, regionTree},
		{"behind the hash tree", len(b) - layout.Align - 10, regionGap},
		{"behind the partitions", len(b) - layout.Align + 10, regionGap},
		{"backup entries", len(b) - backupLen + 60, regionBackup},
		{"backup header", len(b) - sector + 30, regionBackup},
	} {
		t.Run(c.name, func(t *testing.T) {
			flip(t, name, c.at)
			defer flip(t, name, c.at)
			r, err := inspectFile(t, name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Region == c.region }) {
				t.Errorf("got %v, want a problem of %s", r.Problems, c.region)
			}
		})
	}
	if r, err := inspectFile(t, name, nil); err != nil || len(r.Problems) != 0 {
		t.Errorf("put right again: got %v, %v", r, err)
	}
}

func flip(t *testing.T, name string, at int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 0x10}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

func TestNoImage(t *testing.T) {
	for _, c := range []struct {
		name string
		text []byte
		want string
	}{
		{"empty", nil, "no disk image"},
		{"text", []byte("hello"), "no disk image"},
		{"zeros", make([]byte, 1<<20), "no partition table"},
	} {
		name := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(name, c.text, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := inspectFile(t, name, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add(make([]byte, 64<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		if table, err := readTables(bytes.NewReader(b), int64(len(b)), &Report{}); err == nil {
			for _, p := range table.partitions {
				if p.start > p.end || p.end > int64(len(b)) {
					t.Fatalf("partition %+v of %d bytes", p, len(b))
				}
			}
		}
	})
}

func FuzzFAT(f *testing.F) {
	boot := make([]byte, 8<<10)
	copy(boot[11:], "\x00\x02\x01\x01\x00\x02")
	boot[36], boot[510], boot[511] = 1, 0x55, 0xaa
	f.Add(boot)
	f.Fuzz(func(t *testing.T, b []byte) { _ = checkFAT(bytes.NewReader(b), int64(len(b))) })
}

func FuzzSums(f *testing.F) {
	f.Add(RenderSums(map[string]string{"/a": sum([]byte("a"))}, Areas{Core: []byte("c"), Superblock: []byte("s")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		sums, err := parseSums(b)
		if err != nil {
			return
		}
		for name, hash := range sums {
			if name == "" || len(hash) != 64 {
				t.Fatalf("%q: %q", name, hash)
			}
		}
	})
}

// Files that somebody put onto the ESP are named, and are no damage.
func TestAddedFile(t *testing.T) {
	tool, err := exec.LookPath("mcopy")
	if err != nil {
		t.Skip("SKIPPED: mcopy is absent (Debian: mtools)")
	}
	name := image(t, nil)
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte("#cloud-config\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("%s@@%d", name, layout.Align+layout.BIOSSize)
	if out, err := exec.Command(tool, "-i", at, file, "::/keelson/user-data").CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
	r, err := inspectFile(t, name, nil)
	if err != nil || len(r.Problems) != 0 || !slices.Equal(r.Added, []string{"/keelson/user-data"}) {
		t.Errorf("got %v, added %v, %v", r.Problems, r.Added, err)
	}
	if out, err := exec.Command("mdel", "-i", at, "::/grub/grub.cfg").CombinedOutput(); err != nil {
		t.Fatalf("mdel: %v\n%s", err, out)
	}
	r, err = inspectFile(t, name, nil)
	if err != nil || len(r.Problems) != 1 || r.Problems[0].String() != "ESP: /grub/grub.cfg is not there" {
		t.Errorf("a file is gone: got %v, %v", r.Problems, err)
	}
}

// A kernel image too many, though the same signer signed it, is not what was built.
func TestSecondKernel(t *testing.T) {
	p := testkey.New(t, "signer")
	signed, err := authenticode.Sign(testpe.Program(1024, 0), p)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := uki.Build(testpe.Program(1024, 0), uki.Parts{
		OSRelease: []byte(release), Uname: "6.12", Initrd: []byte("i"), Linux: []byte("l"),
		Cmdline: fmt.Sprintf("%s=%x:1:%x", layout.ParamVerity, make([]byte, 32), make([]byte, layout.VeritySaltLen)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if kernel, err = authenticode.Sign(kernel, p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		files    map[string][]byte
		problems int
		trusted  bool
	}{
		{"one", map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": signed, "/EFI/Linux/a.efi": kernel}, 0, true},
		{"two", map[string][]byte{"/EFI/Linux/a.efi": kernel, "/EFI/Linux/b.efi": kernel}, 1, true},
		{"an unsigned one", map[string][]byte{"/EFI/Linux/a.efi": kernel, "/EFI/BOOT/BOOTX64.EFI": testpe.Program(1024, 0)}, 0, false},
		{"none", map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": signed}, 1, false},
		{"no kernel image", map[string][]byte{"/EFI/Linux/a.efi": signed}, 2, false},
	} {
		r := &Report{}
		r.programs(c.files, p.Certificate)
		if len(r.Problems) != c.problems || r.Trusted != c.trusted {
			t.Errorf("%s: got %v, trusted %v", c.name, r.Problems, r.Trusted)
		}
	}
}

// Where one table is broken, the other leads on; where both are, nothing does.
func TestBothTables(t *testing.T) {
	name := image(t, nil)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, name, sector+30)
	r, err := inspectFile(t, name, nil)
	if err != nil || len(r.Problems) != 1 || r.Problems[0].Region != regionGPT || r.Kernel != "6.12" {
		t.Errorf("first table broken: got %+v, %v", r, err)
	}
	flip(t, name, int(info.Size())-sector+30)
	if _, err := inspectFile(t, name, nil); err == nil || !strings.Contains(err.Error(), "no partition table") {
		t.Errorf("both broken: got %v", err)
	}
}

func TestRings(t *testing.T) {
	boot := make([]byte, 64<<10)
	copy(boot[11:], "\x00\x02\x01\x01\x00\x02")
	boot[36], boot[510], boot[511] = 1, 0x55, 0xaa
	put := func(cluster, next uint32) {
		for _, at := range []int{sector, 2 * sector} {
			binary.LittleEndian.PutUint32(boot[at+4*int(cluster):], next)
		}
	}
	check := func(name, want string) {
		t.Helper()
		err := checkFAT(bytes.NewReader(boot), int64(len(boot)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	put(2, 3)
	put(3, 0x0fffffff)
	check("a chain", "")
	put(3, 3)
	check("a chain that ends in itself", "to another file")
	put(2, 0)
	check("a cluster that follows itself", "a ring")
	put(3, 4)
	put(4, 3)
	check("two that follow each other", "a ring")
	put(4, 0x0ffff000)
	check("past the end", "leads nowhere")
	boot[sector+20] ^= 1
	check("one copy changed", "two allocation tables differ")
	boot[16] = 3
	check("three copies", "boot sector")
}

func FuzzKernel(f *testing.F) {
	f.Add(testpe.Program(1024, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := readKernel(b); err == nil && len(k.verity.RootHash) != 32 {
			t.Fatalf("root hash of %d bytes", len(k.verity.RootHash))
		}
	})
}
