// Package zst compresses an image for transport with Zstandard. Equal input
// gives equal bytes. The builder writes .raw.zst with it.
//
// Format: RFC 8878.
package zst

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// window is wide for what programs of one language share; every reader
	// takes up to 128 MiB without being asked to.
	window = 32 << 20
	// chunk is read at a time.
	chunk = 1 << 20
)

// Write writes what r holds to w.
func Write(w io.Writer, r io.Reader) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return fmt.Errorf("zst: %w", err)
	}
	// Neither side may hand the copying to the other, which would take small buffers.
	if _, err := io.CopyBuffer(struct{ io.Writer }{z}, struct{ io.Reader }{r}, make([]byte, chunk)); err != nil {
		z.Close()
		return fmt.Errorf("zst: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("zst: %w", err)
	}
	return nil
}
