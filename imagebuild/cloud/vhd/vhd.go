// Package vhd writes a raw disk image as a fixed VHD: the image itself and a
// footer behind it. Azure takes nothing else, and only in whole MiB. What is
// all zero stays a hole of the file. It reads no VHD.
//
// Format: Microsoft, Virtual Hard Disk Image Format Specification (2006).
package vhd

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"keelson/imagebuild/cloud/sparse"
)

const (
	footerLen = 512
	mib       = 1 << 20
	block     = 4096

	features    = 2 // reserved, always set
	version     = 0x00010000
	noOffset    = 1<<64 - 1 // a fixed disk has no further header
	fixed       = 2
	application = "win " // the one that every reader takes the size from, not the geometry
	hostOS      = "Wi2k"
)

// Options of a VHD.
type Options struct {
	Time time.Time
	UUID [16]byte
}

// Write writes the size bytes of raw to w, which must be an empty file, and
// returns the file's size.
func Write(w io.WriterAt, raw io.ReaderAt, size int64, options Options) (int64, error) {
	if size <= 0 {
		return 0, fmt.Errorf("vhd: a disk of %d bytes", size)
	}
	extents, err := sparse.Extents(raw, size, block)
	if err != nil {
		return 0, fmt.Errorf("vhd: %w", err)
	}
	buf := make([]byte, mib)
	for _, e := range extents {
		// Neither side may hand the copying to the other, which would take small buffers.
		from, to := struct{ io.Reader }{io.NewSectionReader(raw, e.Offset, e.Size)}, struct{ io.Writer }{io.NewOffsetWriter(w, e.Offset)}
		if _, err := io.CopyBuffer(to, from, buf); err != nil {
			return 0, fmt.Errorf("vhd: %w", err)
		}
	}
	whole := (size + mib - 1) / mib * mib
	if _, err := w.WriteAt(footer(whole, options), whole); err != nil {
		return 0, fmt.Errorf("vhd: %w", err)
	}
	return whole + footerLen, nil
}

// footer describes a disk of size bytes ("Hard Disk Footer Format").
func footer(size int64, options Options) []byte {
	b := make([]byte, footerLen)
	be := binary.BigEndian
	copy(b, "conectix")
	be.PutUint32(b[8:], features)
	be.PutUint32(b[12:], version)
	be.PutUint64(b[16:], noOffset)
	be.PutUint32(b[24:], uint32(max(0, options.Time.Unix()-epoch())))
	copy(b[28:], application)
	be.PutUint32(b[32:], 0x00060001)
	copy(b[36:], hostOS)
	be.PutUint64(b[40:], uint64(size))
	be.PutUint64(b[48:], uint64(size))
	cylinders, heads, sectors := geometry(size / 512)
	be.PutUint16(b[56:], uint16(cylinders))
	b[58], b[59] = byte(heads), byte(sectors)
	be.PutUint32(b[60:], fixed)
	copy(b[68:84], options.UUID[:])
	var sum uint32
	for _, c := range b {
		sum += uint32(c)
	}
	be.PutUint32(b[64:], ^sum)
	return b
}

// epoch is what times count from, in Unix seconds.
func epoch() int64 { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() }

// geometry is the one that the specification's appendix computes.
func geometry(total int64) (cylinders, heads, sectors int64) {
	total = min(total, 65535*16*255)
	if total >= 65535*16*63 {
		sectors, heads = 255, 16
		return total / sectors / heads, heads, sectors
	}
	sectors = 17
	tracks := total / sectors
	heads = max(4, (tracks+1023)/1024)
	if tracks >= heads*1024 || heads > 16 {
		sectors, heads = 31, 16
		tracks = total / sectors
	}
	if tracks >= heads*1024 {
		sectors, heads = 63, 16
		tracks = total / sectors
	}
	return tracks / heads, heads, sectors
}
