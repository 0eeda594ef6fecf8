// Package vmdk writes a raw disk image as VMware's streamOptimized VMDK, the
// kind that goes into an OVA. It is written from front to back; grains of
// zeros are not stored, and equal images give equal bytes. It reads no VMDK.
//
// Format: VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse
// Extents".
package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"keelson/imagebuild/cloud/inorder"
	"keelson/imagebuild/cloud/sparse"

	"github.com/klauspost/compress/zlib"
)

const (
	sector      = 512
	magic       = 0x564d444b // "KDMV"
	version     = 3
	flags       = 1 | 1<<16 | 1<<17 // line ends can be tested, compressed grains, markers
	grain       = 64 << 10
	perTable    = 512 // grains that a grain table describes
	descriptor  = 1   // sector in which it begins
	descLen     = 20  // sectors
	overhead    = 128 // sectors before the first grain
	deflate     = 1
	atEnd       = 1<<64 - 1 // the directory is where the footer says
	level       = 6
	markerEnd   = 0
	markerTable = 1
	markerDir   = 2
	markerFoot  = 3
)

// Options of a VMDK.
type Options struct {
	Name string // of the file, for its own description
	ID   uint32 // identifies the content
}

// Write writes the size bytes of raw to w.
func Write(ctx context.Context, w io.Writer, raw io.ReaderAt, size int64, options Options) error {
	if size <= 0 || size%sector != 0 {
		return fmt.Errorf("vmdk: size %d of the disk is no positive multiple of %d", size, sector)
	}
	f := file{w: w, tables: make([]uint32, (size+grain*perTable-1)/(grain*perTable)), pending: make([]uint32, perTable)}
	text := describe(size, options)
	if len(text) > descLen*sector {
		return fmt.Errorf("vmdk: the name %q is too long", options.Name)
	}
	begin := make([]byte, overhead*sector)
	copy(begin, header(size, atEnd))
	copy(begin[descriptor*sector:], text)
	if err := f.write(begin); err != nil {
		return fmt.Errorf("vmdk: %w", err)
	}
	if err := sparse.Compress(ctx, raw, size, grain, compressor, f.put); err != nil {
		return fmt.Errorf("vmdk: %w", err)
	}
	if err := f.finish(size); err != nil {
		return fmt.Errorf("vmdk: %w", err)
	}
	return nil
}

func compressor() (func([]byte) ([]byte, error), error) {
	z, err := zlib.NewWriterLevel(io.Discard, level)
	if err != nil {
		return nil, err
	}
	return inorder.Pack(z, z.Close), nil
}

// file is what has been written of one.
type file struct {
	w       io.Writer
	at      uint32   // sector of the next thing
	tables  []uint32 // sector of each grain table; 0: no grain of it has anything
	pending []uint32 // of the grain table that is not written yet
	table   int      // its number
	used    bool     // it has something
}

// write pads to whole sectors.
func (f *file) write(b []byte) error {
	if rest := len(b) % sector; rest != 0 {
		b = append(b, make([]byte, sector-rest)...)
	}
	if _, err := f.w.Write(b); err != nil {
		return err
	}
	f.at += uint32(len(b) / sector)
	return nil
}

// put writes a grain behind its marker: the sector that it is of, and its length.
func (f *file) put(b sparse.Block) error {
	if table := int(b.Index / perTable); table != f.table {
		if err := f.flush(); err != nil {
			return err
		}
		f.table = table
	}
	f.pending[b.Index%perTable], f.used = f.at, true
	out := make([]byte, 12, 12+len(b.Data)+sector)
	binary.LittleEndian.PutUint64(out, uint64(b.Index)*grain/sector)
	binary.LittleEndian.PutUint32(out[8:], uint32(len(b.Data)))
	return f.write(append(out, b.Data...))
}

// flush writes the grain table, if it has anything.
func (f *file) flush() error {
	if !f.used {
		return nil
	}
	if err := f.marker(markerTable, perTable*4/sector); err != nil {
		return err
	}
	f.tables[f.table] = f.at
	if err := f.write(words(f.pending)); err != nil {
		return err
	}
	clear(f.pending)
	f.used = false
	return nil
}

func (f *file) finish(size int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	directory := words(f.tables)
	if err := f.marker(markerDir, (len(directory)+sector-1)/sector); err != nil {
		return err
	}
	at := f.at
	if err := f.write(directory); err != nil {
		return err
	}
	if err := f.marker(markerFoot, 1); err != nil {
		return err
	}
	if err := f.write(header(size, uint64(at))); err != nil {
		return err
	}
	return f.marker(markerEnd, 0)
}

// marker says what the following sectors are.
func (f *file) marker(kind uint32, sectors int) error {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return f.write(b)
}

func words(in []uint32) []byte {
	out := make([]byte, 4*len(in))
	for i, v := range in {
		binary.LittleEndian.PutUint32(out[4*i:], v)
	}
	return out
}

// header is SparseExtentHeader, at the beginning and again as the footer.
func header(size int64, directory uint64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], version)
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(size/sector))
	le.PutUint64(b[20:], grain/sector)
	le.PutUint64(b[28:], descriptor)
	le.PutUint64(b[36:], descLen)
	le.PutUint32(b[44:], perTable)
	le.PutUint64(b[56:], directory)
	le.PutUint64(b[64:], overhead)
	copy(b[73:], "\n \r\n")
	le.PutUint16(b[77:], deflate)
	return b
}

// describe renders the text that names the extent ("The Disk Descriptor File").
func describe(size int64, options Options) string {
	const heads, sectors = 255, 63
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "%s"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "10"
`, options.ID, size/sector, options.Name, size/sector/heads/sectors, heads, sectors)
}
