package blockdev

import (
	"fmt"
	"io"
)

// spareLBA is where the entries are for a moment while their usual place is
// rewritten: behind them and before the first partition, which starts at 1 MiB.
const (
	primaryLBA = 1
	entriesLBA = 2
)

func spareLBA(sector uint64) uint64 { return entriesLBA + tableLBAs(sector) }

// Device is what a table is written to: *os.File, or a recorder in a test.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Commit puts table t in force on a disk of that many of its sectors.
//
// A disk writes one sector whole or not at all, and the primary header is one
// sector: so the new entries go to a place that no header points to, and
// writing the header switches from the old table to the new one. Then the same
// again brings the entries back to their usual place. The backup at the end of
// the disk is written first; the old primary does not point to it yet.
func Commit(d Device, t *Table, sectors uint64) error {
	backup, tableLBAs, spareLBA := sectors-1, tableLBAs(t.Sector), spareLBA(t.Sector)
	entries := t.entryBytes()
	write := func(what string, lba uint64, b []byte) error {
		if _, err := d.WriteAt(b, int64(lba*t.Sector)); err != nil {
			return fmt.Errorf("write %s of the partition table: %w", what, err)
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("flush %s of the partition table: %w", what, err)
		}
		return nil
	}
	t.FirstLBA = max(t.FirstLBA, spareLBA+tableLBAs) // the spare place stays ours
	for _, e := range t.Entries {
		if e.Used() && e.First < t.FirstLBA {
			return fmt.Errorf("partition %s begins at sector %d: the table needs the sectors below %d", e.Name, e.First, t.FirstLBA)
		}
	}
	steps := []struct {
		what string
		lba  uint64
		data []byte
	}{
		{"backup entries", backup - tableLBAs, entries},
		{"backup header", backup, t.headerBytes(backup, primaryLBA, backup-tableLBAs)},
		{"new entries", spareLBA, entries},
		{"header", primaryLBA, t.headerBytes(primaryLBA, backup, spareLBA)},
		{"entries", entriesLBA, entries},
		{"final header", primaryLBA, t.headerBytes(primaryLBA, backup, entriesLBA)},
	}
	// A crash before the final header left the spare place in force: the new
	// entries then go to the usual place at once.
	if now, err := ReadTable(d, t.Sector, primaryLBA); err == nil && now.EntryLBA == spareLBA {
		steps = append(steps[:2], steps[4:]...)
	}
	for _, s := range steps {
		if err := write(s.what, s.lba, s.data); err != nil {
			return err
		}
	}
	return nil
}
