package gce

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"

	"keelson/imagebuild/cloud/inorder"

	"github.com/klauspost/compress/flate"
)

// piece is what is compressed at a time. Pieces know nothing of each other,
// so that they can be compressed side by side; together they are one deflate
// stream, since each but the last ends with a flush.
const (
	piece = 512 << 10
	level = 6
)

// compress writes one gzip member (RFC 1952), without name and time.
func compress(ctx context.Context, w io.Writer, r io.Reader) error {
	if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}); err != nil {
		return err
	}
	sum, length := uint32(0), uint32(0)
	next := func() ([]byte, bool, error) {
		b := make([]byte, piece)
		n, err := io.ReadFull(r, b)
		if err == io.EOF {
			return nil, false, nil
		}
		if err == io.ErrUnexpectedEOF {
			err = nil
		}
		sum, length = crc32.Update(sum, crc32.IEEETable, b[:n]), length+uint32(n)
		return b[:n], err == nil, err
	}
	worker := func() (func([]byte) ([]byte, error), error) {
		z, err := flate.NewWriter(io.Discard, level)
		if err != nil {
			return nil, err
		}
		return inorder.Pack(z, z.Flush), nil
	}
	emit := func(b []byte) error { _, err := w.Write(b); return err }
	if err := inorder.Run(ctx, next, worker, emit); err != nil {
		return err
	}
	// An empty last block of fixed codes (RFC 1951, 3.2.6), then sum and length.
	tail := binary.LittleEndian.AppendUint32([]byte{0x03, 0x00}, sum)
	_, err := w.Write(binary.LittleEndian.AppendUint32(tail, length))
	return err
}
