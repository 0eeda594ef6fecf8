package devmapper

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"keelson/init/layout"
)

// VerityTarget is the table of a root: data from the start of the partition,
// the tree behind it. The tree's first block is veritysetup's superblock, which
// the kernel does not read; the levels begin one block later.
//
// Damage is answered with an I/O error (the mode without options): the block is
// not delivered, so it is never executed, and PID 1, which runs from memory,
// lives to say which partition is damaged. restart_on_corruption and
// panic_on_corruption would take that message away or boot in a circle.
func VerityTarget(device string, v layout.Verity) Target {
	return Target{
		Type:    "verity",
		Sectors: v.DataBlocks * (layout.BlockSize / layout.SectorSize),
		Params: fmt.Sprintf("1 %s %s %d %d %d %d %s %x %x", device, device, layout.BlockSize, layout.BlockSize,
			v.DataBlocks, v.DataBlocks+1, layout.VerityHash, v.RootHash, v.Salt),
	}
}

// LinearTarget is size bytes of a device from start on, as a device of its own. Both are whole sectors.
func LinearTarget(device string, start, size uint64) Target {
	return Target{Type: "linear", Sectors: size / layout.SectorSize, Params: fmt.Sprintf("%s %d", device, start/layout.SectorSize)}
}

// CheckSuperblock tells early, and in words, whether a partition carries the
// root that the command line names (veritysetup's format 1: cryptsetup,
// lib/verity/verity.c, struct verity_sb). Security does not rest on it: the
// kernel checks every block against the root hash.
func CheckSuperblock(r io.ReaderAt, v layout.Verity) error {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, int64(v.HashOffset())); err != nil {
		return fmt.Errorf("read verity superblock: %w", err)
	}
	le := binary.LittleEndian
	if string(b[:8]) != "verity\x00\x00" {
		return fmt.Errorf("no verity tree at byte %d: the partition is damaged or not the one of this kernel", v.HashOffset())
	}
	algorithm, _, _ := bytes.Cut(b[32:64], []byte{0})
	salt := b[88 : 88+min(int(le.Uint16(b[80:])), 256)]
	switch {
	case string(algorithm) != layout.VerityHash, le.Uint32(b[64:]) != layout.BlockSize, le.Uint32(b[68:]) != layout.BlockSize:
		return fmt.Errorf("verity tree of another format (%s, blocks of %d and %d)", algorithm, le.Uint32(b[64:]), le.Uint32(b[68:]))
	case le.Uint64(b[72:]) != v.DataBlocks, !bytes.Equal(salt, v.Salt):
		return fmt.Errorf("it holds another image than the one this kernel was built with")
	}
	return nil
}

// Corruption reads a line of the kernel log and returns what dm-verity found
// (drivers/md/dm-verity-target.c, verity_handle_err: "device-mapper: verity:
// 254:0: data block 17 is corrupted").
func Corruption(line string) (device, what string, ok bool) {
	_, rest, found := strings.Cut(line, "device-mapper: verity: ")
	if !found {
		_, rest, found = strings.Cut(line, "device-mapper: verity-fec: ")
	}
	device, what, cut := strings.Cut(strings.TrimRight(rest, "\n"), ": ")
	if !found || !cut || !strings.HasSuffix(what, "is corrupted") {
		return "", "", false
	}
	return device, what, true
}
