package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/layout"
)

// Kind is what a disk holds.
type Kind int

// The kinds.
const (
	Empty      Kind = iota // nothing that is known
	Unfinished             // an installation that was cut off
	Installed              // the finished installation by this very user-data
	Foreign                // anything else, which is lost by installing
)

// Content is the result of Look.
type Content struct {
	Kind Kind
	What string // "a partition table (EFI, Windows)"
}

// mbrSize is what of a disk's first sector is the MBR.
const mbrSize = 512

// Look judges a disk of size bytes in such sectors. id is the GUID that a finished installation would have.
func Look(r io.ReaderAt, size, sector int64, id blockdev.GUID) (Content, error) {
	mbr := make([]byte, mbrSize)
	if _, err := r.ReadAt(mbr, 0); err != nil {
		return Content{}, fmt.Errorf("read the first sector: %w", err)
	}
	begun := bytes.Equal(mbr[:len(stub())], stub())
	first, err := readTable(r, sector, 1)
	if err != nil {
		return Content{}, err
	}
	last, err := readTable(r, sector, size/sector-1)
	if err != nil {
		return Content{}, err
	}
	table := first
	if table == nil && begun {
		table = last // the first is written behind it
	}
	if table != nil && isOurs(table) {
		return lookOurs(r, table, begun, id)
	}
	if table != nil {
		return Content{Foreign, "a partition table" + names(table)}, nil
	}
	// The mark is no data of anybody's.
	masked := io.ReaderAt(r)
	if begun {
		masked = withoutFirst{r}
	}
	what, err := signature(masked, size)
	if err != nil {
		return Content{}, err
	}
	switch {
	case last != nil && (what == "" || what == backupTable):
		return Content{Foreign, backupTable + names(last)}, nil
	case what != "":
		return Content{Foreign, what}, nil
	case begun:
		return Content{Kind: Unfinished}, nil
	}
	return Content{Kind: Empty}, nil
}

// lookOurs tells a machine's disk from one that is not finished: a state that was mounted once is somebody's.
func lookOurs(r io.ReaderAt, t *blockdev.Table, begun bool, id blockdev.GUID) (Content, error) {
	state, sector := t.Entries[layout.NumberState-1], t.Sector
	found := ext4.Found{Kind: ext4.Empty}
	if state.Used() {
		var err error
		if found, err = ext4.Look(io.NewSectionReader(r, int64(state.First*sector), int64(state.Sectors()*sector))); err != nil {
			return Content{}, fmt.Errorf("%s: %w", layout.LabelState, err)
		}
	}
	boot := make([]byte, sector)
	if _, err := r.ReadAt(boot, int64(t.Entries[layout.NumberESP-1].First*sector)); err != nil {
		return Content{}, fmt.Errorf("%s: %w", layout.LabelESP, err)
	}
	switch {
	case found.Kind != ext4.Ours && (begun || isZero(boot)):
		return Content{Kind: Unfinished}, nil
	case t.Disk == id && !begun:
		return Content{Kind: Installed}, nil
	case found.Kind == ext4.Ours:
		return Content{Foreign, "a Keelson system and its state"}, nil
	}
	return Content{Foreign, "a Keelson system"}, nil
}

func isOurs(t *blockdev.Table) bool {
	return t.Entries[layout.NumberESP-1].Name == layout.LabelESP && t.Entries[layout.NumberRootA-1].Name == layout.LabelRootA
}

// readTable is nil where there is none; one that cannot be understood is still no data of ours.
func readTable(r io.ReaderAt, sector, lba int64) (*blockdev.Table, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, lba*sector); err != nil {
		return nil, fmt.Errorf("read sector %d: %w", lba, err)
	}
	t, err := blockdev.ReadTable(r, uint64(sector), uint64(lba))
	if err == nil {
		return t, nil
	}
	if errors.Is(err, blockdev.ErrNoTable) || string(b[:8]) == "EFI PART" {
		return nil, nil // signature tells of it where it is the first
	}
	return nil, err
}

// names of the partitions, as many as a line has room for.
func names(t *blockdev.Table) string {
	var out []string
	for i, e := range t.Entries {
		if !e.Used() {
			continue
		}
		name := clean([]byte(e.Name))
		if name == "" {
			name = fmt.Sprint(i + 1)
		}
		if len(out) == 6 {
			out = append(out, "...")
			break
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return " without partitions"
	}
	return " (" + strings.Join(out, ", ") + ")"
}

const backupTable = "the backup of a partition table"

// tails are signatures near the end of a disk. Source: libblkid's probes (util-linux, libblkid/src).
func tails() []struct {
	back  int64 // from the end
	magic string
	what  string
} {
	return []struct {
		back  int64
		magic string
		what  string
	}{
		{512, "EFI PART", backupTable},
		{8 << 10, "\xfc\x4e\x2b\xa9", "a member of a software RAID"},
		{1024, "Intel Raid ISM Cfg Sig. ", "a member of a firmware RAID"},
		{512, "\xde\x11\xde\x11", "a member of a firmware RAID"},
		{512<<10 - 128<<10 - 8, "\x0c\xb1\xba\x00", "a ZFS pool"},
		{256<<10 - 128<<10 - 8, "\x0c\xb1\xba\x00", "a ZFS pool"},
	}
}

// signature names what is known at the beginning and at the end of a disk.
func signature(r io.ReaderAt, size int64) (string, error) {
	found, err := ext4.Look(r)
	if err != nil {
		return "", err
	}
	if found.Kind != ext4.Empty {
		mbr := make([]byte, mbrSize)
		if _, err := r.ReadAt(mbr, 0); err != nil {
			return "", err
		}
		if what := dosPartitions(mbr); what != "" {
			return what, nil
		}
		if found.What == "" {
			found.What = "the state of a Keelson system"
		}
		return found.What, nil
	}
	end := make([]byte, min(size, 1<<20))
	if _, err := r.ReadAt(end, size-int64(len(end))); err != nil && err != io.EOF {
		return "", fmt.Errorf("read the end: %w", err)
	}
	for _, t := range tails() {
		if t.back <= int64(len(end)) && bytes.HasPrefix(end[int64(len(end))-t.back:], []byte(t.magic)) {
			return t.what, nil
		}
	}
	// md's version 0.90 is in the last whole 64 KiB but one.
	if at := size&^(64<<10-1) - 64<<10; at >= size-int64(len(end)) && at >= 0 {
		if binary.LittleEndian.Uint32(end[at-(size-int64(len(end))):]) == 0xa92b4efc {
			return "a member of a software RAID", nil
		}
	}
	return "", nil
}

// dosPartitions says that a first sector is a partition table, and not a file system's.
func dosPartitions(mbr []byte) string {
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return ""
	}
	count := 0
	for i := 446; i < 510; i += 16 {
		kind, size := mbr[i+4], binary.LittleEndian.Uint32(mbr[i+12:])
		if mbr[i]&0x7f != 0 || kind == 0 != (size == 0) {
			return "" // code, or a file system's fields
		}
		if kind != 0 {
			count++
		}
	}
	if count == 0 {
		return ""
	}
	if count == 1 && mbr[446+4] == 0xee {
		return "a damaged partition table"
	}
	return fmt.Sprintf("a partition table (MBR, %d partitions)", count)
}

// withoutFirst is a disk as if its first sector was empty.
type withoutFirst struct{ r io.ReaderAt }

func (w withoutFirst) ReadAt(b []byte, off int64) (int, error) {
	n, err := w.r.ReadAt(b, off)
	for i := 0; i < n && off+int64(i) < mbrSize; i++ {
		b[i] = 0
	}
	return n, err
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
