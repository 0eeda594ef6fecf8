// Package erofs writes the read-only root file system: uncompressed EROFS
// with 4 KiB blocks, byte for byte the same for the same tree, time and UUID.
//
// It is a thin layer over github.com/erofs/go-erofs that feeds it a
// tree.Tree file by file, so that neither the file contents nor an open file
// each is held while the image is written. It never compresses and never
// reads anything but the tree. The builder appends the hash tree of package
// verity to what it writes.
package erofs

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"keelson/imagebuild/tree"

	"github.com/erofs/go-erofs"
)

// BlockSize is the file system's block size, and the least page size of the
// machines that mount it.
const BlockSize = 4096

// Where the superblock and the UUID in it are: erofs_fs.h, struct
// erofs_super_block. The library leaves the UUID zero, and it writes no
// checksum over the superblock that would have to follow a change.
const (
	superOffset  = 1024
	compatOffset = superOffset + 8
	uuidOffset   = superOffset + 48
	compatSBCRC  = 1 // EROFS_FEATURE_COMPAT_SB_CHKSUM
)

// Options are what is the same for the whole image.
type Options struct {
	Time time.Time // of every file and of the image; whole seconds count
	UUID [16]byte
}

// Write writes t to f, which must be empty, and returns the size of the file
// system, a multiple of BlockSize. The file ends there.
func Write(f *os.File, t *tree.Tree, o Options) (int64, error) {
	entries, err := t.Entries()
	if err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	if o.Time.Unix() < 0 {
		return 0, fmt.Errorf("erofs: time %v is before 1970", o.Time)
	}
	w := erofs.Create(f, erofs.WithBlockSize(BlockSize), erofs.WithBuildTime(uint64(o.Time.Unix()), 0))
	src := newSource(entries, o.Time)
	if err := w.CopyFrom(src); err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	if err := w.Close(); err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	// The library looks only at a reader's bytes: an opener's own error comes
	// back through it, a wrong size is ours to notice.
	if src.err != nil {
		return 0, fmt.Errorf("erofs: %w", src.err)
	}
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("erofs: %w", err)
	}
	if st.Size()%BlockSize != 0 {
		return 0, fmt.Errorf("erofs: %s: size %d is no multiple of %d", f.Name(), st.Size(), BlockSize)
	}
	return st.Size(), setUUID(f, o.UUID)
}

func setUUID(f *os.File, id [16]byte) error {
	var compat [4]byte
	if _, err := f.ReadAt(compat[:], compatOffset); err != nil {
		return fmt.Errorf("erofs: read superblock: %w", err)
	}
	if binary.LittleEndian.Uint32(compat[:])&compatSBCRC != 0 {
		return fmt.Errorf("erofs: the superblock has a checksum: teach setUUID to renew it")
	}
	if _, err := f.WriteAt(id[:], uuidOffset); err != nil {
		return fmt.Errorf("erofs: write UUID: %w", err)
	}
	return nil
}
