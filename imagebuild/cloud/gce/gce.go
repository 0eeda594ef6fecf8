// Package gce writes a raw disk image as Google Compute Engine imports it: a
// tar in old GNU format, compressed by gzip, with the one sparse file disk.raw
// of whole GiB. Package archive/tar reads such files and cannot write them.
// Equal images give equal bytes.
//
// Formats: GNU tar manual, "Basic Tar Format" and "Storing Sparse Files" (old
// GNU format); Google Cloud, "Requirements for the image file".
package gce

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"keelson/imagebuild/cloud/sparse"
)

const (
	name     = "disk.raw"
	record   = 512
	blocking = 20 * record // a tar is whole records of this size
	block    = 4096
	gib      = 1 << 30

	// Ranges that the header itself and each of its continuations hold.
	inHeader, inMore = 4, 21
	// largest is what eleven octal digits can say.
	largest = 1<<33 - 1
)

// Write writes the size bytes of raw to w.
func Write(ctx context.Context, w io.Writer, raw io.ReaderAt, size int64, modified time.Time) error {
	if size <= 0 || size%record != 0 {
		return fmt.Errorf("gce: size %d of the disk is no positive multiple of %d", size, record)
	}
	whole := (size + gib - 1) / gib * gib
	if whole > largest {
		return fmt.Errorf("gce: a disk of %d GiB is more than a tar header of this format can say", whole/gib)
	}
	extents, err := sparse.Extents(raw, size, block)
	if err != nil {
		return fmt.Errorf("gce: %w", err)
	}
	head := header(extents, whole, modified)
	parts, length := []io.Reader{bytes.NewReader(head)}, int64(len(head))
	for _, e := range extents {
		parts = append(parts, io.NewSectionReader(raw, e.Offset, e.Size))
		length += e.Size
	}
	// Two empty records end it, and the last block is filled up.
	length += 2 * record
	parts = append(parts, bytes.NewReader(make([]byte, 2*record+(blocking-length%blocking)%blocking)))
	if err := compress(ctx, w, io.MultiReader(parts...)); err != nil {
		return fmt.Errorf("gce: %w", err)
	}
	return nil
}

// ranges is the map of a sparse file: what is stored, and an empty range at the
// end where the file ends with a hole.
func ranges(extents []sparse.Extent, size int64) []sparse.Extent {
	if n := len(extents); n > 0 && extents[n-1].Offset+extents[n-1].Size == size {
		return extents
	}
	return append(extents[:len(extents):len(extents)], sparse.Extent{Offset: size})
}

// header is the tar header of the file and its continuations.
func header(extents []sparse.Extent, size int64, modified time.Time) []byte {
	all := ranges(extents, size)
	var stored int64
	for _, e := range all {
		stored += e.Size
	}
	b := make([]byte, record)
	copy(b, name)
	octal(b[100:108], 0o644)
	octal(b[108:116], 0)
	octal(b[116:124], 0)
	octal(b[124:136], stored)
	octal(b[136:148], max(0, modified.Unix()))
	copy(b[148:156], "        ")
	b[156] = 'S'
	copy(b[257:], "ustar  \x00")
	copy(b[265:], "root")
	copy(b[297:], "root")
	octal(b[483:495], size)
	all = fill(b[386:], all, inHeader)
	if len(all) > 0 {
		b[482] = 1
	}
	var sum int64
	for _, c := range b {
		sum += int64(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	for len(all) > 0 {
		more := make([]byte, record)
		if all = fill(more, all, inMore); len(all) > 0 {
			more[504] = 1
		}
		b = append(b, more...)
	}
	return b
}

// fill writes up to n ranges and returns those that are left.
func fill(b []byte, all []sparse.Extent, n int) []sparse.Extent {
	n = min(n, len(all))
	for i, e := range all[:n] {
		octal(b[24*i:24*i+12], e.Offset)
		octal(b[24*i+12:24*i+24], e.Size)
	}
	return all[n:]
}

// octal fills the field with digits and a NUL.
func octal(field []byte, v int64) {
	copy(field, fmt.Sprintf("%0*o\x00", len(field)-1, v))
}
