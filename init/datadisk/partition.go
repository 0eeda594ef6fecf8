package datadisk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/layout"
	"keelson/init/userdata"
)

// disk puts a table on a disk, or finds the one that is asked for.
func (c Config) disk(ctx context.Context, d userdata.Disk) error {
	name, err := c.await(ctx, d.Device)
	if err != nil {
		return err
	}
	if err := c.mayWrite(name); err != nil {
		return err
	}
	f, err := os.OpenFile(c.node(name), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("size of %s: %w", name, err)
	}
	sector, err := blockdev.SectorSize(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	want, err := table(uint64(size)/sector, sector, d.Parts)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	have, err := blockdev.ReadTable(f, sector, 1)
	if err == nil && same(have, want) {
		return nil
	}
	found, err := ext4.Look(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if found.Kind == ext4.Ours || found.Kind == ext4.Fresh {
		found.What = "the state of a machine"
	}
	if have != nil {
		found.What = "another partition table"
	}
	if (found.Kind != ext4.Empty || have != nil) && !d.Overwrite {
		return fmt.Errorf("%s holds %s and is not touched; write overwrite: true to lose it", name, found.What)
	}
	// Nobody else has it open: the kernel refuses where a partition is mounted.
	own, err := os.OpenFile(c.node(name), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("%s is in use: %w", name, err)
	}
	defer own.Close()
	return write(own, want, uint64(size)/sector)
}

// table lays the partitions out on whole MiB.
func table(sectors, sector uint64, parts []int) (*blockdev.Table, error) {
	alignLBA := layout.Align / sector
	if sectors < uint64(len(parts)+2)*alignLBA {
		return nil, fmt.Errorf("has %d MiB, which is too little for %d partitions", sectors*sector>>20, len(parts))
	}
	kind, err := blockdev.ParseGUID(layout.TypeData)
	if err != nil {
		return nil, err
	}
	t := blockdev.NewTable(sectors, sector)
	usable := (t.LastLBA+1)/alignLBA - 1 // MiB
	at, percent := uint64(1), 0
	for i, p := range parts {
		percent += p
		end := 1 + usable*uint64(percent)/100
		if end <= at {
			return nil, fmt.Errorf("has no room for partition %d of %d %%", i+1, p)
		}
		t.Entries[i] = blockdev.Entry{Type: kind, ID: blockdev.NewGUID(), First: at * alignLBA, Last: end*alignLBA - 1, Name: fmt.Sprintf("data-%d", i+1)}
		at = end
	}
	return t, nil
}

// same compares places: names and identities are nobody's wish.
func same(a, b *blockdev.Table) bool {
	for i := range b.Entries {
		if a.Entries[i].Used() != b.Entries[i].Used() || a.Entries[i].First != b.Entries[i].First || a.Entries[i].Last != b.Entries[i].Last {
			return false
		}
	}
	return true
}

// write clears the beginning of every partition, so that nothing old shows up
// in it, and puts the table in force.
func write(f *os.File, t *blockdev.Table, sectors uint64) error {
	blank := make([]byte, ext4.Cleared)
	for _, e := range t.Entries {
		if e.Used() {
			if _, err := f.WriteAt(blank, int64(e.First*t.Sector)); err != nil {
				return fmt.Errorf("clear %s: %w", e.Name, err)
			}
		}
	}
	if _, err := f.WriteAt(protective(sectors, t.Sector), 0); err != nil {
		return fmt.Errorf("write the protective MBR: %w", err)
	}
	if err := blockdev.Commit(f, t, sectors); err != nil {
		return err
	}
	if _, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKRRPART); err != nil && !errors.Is(err, unix.ENOTTY) { // a file in a test
		return fmt.Errorf("tell the kernel of the partitions: %w", err)
	}
	return nil
}

// protective is the MBR that keeps other systems off (UEFI 2.10 table 5.4).
func protective(sectors, sector uint64) []byte {
	b := make([]byte, sector)
	entry := b[446:]
	copy(entry, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], uint32(min(sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}
