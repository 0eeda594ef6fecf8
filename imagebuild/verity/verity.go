// Package verity appends a dm-verity hash tree to a file system image: the
// on-disk format 1 of `veritysetup format`, superblock included, with sha256
// and blocks of 4096 bytes.
//
// What it writes is byte for byte what veritysetup writes for the same salt
// and UUID. It hashes on all cores, holds the tree (1/128 of the data) and
// never the data, and knows nothing of the file system. Its result becomes
// the kernel parameter that ties a boot to one root.
//
// Format: cryptsetup lib/verity/verity.c (struct verity_sb) and
// verity_hash.c; kernel Documentation/admin-guide/device-mapper/verity.rst.
package verity

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"keelson/imagebuild/guid"
	"keelson/init/layout"
)

const (
	blockSize     = layout.BlockSize
	digestSize    = sha256.Size
	perBlock      = blockSize / digestSize
	superblockLen = 512
)

// File is what a tree is appended to: an *os.File, for one.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Options make two trees over the same data differ. Both are derived from
// the content by Derive when a build is to be reproducible.
type Options struct {
	Salt [layout.VeritySaltLen]byte
	UUID [16]byte
}

// Tree is what Append wrote.
type Tree struct {
	layout.Verity
	Size int64 // of data, superblock and tree together
}

// Derive takes salt and UUID from a seed that stands for the content, such as
// a hash over all inputs of the image.
func Derive(seed []byte) Options {
	var o Options
	o.Salt = sha256.Sum256(append([]byte("keelson verity salt\x00"), seed...))
	o.UUID = guid.Derive(seed, "verity")
	return o
}

// Append hashes the first size bytes of f and writes superblock and tree
// behind them. size must be a multiple of 4096.
func Append(f File, size int64, o Options) (Tree, error) {
	if size <= 0 || size%blockSize != 0 {
		return Tree{}, fmt.Errorf("verity: data size %d is no positive multiple of %d", size, blockSize)
	}
	levels, err := hashLevels(f, size, o.Salt[:])
	if err != nil {
		return Tree{}, fmt.Errorf("verity: %w", err)
	}
	blocks := uint64(size / blockSize)
	sb := make([]byte, blockSize)
	copy(sb, superblock(blocks, o))
	at := size
	// The superblock takes a block of its own; the highest level is next.
	out := append([][]byte{sb}, reversed(levels[:len(levels)-1])...)
	for _, b := range out {
		if _, err := f.WriteAt(b, at); err != nil {
			return Tree{}, fmt.Errorf("verity: write tree: %w", err)
		}
		at += int64(len(b))
	}
	return Tree{
		Verity: layout.Verity{RootHash: levels[len(levels)-1], DataBlocks: blocks, Salt: o.Salt[:]},
		Size:   at,
	}, nil
}

// superblock renders struct verity_sb.
func superblock(blocks uint64, o Options) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, superblockLen)
	b = append(b, "verity\x00\x00"...)
	b = le.AppendUint32(b, 1) // version of the superblock
	b = le.AppendUint32(b, 1) // hash type: salt before data, digests aligned
	b = append(b, o.UUID[:]...)
	b = append(b, layout.VerityHash...)
	b = append(b, make([]byte, 32-len(layout.VerityHash))...)
	b = le.AppendUint32(b, blockSize) // data
	b = le.AppendUint32(b, blockSize) // hash
	b = le.AppendUint64(b, blocks)
	b = le.AppendUint16(b, uint16(len(o.Salt)))
	b = append(b, make([]byte, 6)...)
	b = append(b, o.Salt[:]...)
	return append(b, make([]byte, superblockLen-len(b))...)
}

// Read finds the tree behind size bytes of data in r and returns what its
// superblock says; the root hash is not stored and stays empty.
func Read(r io.ReaderAt, size int64) (layout.Verity, [16]byte, error) {
	var id [16]byte
	b := make([]byte, superblockLen)
	if _, err := r.ReadAt(b, size); err != nil {
		return layout.Verity{}, id, fmt.Errorf("verity: read superblock at %d: %w", size, err)
	}
	v, id, err := parse(b)
	if err != nil {
		return layout.Verity{}, id, fmt.Errorf("verity: superblock at %d: %w", size, err)
	}
	if v.DataBlocks != uint64(size)/blockSize {
		return layout.Verity{}, id, fmt.Errorf("verity: superblock at %d: %d data blocks", size, v.DataBlocks)
	}
	return v, id, nil
}

func parse(b []byte) (v layout.Verity, id [16]byte, err error) {
	le := binary.LittleEndian
	switch {
	case len(b) < superblockLen || string(b[:8]) != "verity\x00\x00":
		return v, id, errors.New("no signature of veritysetup")
	case le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1:
		return v, id, fmt.Errorf("version %d, hash type %d: want 1 and 1", le.Uint32(b[8:]), le.Uint32(b[12:]))
	case le.Uint32(b[64:]) != blockSize || le.Uint32(b[68:]) != blockSize:
		return v, id, fmt.Errorf("block sizes %d and %d: want %d", le.Uint32(b[64:]), le.Uint32(b[68:]), blockSize)
	case string(b[32:32+len(layout.VerityHash)+1]) != layout.VerityHash+"\x00":
		return v, id, errors.New("the hash is not sha256")
	case le.Uint16(b[80:]) != layout.VeritySaltLen:
		return v, id, fmt.Errorf("salt of %d bytes: want %d", le.Uint16(b[80:]), layout.VeritySaltLen)
	}
	copy(id[:], b[16:])
	return layout.Verity{DataBlocks: le.Uint64(b[72:]), Salt: b[88 : 88+layout.VeritySaltLen]}, id, nil
}
