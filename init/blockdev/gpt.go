package blockdev

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

// Sizes of the format (UEFI 2.10 table 5.5).
const (
	headerSize = 92
	entrySize  = 128
	entryCount = 128
	tableBytes = entrySize * entryCount
	gptVersion = 0x00010000
)

// Sizes of logical sectors that disks have; the kernel's block layer knows no larger ones on pages of 4 KiB.
const (
	minSector = 512
	maxSector = 4096
)

const signature = "EFI PART"

// ErrNoTable says that there is no valid table at this place.
var ErrNoTable = errors.New("no valid GUID partition table")

// GUID is a GUID as it is stored: the first three fields little endian.
type GUID [16]byte

// ParseGUID reads the text form.
func ParseGUID(s string) (GUID, error) {
	var a uint32
	var b, c, d uint16
	var e uint64
	if n, err := fmt.Sscanf(s, "%08x-%04x-%04x-%04x-%012x", &a, &b, &c, &d, &e); n != 5 || err != nil || len(s) != 36 {
		return GUID{}, fmt.Errorf("GUID %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	var g GUID
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint16(g[8:], d)
	for i := range 6 {
		g[10+i] = byte(e >> (40 - 8*i))
	}
	return g, nil
}

func (g GUID) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]),
		binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// Table is a partition table. Entries has all slots of the table, unused ones
// with a zero Type; a partition's number is its index and one.
type Table struct {
	Sector    uint64 // bytes of a logical sector of the disk, which all LBAs count in
	Disk      GUID
	Self      uint64 // LBA of the header it was read from
	Alternate uint64 // LBA of the other header
	FirstLBA  uint64 // usable for partitions
	LastLBA   uint64
	EntryLBA  uint64 // where its entries are
	Entries   []Entry
}

// NewTable is a table without partitions for a disk of that many sectors of sector bytes each. Partitions may begin at 1 MiB.
func NewTable(sectors, sector uint64) *Table {
	return &Table{
		Sector: sector, Disk: NewGUID(), Alternate: sectors - 1, FirstLBA: layout.Align / sector, LastLBA: lastUsable(sectors, sector),
		Entries: make([]Entry, entryCount),
	}
}

// lastUsable is the sector before the backup's entries.
func lastUsable(sectors, sector uint64) uint64 { return sectors - 1 - tableLBAs(sector) - 1 }

// Entry is one partition. Last is its last sector.
type Entry struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64
	Name        string
}

// Used reports whether the slot holds a partition.
func (e Entry) Used() bool { return e.Type != GUID{} }

// Sectors is the partition's length.
func (e Entry) Sectors() uint64 { return e.Last - e.First + 1 }

// tableLBAs is how many sectors the entries take.
func tableLBAs(sector uint64) uint64 { return (tableBytes + sector - 1) / sector }

// ReadTable reads the table of a disk with such sectors whose header is at lba, and checks both its sums.
func ReadTable(r io.ReaderAt, sector, lba uint64) (*Table, error) {
	if sector < minSector || sector > maxSector || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("sectors of %d bytes: want %d to %d", sector, minSector, maxSector)
	}
	head := make([]byte, sector)
	if _, err := r.ReadAt(head, int64(lba*sector)); err != nil {
		return nil, fmt.Errorf("read partition table header: %w", err)
	}
	le := binary.LittleEndian
	size := le.Uint32(head[12:])
	if string(head[:8]) != signature || size < headerSize || uint64(size) > sector {
		return nil, ErrNoTable
	}
	sum := le.Uint32(head[16:])
	le.PutUint32(head[16:], 0)
	if crc32.ChecksumIEEE(head[:size]) != sum || le.Uint64(head[24:]) != lba {
		return nil, ErrNoTable
	}
	t := &Table{
		Sector: sector, Disk: GUID(head[56:72]), Self: lba, Alternate: le.Uint64(head[32:]),
		FirstLBA: le.Uint64(head[40:]), LastLBA: le.Uint64(head[48:]), EntryLBA: le.Uint64(head[72:]),
	}
	if n, es := le.Uint32(head[80:]), le.Uint32(head[84:]); n != entryCount || es != entrySize {
		return nil, fmt.Errorf("partition table with %d entries of %d bytes: want %d of %d", n, es, entryCount, entrySize)
	}
	if t.EntryLBA < 2 || t.EntryLBA > 1<<53 || t.FirstLBA > t.LastLBA || t.LastLBA > 1<<53 {
		return nil, ErrNoTable
	}
	raw := make([]byte, tableBytes)
	if _, err := r.ReadAt(raw, int64(t.EntryLBA*sector)); err != nil {
		return nil, fmt.Errorf("read partition table entries: %w", err)
	}
	if crc32.ChecksumIEEE(raw) != le.Uint32(head[88:]) {
		return nil, ErrNoTable
	}
	t.Entries = make([]Entry, entryCount)
	for i := range t.Entries {
		t.Entries[i] = decodeEntry(raw[i*entrySize:])
		if e := t.Entries[i]; e.Used() && (e.First > e.Last || e.Last > t.LastLBA) {
			return nil, fmt.Errorf("partition %d: sectors %d to %d are not on the disk", i+1, e.First, e.Last)
		}
	}
	return t, nil
}

func decodeEntry(b []byte) Entry {
	le := binary.LittleEndian
	e := Entry{Type: GUID(b[0:16]), ID: GUID(b[16:32]), First: le.Uint64(b[32:]), Last: le.Uint64(b[40:]), Attributes: le.Uint64(b[48:])}
	var units []uint16
	for i := 56; i < entrySize; i += 2 {
		u := le.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	e.Name = string(utf16.Decode(units))
	return e
}

// entryBytes renders the entries.
func (t *Table) entryBytes() []byte {
	var buf bytes.Buffer
	le := binary.LittleEndian
	for _, e := range t.Entries {
		b := make([]byte, entrySize)
		if e.Used() {
			copy(b[0:], e.Type[:])
			copy(b[16:], e.ID[:])
			le.PutUint64(b[32:], e.First)
			le.PutUint64(b[40:], e.Last)
			le.PutUint64(b[48:], e.Attributes)
			for i, u := range utf16.Encode([]rune(e.Name)) {
				if 56+2*i+2 <= entrySize {
					le.PutUint16(b[56+2*i:], u)
				}
			}
		}
		buf.Write(b)
	}
	return buf.Bytes()
}

// headerBytes renders the header for its place self, with the other header at
// alternate and the entries at entryLBA.
func (t *Table) headerBytes(self, alternate, entryLBA uint64) []byte {
	b := make([]byte, t.Sector)
	le := binary.LittleEndian
	copy(b, signature)
	le.PutUint32(b[8:], gptVersion)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], self)
	le.PutUint64(b[32:], alternate)
	le.PutUint64(b[40:], t.FirstLBA)
	le.PutUint64(b[48:], t.LastLBA)
	copy(b[56:], t.Disk[:])
	le.PutUint64(b[72:], entryLBA)
	le.PutUint32(b[80:], entryCount)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(t.entryBytes()))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}
