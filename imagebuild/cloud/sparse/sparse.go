// Package sparse reads a raw disk image and leaves out what is all zero, which
// is most of one. Whether the file has holes there does not matter: what comes
// out depends on the content alone. The writers of image formats read with it;
// it never writes.
package sparse

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"keelson/imagebuild/cloud/inorder"
)

// Block is one block of an image that has something in it.
type Block struct {
	Index int64  // its number in the image
	Data  []byte // always a whole block; zeros behind the image's end
}

// Compress gives every block of size bytes that is not all zero to one of the
// workers, and emit gets what became of them in the order of the image.
func Compress(ctx context.Context, r io.ReaderAt, total int64, size int, worker func() (func([]byte) ([]byte, error), error), emit func(Block) error) error {
	zero := make([]byte, size)
	index := int64(-1)
	next := func() (Block, bool, error) {
		b := Block{Data: make([]byte, size)}
		for {
			index++
			off := index * int64(size)
			if off >= total {
				return Block{}, false, nil
			}
			if err := read(r, b.Data[:min(int64(size), total-off)], off); err != nil {
				return Block{}, false, err
			}
			if !bytes.Equal(b.Data, zero) {
				b.Index = index
				return b, true, nil
			}
		}
	}
	return inorder.Run(ctx, next, func() (func(Block) (Block, error), error) {
		work, err := worker()
		return func(b Block) (Block, error) {
			data, err := work(b.Data)
			return Block{b.Index, data}, err
		}, err
	}, emit)
}

// Extent is a range of an image.
type Extent struct{ Offset, Size int64 }

// Extents are the ranges with something in them, in blocks of size bytes, in
// order; neighbours are joined. The last one may end with the image inside a
// block.
func Extents(r io.ReaderAt, total int64, size int) ([]Extent, error) {
	const many = 64
	buf, zero := make([]byte, many*size), make([]byte, size)
	var out []Extent
	for off := int64(0); off < total; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), total-off)]
		if err := read(r, b, off); err != nil {
			return nil, err
		}
		for i := 0; i < len(b); i += size {
			piece := b[i:min(i+size, len(b))]
			if bytes.Equal(piece, zero[:len(piece)]) {
				continue
			}
			at := off + int64(i)
			if n := len(out); n > 0 && out[n-1].Offset+out[n-1].Size == at {
				out[n-1].Size += int64(len(piece))
			} else {
				out = append(out, Extent{at, int64(len(piece))})
			}
		}
	}
	return out, nil
}

func read(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("read %d bytes of the image at %d: %w", len(b), off, err)
	}
	return nil
}
