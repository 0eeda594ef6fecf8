package inspect

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keelson/imagebuild/disk"
	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/iso"
	"keelson/imagebuild/payload"
	"keelson/imagebuild/pkcs7"
	"keelson/init/layout"
)

// liveESP is the size of the medium's ESP.
const liveESP = 36 << 20

// isoImage writes a whole ISO and returns its path. The functions may change what goes into it.
func isoImage(t *testing.T, p *pkcs7.Pair, change func(b *builder, system *payload.System)) string {
	t.Helper()
	b := newBuilder(t, p)
	areas := b.areas
	loader := bytes.Repeat([]byte("loader for CDs! "), 300)
	areas.CD = iso.Loaded(loader)
	live, kernel := b.esp("live", liveESP, " keelson.live=1", areas)
	installed, _ := b.esp("installed", layout.ESPSize, "", b.areas)
	core := bytes.NewReader(b.areas.Core)
	system := payload.System{
		Arch: "amd64", Core: payload.Content{Data: core, Len: core.Size()}, ESP: payload.Content{Data: installed, Len: layout.ESPSize},
		Root: payload.Content{Data: b.root, Len: b.hashes.Size}, MediumESP: payload.Content{Data: live, Len: liveESP}, Kernel: payload.Content{Data: bytes.NewReader(kernel), Len: int64(len(kernel))},
	}
	if change != nil {
		change(b, &system)
	}
	all, err := system.Partitions()
	b.must(err)
	made, err := payload.Make("1", base64.StdEncoding.EncodeToString(b.areas.BootCode), all)
	b.must(err)
	out := filepath.Join(b.dir, "image.iso")
	_, err = disk.Write(out, disk.Image{
		Seed: []byte("seed"), BootCode: b.areas.BootCode, Active: true, Partitions: []disk.Partition{
			{Number: 1, Label: layout.LabelBIOS, Type: layout.TypeBIOSBoot, Size: layout.BIOSSize, Data: core, Len: core.Size()},
			{Number: 2, Label: layout.LabelESP, Type: layout.TypeESP, Size: liveESP, Data: live, Len: liveESP},
			{Number: 3, Label: layout.LabelLive, Type: layout.TypeData, Attrs: layout.AttrRoot, Data: b.root, Len: b.hashes.Size},
			{Number: 4, Label: layout.LabelPayload, Type: layout.TypeData, Attrs: layout.AttrRoot, Data: bytes.NewReader(made), Len: int64(len(made))},
		},
		Lead: func(starts []int64, size int64) ([]byte, error) {
			return iso.Render(iso.Medium{
				Version: "1", Time: epoch(), Size: size, BIOS: loader, EFI: starts[1], EFILen: liveESP, Root: starts[2], RootLen: b.hashes.Size,
			}.Volume(), starts[0])
		},
	})
	b.must(err)
	return out
}

func TestIntactISO(t *testing.T) {
	p, stranger := testkey.New(t, "signer"), testkey.New(t, "stranger")
	signed, unsigned := isoImage(t, p, nil), isoImage(t, nil, nil)
	for _, c := range []struct {
		name, file      string
		asked           *pkcs7.Pair
		signed, trusted bool
	}{
		{"signed by whom was asked", signed, p, true, true},
		{"signed by another", signed, stranger, true, false},
		{"unsigned, asked", unsigned, p, false, false},
	} {
		r, err := inspectFile(t, c.file, c.asked)
		if err != nil || len(r.Problems) != 0 || len(r.Added) != 0 {
			t.Errorf("%s: got %v, %+v", c.name, err, r)
			continue
		}
		if (r.Signer != nil) != c.signed || r.Trusted != c.trusted || r.Kernel != "6.12" {
			t.Errorf("%s: signer %v, trusted %v, kernel %s", c.name, r.Signer != nil, r.Trusted, r.Kernel)
		}
	}
}

// One changed byte anywhere is found, and the region is named.
func TestChangedByteOfISO(t *testing.T) {
	name := isoImage(t, testkey.New(t, "signer"), nil)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const espAt, rootAt = layout.Align + layout.BIOSSize, layout.Align + layout.BIOSSize + liveESP
	payloadAt := bytes.Index(b, []byte("KEELSON-PAYLOAD 1 "))
	head, data, err := layout.ParsePayload(b[payloadAt:])
	if err != nil {
		t.Fatal(err)
	}
	inHead := func(text string) int { return payloadAt + bytes.Index(b[payloadAt:], []byte(text)) + len(text) }
	var fresh int64 // bytes that the payload itself brings along
	for _, p := range head.Partitions {
		for _, e := range p.Extents {
			if e.From == layout.NumberPayload {
				fresh += e.Length
			}
		}
	}
	for _, c := range []struct {
		name   string
		at     int
		region string
	}{
		{"boot code", 3, regionMBR},
		{"an entry's name", 2*sector + 60, regionGPT},
		{"behind the table", 40 * sector, regionGap},
		{"before the volume", disk.LeadAt - 1, regionGap},
		{"volume descriptor", disk.LeadAt + 1, regionISO},
		{"volume's label", disk.LeadAt + 41, regionISO},
		{"volume's size", disk.LeadAt + 81, regionISO},
		{"volume's time", disk.LeadAt + 815, regionISO},
		{"boot record", disk.LeadAt + iso.Sector + 72, regionISO},
		{"catalogue", disk.LeadAt + 3*iso.Sector + 40, regionISO},
		{"root directory", disk.LeadAt + 6*iso.Sector + 40, regionISO},
		{"loader's length", disk.LeadAt + 7*iso.Sector + 16, regionISO},
		{"loader", disk.LeadAt + 7*iso.Sector + 2000, regionISO},
		{"README", bytes.Index(b, []byte("operating system that is")), regionISO},
		{"behind the volume", layout.Align - 5, regionISO},
		{"core image", layout.Align + 2, regionBIOS},
		{"FAT", espAt + 32*sector + 40, regionESP},
		{"kernel image", espAt + bytes.Index(b[espAt:], []byte("linuxlinux")) + 50_000, regionUKI},
		{"a file of the root", rootAt + bytes.Index(b[rootAt:], []byte("0123456789abcdef")) + 300_000, regionRoot},
		{"hash tree", rootAt + bytes.Index(b[rootAt:], []byte("verity\x00\x00")) + layout.BlockSize + 40, regionTree},
		{"behind the hash tree", payloadAt - 10, regionGap},
		{"payload's first line", payloadAt + 3, regionPayload},
		{"payload's version", inHead(`"version":"`), regionPayload},
		{"payload's boot code", inHead(`"bootCode":"`), regionPayload},
		{"payload's type of a partition", inHead(`"type":"`), regionPayload},
		{"payload's size of a partition", inHead(`"size":`), regionPayload},
		{"payload's sum", inHead(`"sha256":"`), regionPayload},
		{"payload's extent", inHead(`"extents":[{"from":2,"offset":`), regionPayload},
		{"behind the payload's head", payloadAt + int(data) - 1, regionPayload},
		{"payload's bytes", payloadAt + int(data) + 30, regionPayload},
		{"the last of them", payloadAt + int(data+fresh) - 1, regionPayload},
		{"behind the payload", payloadAt + int(data+fresh) + 5000, regionPayload},
		{"behind the partitions", len(b) - layout.Align + 10, regionGap},
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

// A payload that is whole, but installs something else than the medium starts.
func TestPayloadOfAnother(t *testing.T) {
	other := func(argument string, areas func(*Areas), signer *pkcs7.Pair) func(*builder, *payload.System) {
		return func(b *builder, s *payload.System) {
			a := b.areas
			areas(&a)
			b.pair = signer
			f, _ := b.esp("other", layout.ESPSize, argument, a)
			s.ESP.Data = f
		}
	}
	same := func(*Areas) {}
	p := testkey.New(t, "signer")
	for _, c := range []struct {
		name, want string
		change     func(*builder, *payload.System)
	}{
		{"command line", "command line", other(" init=/evil", same, p)},
		{"boot code", sumBootCode, other("", func(a *Areas) { a.BootCode = []byte("other") }, p)},
		{"signer", "signer", other("", same, testkey.New(t, "stranger"))},
		{"unsigned", "signer", other("", same, nil)},
		{"no ESP", "boot sector", func(b *builder, s *payload.System) { s.ESP.Data = bytes.NewReader(make([]byte, layout.ESPSize)) }},
		{"size", "bytes: want", func(b *builder, s *payload.System) { s.ESP.Len -= 512 }},
		{"architecture", "is not what was built", func(b *builder, s *payload.System) { s.Arch = "arm64" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := inspectFile(t, isoImage(t, p, c.change), p)
			if err != nil || len(r.Problems) != 1 || r.Problems[0].Region != regionPayload || !strings.Contains(r.Problems[0].Text, c.want) {
				t.Errorf("got %v, %v, want a problem of the payload with %q", r.Problems, err, c.want)
			}
			if c.want == "signer" && r.Trusted {
				t.Error("it is trusted")
			}
		})
	}
}

// User-data on the stick is named, and is no damage; what is installed does not depend on it.
func TestAddedToStick(t *testing.T) {
	tool, err := exec.LookPath("mcopy")
	if err != nil {
		t.Skip("SKIPPED: mcopy is absent (Debian: mtools)")
	}
	name := isoImage(t, nil, nil)
	file := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(file, []byte("#cloud-config\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "-i", name+"@@2M", file, "::/keelson/user-data").CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
	r, err := inspectFile(t, name, nil)
	if err != nil || len(r.Problems) != 0 || !slices.Equal(r.Added, []string{"/keelson/user-data"}) {
		t.Errorf("got %v, added %v, %v", r.Problems, r.Added, err)
	}
}
