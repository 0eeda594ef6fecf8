package inspect

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/disk"
	"keelson/imagebuild/erofs"
	"keelson/imagebuild/esp"
	"keelson/imagebuild/internal/testpe"
	"keelson/imagebuild/pkcs7"
	"keelson/imagebuild/tree"
	"keelson/imagebuild/uki"
	"keelson/imagebuild/verity"
	"keelson/init/layout"
)

// builder makes the parts of an image, signed where there is a pair.
type builder struct {
	*testing.T
	dir    string
	pair   *pkcs7.Pair
	root   *os.File
	hashes verity.Tree
	areas  Areas
}

func (b *builder) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *builder) file(name string) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.dir, name))
	b.must(err)
	b.Cleanup(func() { f.Close() })
	return f
}

func (b *builder) sign(program []byte) []byte {
	if b.pair == nil {
		return program
	}
	signed, err := authenticode.Sign(program, b.pair)
	b.must(err)
	return signed
}

func epoch() time.Time { return time.Unix(1700000000, 0) }

func newBuilder(t *testing.T, p *pkcs7.Pair) *builder {
	t.Helper()
	b := &builder{T: t, dir: t.TempDir(), pair: p}
	var root tree.Tree
	b.must(root.Bytes(layout.OSRelease, 0o644, []byte(release)))
	b.must(root.Bytes(layout.Manifest, 0o644, []byte(`{"kernel":"6.12","packages":[{"name":"a"},{"name":"b"}]}`)))
	b.must(root.Bytes(layout.Keelson+"/sbom.cdx.json", 0o644, []byte(`{"components":[{"name":"a"}]}`)))
	b.must(root.Bytes("/big", 0o644, bytes.Repeat([]byte("0123456789abcdef"), 50_000)))
	b.root = b.file("root")
	size, err := erofs.Write(b.root, &root, erofs.Options{Time: epoch()})
	b.must(err)
	b.hashes, err = verity.Append(b.root, size, verity.Derive([]byte("seed")))
	b.must(err)
	b.areas = Areas{BootCode: []byte("boot code"), Core: []byte("core image"), Superblock: make([]byte, layout.BlockSize)}
	_, err = b.root.ReadAt(b.areas.Superblock, size)
	b.must(err)
	return b
}

// esp writes an ESP and returns it with the kernel image on it.
func (b *builder) esp(name string, size int64, argument string, areas Areas) (*os.File, []byte) {
	b.Helper()
	kernel, err := uki.Build(testpe.Program(1024, 0), uki.Parts{
		OSRelease: []byte(release), Uname: "6.12", Initrd: []byte("initrd"), Linux: bytes.Repeat([]byte("linux"), 20_000),
		Cmdline: fmt.Sprintf("quiet %s=%s %s=%d%s", layout.ParamVerity, b.hashes.Verity, layout.ParamEpoch, epoch().Unix(), argument),
	})
	b.must(err)
	kernel = b.sign(kernel)
	files, err := esp.Contents(esp.Parts{Arch: "amd64", Slot: "a", Loader: b.sign(testpe.Program(1024, 0)), UKI: kernel, GrubConfig: []byte("g")})
	b.must(err)
	contents := map[string]string{}
	entries, err := files.Entries()
	b.must(err)
	for _, e := range entries {
		if e.Mode.IsRegular() {
			in, err := e.Open()
			b.must(err)
			content, err := io.ReadAll(in)
			b.must(err)
			contents[e.Path] = sum(content)
		}
	}
	b.must(files.Bytes(SumsPath, 0o644, RenderSums(contents, areas)))
	f := b.file(name)
	b.must(esp.Write(f, files, esp.Options{Size: size, Label: layout.LabelESP, Serial: 7, Time: epoch()}))
	return f, kernel
}

// image writes a whole image, signed where there is a pair, and returns its path.
func image(t *testing.T, p *pkcs7.Pair) string {
	t.Helper()
	b := newBuilder(t, p)
	volume, _ := b.esp("esp", 40<<20, "", b.areas)
	out := filepath.Join(b.dir, "image.raw")
	_, err := disk.Write(out, disk.Image{Seed: []byte("seed"), BootCode: b.areas.BootCode, Partitions: []disk.Partition{
		{Number: 1, Label: layout.LabelBIOS, Type: layout.TypeBIOSBoot, Size: layout.BIOSSize, Data: bytes.NewReader(b.areas.Core), Len: int64(len(b.areas.Core))},
		{Number: 2, Label: layout.LabelESP, Type: layout.TypeESP, Size: 40 << 20, Data: volume, Len: 40 << 20},
		{Number: 3, Label: layout.LabelRootA, Type: layout.TypeRootAMD64, Attrs: layout.AttrRoot, Data: b.root, Len: b.hashes.Size},
	}})
	b.must(err)
	return out
}
