package verity

import (
	"crypto/sha256"
	"io"
	"runtime"
	"slices"
	"sync"
)

// span is what one worker reads at a time: enough to make the disk stream,
// and a multiple of what fills one hash block.
const span = 2 * perBlock * blockSize

// hashLevels returns the tree level by level, each padded to whole blocks,
// and as its last element the root hash. Where one data block is all there
// is, its hash is the root.
func hashLevels(r io.ReaderAt, size int64, salt []byte) ([][]byte, error) {
	level := make([]byte, padded(size/blockSize*digestSize))
	if err := hashData(level, r, size, salt); err != nil {
		return nil, err
	}
	var levels [][]byte
	for n := size / blockSize; ; {
		if n == 1 {
			return append(levels, level[:digestSize]), nil
		}
		levels = append(levels, level)
		n = int64(len(level) / blockSize)
		up := make([]byte, padded(n*digestSize))
		hashBlocks(up, level, salt)
		level = up
	}
}

// hashData hashes the data into digests, span by span on every core. Each
// span has its own place in digests, so the order of work leaves no trace.
func hashData(digests []byte, r io.ReaderAt, size int64, salt []byte) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		fail  error
		spans = make(chan int64)
		quit  = make(chan struct{})
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, min(span, size))
			for off := range spans {
				b := buf[:min(span, size-off)]
				if n, err := r.ReadAt(b, off); n < len(b) {
					once.Do(func() { fail = err; close(quit) })
					return
				}
				hashBlocks(digests[off/blockSize*digestSize:], b, salt)
			}
		})
	}
feed:
	for off := int64(0); off < size; off += span {
		select {
		case spans <- off:
		case <-quit:
			break feed
		}
	}
	close(spans)
	wg.Wait()
	return fail
}

// hashBlocks puts the digest of each block of data, salt first, at its place
// in out.
func hashBlocks(out, data, salt []byte) {
	h := sha256.New()
	for i := 0; i < len(data)/blockSize; i++ {
		h.Reset()
		h.Write(salt)
		h.Write(data[i*blockSize : (i+1)*blockSize])
		h.Sum(out[i*digestSize : i*digestSize])
	}
}

func padded(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

func reversed(in [][]byte) [][]byte {
	out := slices.Clone(in)
	slices.Reverse(out)
	return out
}
