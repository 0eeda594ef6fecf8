// Package disk puts partitions together to a raw disk image: protective MBR
// with boot code, GPT with its backup, and the partitions' contents.
//
// The table is go-diskfs's; the contents are copied through a small buffer,
// and blocks of zeros become holes of the file, so that an image takes the
// space of what is in it. An image appears under its name whole or not at
// all. It never makes a file system, and GUIDs come from the caller.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keelson/imagebuild/guid"
	"keelson/init/layout"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Partition is one entry of the table and what is in it.
type Partition struct {
	Number int // in the table, from 1
	Label  string
	Type   string // GUID
	Attrs  uint64
	Size   int64       // a multiple of layout.Align; 0: as large as the content needs
	Data   io.ReaderAt // content of Len bytes from the start; the rest is zero
	Len    int64
}

// Image is a disk to be written.
type Image struct {
	Seed       []byte // the GUIDs of the disk and its partitions are derived from it
	BootCode   []byte // up to 440 bytes at the beginning of the MBR
	Partitions []Partition
	// Active marks the protective MBR's entry, without which some BIOSes do not start a USB stick.
	Active bool
	// Lead makes what lies between the partition table and the first partition, from LeadAt on, when the places of the
	// partitions and the size of the disk are known.
	Lead func(starts []int64, size int64) ([]byte, error)
}

// LeadAt is the byte at which Lead's content begins: behind the partition table, where ISO 9660
// volumes begin.
const LeadAt = 32 << 10

// FirstLBA is the sector at which the first partition begins.
const FirstLBA = layout.Align / layout.SectorSize

// Write makes the image at path and returns its size. It writes a temporary
// file beside it and renames that. Nothing is flushed to the disk of the
// machine that builds: that would cost seconds, and an image can be made again.
func Write(path string, img Image) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return 0, fmt.Errorf("disk: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if size, err = write(f, img); err != nil {
		return 0, fmt.Errorf("disk %s: %w", path, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return 0, fmt.Errorf("disk: %w", err)
	}
	if err := f.Close(); err != nil {
		return 0, fmt.Errorf("disk: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, fmt.Errorf("disk: %w", err)
	}
	return size, nil
}

func write(f *os.File, img Image) (int64, error) {
	table, size, err := plan(img)
	if err != nil {
		return 0, err
	}
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	if err := table.Write(noSync{f}, size); err != nil {
		return 0, err
	}
	if len(img.BootCode) > 440 {
		return 0, fmt.Errorf("boot code of %d bytes: want at most 440", len(img.BootCode))
	}
	if _, err := f.WriteAt(img.BootCode, 0); err != nil {
		return 0, err
	}
	if img.Active {
		if _, err := f.WriteAt([]byte{0x80}, 446); err != nil {
			return 0, err
		}
	}
	var starts []int64
	for _, p := range table.Partitions {
		starts = append(starts, int64(p.Start)*layout.SectorSize)
	}
	if img.Lead != nil {
		lead, err := img.Lead(starts, size)
		if err != nil {
			return 0, err
		}
		if len(lead) > FirstLBA*layout.SectorSize-LeadAt {
			return 0, fmt.Errorf("%d bytes do not fit before the first partition", len(lead))
		}
		if _, err := f.WriteAt(lead, LeadAt); err != nil {
			return 0, err
		}
	}
	for i, p := range img.Partitions {
		if p.Data == nil {
			continue
		}
		start := starts[i]
		if err := copySparse(f, start, p.Data, p.Len); err != nil {
			return 0, fmt.Errorf("partition %s: %w", p.Label, err)
		}
	}
	return size, nil
}

// plan places the partitions one behind the other in the order given.
func plan(img Image) (*gpt.Table, int64, error) {
	if len(img.Partitions) == 0 {
		return nil, 0, errors.New("no partitions")
	}
	t := &gpt.Table{
		LogicalSectorSize: layout.SectorSize, PhysicalSectorSize: layout.SectorSize,
		ProtectiveMBR: true, GUID: guid.Derive(img.Seed, "disk").String(),
	}
	at := int64(FirstLBA * layout.SectorSize)
	for _, p := range img.Partitions {
		if p.Size == 0 {
			p.Size = (p.Len + layout.Align - 1) / layout.Align * layout.Align
		}
		switch {
		case p.Size <= 0 || p.Size%layout.Align != 0:
			return nil, 0, fmt.Errorf("partition %s: size %d is no positive multiple of %d", p.Label, p.Size, layout.Align)
		case p.Len > p.Size:
			return nil, 0, fmt.Errorf("partition %s: %d bytes do not fit %d", p.Label, p.Len, p.Size)
		case p.Len != 0 && p.Data == nil:
			return nil, 0, fmt.Errorf("partition %s: no data", p.Label)
		}
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: p.Number, Start: uint64(at / layout.SectorSize), End: uint64((at+p.Size)/layout.SectorSize - 1),
			Type: gpt.Type(p.Type), Name: p.Label, Attributes: p.Attrs, GUID: guid.Derive(img.Seed, p.Label).String(),
		})
		at += p.Size
	}
	// The backup table takes 33 sectors; whole MiB suit every cloud.
	return t, at + layout.Align, nil
}

// noSync is a file without a Sync method: go-diskfs would flush after each of
// its writes, and an image that is not finished needs no flushing.
type noSync struct{ f *os.File }

func (n noSync) Stat() (fs.FileInfo, error)                { return n.f.Stat() }
func (n noSync) Read(p []byte) (int, error)                { return n.f.Read(p) }
func (n noSync) ReadAt(p []byte, off int64) (int, error)   { return n.f.ReadAt(p, off) }
func (n noSync) WriteAt(p []byte, off int64) (int, error)  { return n.f.WriteAt(p, off) }
func (n noSync) Seek(off int64, whence int) (int64, error) { return n.f.Seek(off, whence) }
func (n noSync) Close() error                              { return nil }

var _ backend.WritableFile = noSync{}
