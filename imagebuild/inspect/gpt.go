package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"keelson/init/layout"
)

const (
	sector     = layout.SectorSize
	entryCount = 128
	entryLen   = 128
	entriesLen = entryCount * entryLen
	headerLen  = 92
	backupLen  = sector + entriesLen
	bootLen    = 440 // boot code of an MBR
)

// span is a range of bytes.
type span struct{ start, end int64 }

type partition struct {
	label      string
	start, end int64
}

type table struct {
	entries    []byte
	partitions []partition
}

func (t *table) find(label string) (partition, bool) {
	for _, p := range t.partitions {
		if p.label == label {
			return p, true
		}
	}
	return partition{}, false
}

// first is where the first partition begins.
func (t *table) first() int64 {
	first := int64(1 << 62)
	for _, p := range t.partitions {
		first = min(first, p.start)
	}
	return first
}

// readTables checks both tables and the protective MBR; it goes on with the
// backup where the first is broken.
func readTables(f io.ReaderAt, size int64, r *Report) (*table, error) {
	if size < 2*(backupLen+sector) || size%sector != 0 {
		return nil, fmt.Errorf("%d bytes are no disk image", size)
	}
	last := size/sector - 1
	first, errFirst := readTable(f, size, 1, 2, last)
	backup, errBackup := readTable(f, size, last, last-entriesLen/sector, 1)
	if errFirst != nil && errBackup != nil {
		return nil, fmt.Errorf("no partition table: %w; backup: %w", errFirst, errBackup)
	}
	if errFirst != nil {
		r.problem(regionGPT, "%v", errFirst)
		first = backup
	}
	if errBackup != nil {
		r.problem(regionBackup, "%v", errBackup)
	} else if !bytes.Equal(first.entries, backup.entries) {
		r.problem(regionBackup, "its entries are not those of the first table")
	}
	return first, protective(f, size, r)
}

// protective checks the MBR but for its boot code (UEFI 2.10, 5.2.3).
func protective(f io.ReaderAt, size int64, r *Report) error {
	b := make([]byte, sector)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	entry := b[446:462]
	le := binary.LittleEndian
	if entry[4] != 0xee || le.Uint32(entry[8:]) != 1 || int64(le.Uint32(entry[12:])) != size/sector-1 || entry[0]&0x7f != 0 {
		r.problem(regionMBR, "its entry does not protect the whole disk")
	}
	if b[510] != 0x55 || b[511] != 0xaa || len(bytes.Trim(b[462:510], "\x00")) != 0 || len(bytes.Trim(b[bootLen:446], "\x00")) != 0 {
		r.problem(regionMBR, "its signature or its unused entries are not as they should be")
	}
	return nil
}

// readTable reads one table whose header is in sector at.
func readTable(f io.ReaderAt, size, at, entriesAt, other int64) (*table, error) {
	h := make([]byte, sector)
	if _, err := f.ReadAt(h, at*sector); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if string(h[:8]) != "EFI PART" || le.Uint32(h[8:]) != 0x10000 || le.Uint32(h[12:]) != headerLen {
		return nil, errors.New("header has no signature")
	}
	sumOf := bytes.Clone(h[:headerLen])
	clear(sumOf[16:20])
	if crc32.ChecksumIEEE(sumOf) != le.Uint32(h[16:]) {
		return nil, errors.New("checksum of the header is wrong")
	}
	if len(bytes.Trim(h[headerLen:], "\x00")) != 0 {
		return nil, errors.New("there is something behind the header")
	}
	if int64(le.Uint64(h[24:])) != at || int64(le.Uint64(h[32:])) != other || int64(le.Uint64(h[72:])) != entriesAt ||
		le.Uint32(h[80:]) != entryCount || le.Uint32(h[84:]) != entryLen {
		return nil, errors.New("header is about a disk of another size or shape")
	}
	t := &table{entries: make([]byte, entriesLen)}
	if _, err := f.ReadAt(t.entries, entriesAt*sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(t.entries) != le.Uint32(h[88:]) {
		return nil, errors.New("checksum of the entries is wrong")
	}
	for i := 0; i < entriesLen; i += entryLen {
		e := t.entries[i : i+entryLen]
		if len(bytes.Trim(e[:16], "\x00")) == 0 {
			continue
		}
		from, to := le.Uint64(e[32:]), le.Uint64(e[40:])
		if from > to || to >= uint64(size/sector) {
			return nil, fmt.Errorf("entry %d reaches from sector %d to %d", i/entryLen+1, from, to)
		}
		t.partitions = append(t.partitions, partition{label(e[56:]), int64(from) * sector, int64(to+1) * sector})
	}
	return t, nil
}

func label(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b) && (b[i] != 0 || b[i+1] != 0); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	return string(utf16.Decode(units))
}

// firstNonZero is the offset of the first byte in a range that is not zero, -1 without any.
func firstNonZero(f io.ReaderAt, in span) (int64, error) {
	buf := make([]byte, 1<<20)
	for at := in.start; at < in.end; {
		b := buf[:min(int64(len(buf)), in.end-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, err
		}
		if rest := bytes.TrimLeft(b, "\x00"); len(rest) > 0 {
			return at + int64(len(b)-len(rest)), nil
		}
		at += int64(len(b))
	}
	return -1, nil
}
