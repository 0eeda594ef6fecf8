package disk

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Zeros are looked for in blocks of the size that file systems allocate.
const (
	holeBlock = 4096
	copyChunk = 1 << 20
)

// copySparse copies the first size bytes of src to offset at of dst, which
// must be a hole there, and writes no block that is all zero.
func copySparse(dst *os.File, at int64, src io.ReaderAt, size int64) error {
	buf := make([]byte, copyChunk)
	zero := make([]byte, holeBlock)
	for off := int64(0); off < size; off += copyChunk {
		b := buf[:min(copyChunk, size-off)]
		if n, err := src.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
		}
		// Runs of blocks with something in them, each written at once.
		for i := 0; i < len(b); {
			j := i
			for j < len(b) && !isZero(b[j:min(j+holeBlock, len(b))], zero) {
				j = min(j+holeBlock, len(b))
			}
			if j == i {
				i += holeBlock
				continue
			}
			if _, err := dst.WriteAt(b[i:j], at+off+int64(i)); err != nil {
				return err
			}
			i = j
		}
	}
	return nil
}

func isZero(b, zero []byte) bool { return bytes.Equal(b, zero[:len(b)]) }
