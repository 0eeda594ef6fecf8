package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"keelson/init/layout"
)

// Kind is what a partition holds.
type Kind int

// The kinds.
const (
	Empty   Kind = iota // no file system and no data that we know: may be formatted
	Ours                // ext4 with our label
	Fresh               // ours, but never mounted: mke2fs may not have finished
	Foreign             // anything else
)

// Found is the result of Look.
type Found struct {
	Kind  Kind
	What  string // of foreign data: "an xfs file system"
	Bytes uint64 // size of the file system, of ours
}

// Offsets in the superblock, which begins at byte 1024.
const (
	superOffset = 1024
	superMagic  = 0x38
	magic       = 0xef53
)

// blank is what mke2fs wipes before it writes anything else and writes last:
// the boot block and the superblock.
const blank = 4096

// signatures of what else could be on a partition, by offset. Source: libblkid's
// superblock probes (util-linux, libblkid/src/superblocks).
func signatures() []signature {
	return []signature{
		{0, "XFSB", "an xfs file system"},
		{0x10040, "_BHRfS_M", "a btrfs file system"},
		{0, "LUKS\xba\xbe", "an encrypted volume (LUKS)"},
		{4086, "SWAPSPACE2", "swap space"},
		{4086, "SWAP-SPACE", "swap space"},
		{0x8001, "CD001", "an ISO 9660 file system"},
		{0, "hsqs", "a squashfs file system"},
		{1024, "\xe2\xe1\xf5\xe0", "an EROFS file system"},
		{1024, "\x10\x20\xf5\xf2", "an f2fs file system"},
		{512, "LABELONE", "an LVM volume"},
		{4096, "\xfc\x4e\x2b\xa9", "a member of a software RAID"},
		{0, "\xfc\x4e\x2b\xa9", "a member of a software RAID"},
		{512, "EFI PART", "a partition table"},
		{3, "NTFS    ", "an NTFS file system"},
		{3, "EXFAT   ", "an exFAT file system"},
		{54, "FAT", "a FAT file system"},
		{82, "FAT32", "a FAT file system"},
		{0x20000 + 8, "\x0c\xb1\xba\x00", "a ZFS pool"},
		{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"},
	}
}

type signature struct {
	offset int
	magic  string
	what   string
}

// Cleared is how much of a beginning must be zero for nothing to be known there.
const Cleared = lookSize

// lookSize covers every signature.
const lookSize = 256 << 10

// Look reads the beginning of a partition and judges it.
func Look(r io.ReaderAt) (Found, error) {
	b := make([]byte, lookSize)
	if n, err := r.ReadAt(b, 0); err != nil && (err != io.EOF || n < blank) {
		return Found{}, fmt.Errorf("read the beginning: %w", err)
	}
	sb := b[superOffset : superOffset+1024]
	le := binary.LittleEndian
	if le.Uint16(sb[superMagic:]) == magic {
		return lookSuper(sb), nil
	}
	for _, s := range signatures() {
		if bytes.HasPrefix(b[s.offset:], []byte(s.magic)) {
			return Found{Kind: Foreign, What: s.what}, nil
		}
	}
	if len(bytes.TrimLeft(b[:blank], "\x00")) > 0 {
		return Found{Kind: Foreign, What: "data of an unknown kind"}, nil
	}
	return Found{Kind: Empty}, nil
}

func lookSuper(sb []byte) Found {
	le := binary.LittleEndian
	label, _, _ := bytes.Cut(sb[0x78:0x88], []byte{0})
	if string(label) != layout.StateFSLabel {
		return Found{Kind: Foreign, What: fmt.Sprintf("an ext file system with the label %q", label)}
	}
	blocks := uint64(le.Uint32(sb[4:]))
	if le.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= uint64(le.Uint32(sb[0x150:])) << 32
	}
	f := Found{Kind: Ours, Bytes: blocks << (10 + le.Uint32(sb[0x18:])%16)}
	// s_mtime and s_mnt_count: what was never mounted holds nothing.
	if le.Uint32(sb[0x2c:]) == 0 && le.Uint16(sb[0x34:]) == 0 && sb[0x274] == 0 {
		f.Kind = Fresh
	}
	return f
}

// Blanker is a disk that is being partitioned.
type Blanker interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Prepare makes the place of a new partition, at start, recognisably empty:
// before the partition is in the table, what lies there belongs to nobody. An
// ext4 with our own label that fits is kept, though: the image was written anew
// over a machine that has state.
func Prepare(d Blanker, start, size int64) error {
	found, err := Look(io.NewSectionReader(d, start, size))
	if err != nil {
		return err
	}
	if found.Kind == Ours && found.Bytes <= uint64(size) || found.Kind == Empty {
		return nil
	}
	if _, err := d.WriteAt(make([]byte, lookSize), start); err != nil {
		return fmt.Errorf("clear the beginning: %w", err)
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush the beginning: %w", err)
	}
	return nil
}
