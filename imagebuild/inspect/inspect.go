// Package inspect says whether a raw image or an ISO is the one that was
// built, and what is in it.
//
// Every byte is accounted for: partition tables by their checksums and each
// other, the ESP by the hashes that the builder left on it and by being
// written anew, the root by its hash tree and the hash in the kernel's command
// line, all between them by being zero. An ISO's own volume and what it would
// install are made anew as well and compared. It changes nothing, and what it reads
// may be anything. An image without a signature proves that no byte went
// wrong by itself; only with a signature, checked against a certificate that
// is known from elsewhere, does it prove who built it.
//
// Formats: UEFI specification 2.10, 5.3 for GPT; the others are those of the
// packages that write them.
package inspect

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/disk"
	"keelson/imagebuild/pkcs7"
	"keelson/imagebuild/uki"
	"keelson/imagebuild/verity"
	"keelson/init/layout"

	"github.com/erofs/go-erofs"
)

// Problem is what is wrong with a region.
type Problem struct{ Region, Text string }

func (p Problem) String() string { return p.Region + ": " + p.Text }

// Report of one image.
type Report struct {
	Problems []Problem
	Signer   *x509.Certificate // of boot loader and kernel image; nil: not signed
	Trusted  bool              // the signer is the one that was asked for
	Added    []string          // files on the ESP that the builder did not put there

	Release  map[string]string // of os-release(5)
	Packages int               // Debian packages of the manifest
	Kernel   string
	SBOM     int // components
}

func (r *Report) problem(region, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{region, fmt.Sprintf(format, args...)})
}

// Regions of an image, as problems name them.
const (
	regionMBR     = "MBR"
	regionGPT     = "GPT"
	regionBackup  = "backup GPT"
	regionBIOS    = "BIOS boot partition"
	regionESP     = "ESP"
	regionLoader  = "boot loader"
	regionUKI     = "kernel image"
	regionRoot    = "root"
	regionTree    = "hash tree"
	regionGap     = "unused space"
	regionISO     = "ISO 9660 volume"
	regionPayload = "payload"
)

// Image inspects a raw image or an ISO. With trusted, boot loader and kernel image must
// be signed by it.
func Image(f *os.File, trusted *x509.Certificate) (*Report, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	r := &Report{}
	table, err := readTables(f, info.Size(), r)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", f.Name(), err)
	}
	volume, ok := table.find(layout.LabelESP)
	if !ok {
		return nil, fmt.Errorf("inspect %s: no partition %s: want a raw image or an ISO of Keelson", f.Name(), layout.LabelESP)
	}
	root, ok := table.find(layout.LabelRootA)
	behind, begin := root, table.first()
	var m *medium
	if !ok {
		m = &medium{file: f, size: info.Size(), table: table, esp: volume, trusted: trusted}
		if m.root, ok = table.find(layout.LabelLive); !ok {
			return nil, fmt.Errorf("inspect %s: no partition %s or %s: want a raw image or an ISO of Keelson", f.Name(), layout.LabelRootA, layout.LabelLive)
		}
		if m.payload, ok = table.find(layout.LabelPayload); !ok {
			return nil, fmt.Errorf("inspect %s: no partition %s: want an ISO that this version made", f.Name(), layout.LabelPayload)
		}
		root, behind, begin = m.root, m.payload, disk.LeadAt
	}
	files := r.volume(f, volume)
	sums := r.sums(files)
	kernel := r.programs(files, trusted)
	r.bootArea(f, table, sums, begin)
	used := r.root(f, root, kernel, sums)
	r.contents(f, root, kernel)
	if kernel != nil {
		r.rewrite(f, volume, files, kernel)
	}
	if m != nil && kernel != nil {
		m.files, m.sums, m.kernel, m.used = files, sums, kernel, used
		r.medium(m)
	}
	gaps := []span{{behind.end, info.Size() - backupLen}}
	if used > 0 {
		gaps = append(gaps, span{root.start + used, root.end})
	}
	for _, gap := range gaps {
		at, err := firstNonZero(f, gap)
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", f.Name(), err)
		}
		if at >= 0 {
			r.problem(regionGap, "byte %d should be zero", at)
		}
	}
	slices.SortStableFunc(r.Problems, func(a, b Problem) int { return cmp.Compare(a.String(), b.String()) })
	return r, nil
}

// kernelImage is what a UKI says.
type kernelImage struct {
	uki.Parts
	verity layout.Verity
	params map[string]string
}

// programs checks the EFI programs and returns the kernel image.
func (r *Report) programs(files map[string][]byte, trusted *x509.Certificate) *kernelImage {
	r.Trusted = trusted != nil
	var kernel *kernelImage
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		if !strings.HasSuffix(strings.ToLower(name), ".efi") {
			continue
		}
		region := regionLoader
		if strings.HasPrefix(name, "/EFI/Linux/") {
			region = regionUKI
		}
		signer, err := authenticode.Verify(content)
		switch {
		case errors.Is(err, authenticode.ErrUnsigned):
			r.Trusted = false
		case err != nil:
			r.Trusted = false
			r.problem(region, "%s: %v", name, err)
		default:
			r.Signer = signer
			r.Trusted = r.Trusted && pkcs7.Trusts(trusted, signer)
		}
		if region != regionUKI {
			continue
		}
		if kernel != nil {
			r.problem(region, "%s: a second one: an image has one slot", name)
			continue
		}
		if kernel, err = readKernel(content); err != nil {
			kernel = nil
			r.problem(region, "%s: %v", name, err)
		}
	}
	if kernel == nil {
		r.problem(regionUKI, "there is none that can be read on the ESP")
		r.Trusted = false
	}
	return kernel
}

func readKernel(content []byte) (*kernelImage, error) {
	parts, err := uki.Read(content)
	if err != nil {
		return nil, err
	}
	k := &kernelImage{Parts: parts, params: map[string]string{}}
	for _, field := range strings.Fields(parts.Cmdline) {
		name, value, _ := strings.Cut(field, "=")
		k.params[name] = value
	}
	k.verity, err = layout.ParseVerity(k.params[layout.ParamVerity])
	return k, err
}

// root checks data and tree against the kernel image and returns how much of
// the partition they take.
func (r *Report) root(f io.ReaderAt, p partition, kernel *kernelImage, sums map[string]string) int64 {
	if kernel == nil {
		r.problem(regionRoot, "cannot be checked: there is no root hash")
		return 0
	}
	section := io.NewSectionReader(f, p.start, p.end-p.start)
	v := kernel.verity
	if v.HashOffset() >= uint64(p.end-p.start) {
		r.problem(regionRoot, "the command line speaks of %d blocks, which do not fit the partition", v.DataBlocks)
		return 0
	}
	stored, _, err := verity.Read(section, int64(v.HashOffset()))
	if err != nil {
		r.problem(regionTree, "%v", err)
	} else if !bytes.Equal(stored.Salt, v.Salt) {
		r.problem(regionTree, "the superblock has another salt than the command line")
	}
	if want, ok := sums[sumSuperblock]; ok && err == nil {
		block := make([]byte, layout.BlockSize)
		if _, err := section.ReadAt(block, int64(v.HashOffset())); err != nil || sum(block) != want {
			r.problem(regionTree, "the superblock is not the one that was built")
		}
	}
	damage, end, err := verity.Check(section, v)
	if err != nil {
		r.problem(regionRoot, "%v", err)
	}
	for _, d := range damage {
		region := regionRoot
		if d.Tree {
			region = regionTree
		}
		r.problem(region, "block at byte %d of the partition does not match the root hash", d.Offset)
	}
	return end
}

// contents reads what is in the root; what is damaged is not read.
func (r *Report) contents(f io.ReaderAt, p partition, kernel *kernelImage) {
	for _, problem := range r.Problems {
		if problem.Region == regionRoot {
			return
		}
	}
	if kernel == nil {
		return
	}
	fsys, err := erofs.Open(io.NewSectionReader(f, p.start, int64(kernel.verity.HashOffset())))
	if err != nil {
		r.problem(regionRoot, "no EROFS: %v", err)
		return
	}
	release, err := fs.ReadFile(fsys, strings.TrimPrefix(layout.OSRelease, "/"))
	if err != nil {
		r.problem(regionRoot, "%v", err)
	} else if !bytes.Equal(release, kernel.OSRelease) {
		r.problem(regionUKI, "os-release is not that of the root")
	}
	r.Release = map[string]string{}
	for line := range strings.Lines(string(release)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			r.Release[name] = strings.Trim(value, `"`)
		}
	}
	var manifest struct {
		Kernel   string
		Packages []struct{ Name string }
	}
	if err := readJSON(fsys, layout.Manifest, &manifest); err != nil {
		r.problem(regionRoot, "%v", err)
	}
	r.Packages, r.Kernel = len(manifest.Packages), manifest.Kernel
	if manifest.Kernel != kernel.Uname {
		r.problem(regionUKI, "kernel %q: the root was made for %q", kernel.Uname, manifest.Kernel)
	}
	var bom struct{ Components []struct{ Name string } }
	if err := readJSON(fsys, layout.Keelson+"/sbom.cdx.json", &bom); err != nil {
		r.problem(regionRoot, "%v", err)
	}
	r.SBOM = len(bom.Components)
}

func readJSON(fsys fs.FS, name string, to any) error {
	text, err := fs.ReadFile(fsys, strings.TrimPrefix(name, "/"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
