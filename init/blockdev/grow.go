package blockdev

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"unsafe"

	"keelson/init/layout"

	"golang.org/x/sys/unix"
)

// Disk is the boot disk after Grow.
type Disk struct {
	Name    string // vda
	Table   *Table
	Changed bool // Grow wrote a new table
}

// Partition is the partition of that number.
func (d *Disk) Partition(number int) Partition {
	e := d.Table.Entries[number-1]
	return Partition{
		Name: PartitionName(d.Name, number), Disk: d.Name, Number: number, Label: e.Name,
		Start: e.First * d.Table.Sector, Size: e.Sectors() * d.Table.Sector,
	}
}

// PartitionName is the kernel's for a partition of a disk (block/partitions/core.c): a p goes between where the disk's name
// ends with a digit, as in nvme0n1p3.
func PartitionName(disk string, number int) string {
	if c := disk[len(disk)-1]; '0' <= c && c <= '9' {
		disk += "p"
	}
	return fmt.Sprintf("%s%d", disk, number)
}

// SectorSize asks the kernel for the bytes of a disk's logical sector. What is no block device has 512.
func SectorSize(f *os.File) (uint64, error) {
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if errors.Is(err, unix.ENOTTY) {
		return layout.SectorSize, nil
	}
	if err != nil {
		return 0, fmt.Errorf("size of its sectors: %w", err)
	}
	return uint64(n), nil
}

// Grow fits the table of a disk to its size and tells the kernel. prepare is
// called with the open disk before a new STATE comes into being, with the place
// it will have.
func Grow(name string, log *slog.Logger, prepare func(f *os.File, start, size int64) error) (*Disk, error) {
	f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, fmt.Errorf("size of disk %s: %w", name, err)
	}
	sector, err := SectorSize(f)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	sectors := uint64(size) / sector
	old, err := ReadTable(f, sector, primaryLBA)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	t, err := Plan(old, sectors, NewGUID)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	if t == nil {
		if err := repair(f, old, sectors, log); err != nil {
			return nil, fmt.Errorf("disk %s: %w", name, err)
		}
		return &Disk{Name: name, Table: old}, nil
	}
	if e := t.Entries[layout.NumberState-1]; !old.Entries[layout.NumberState-1].Used() {
		if err := prepare(f, int64(e.First*sector), int64(e.Sectors()*sector)); err != nil {
			return nil, fmt.Errorf("disk %s: prepare %s: %w", name, layout.LabelState, err)
		}
	}
	if err := Commit(f, t, sectors); err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	for i, e := range t.Entries {
		if err := tellKernel(f, sector, i+1, old.Entries[i], e); err != nil {
			return nil, fmt.Errorf("disk %s: partition %d: %w", name, i+1, err)
		}
	}
	log.Info("partition table fitted to the disk", "disk", name, "bytes", size)
	return &Disk{Name: name, Table: t, Changed: true}, nil
}

// repair finishes what a power cut left of Commit: entries at the spare place,
// or no valid backup.
func repair(f *os.File, t *Table, sectors uint64, log *slog.Logger) error {
	backup, err := ReadTable(f, t.Sector, sectors-1)
	if err == nil && backup.Disk == t.Disk && t.EntryLBA == entriesLBA {
		return nil
	}
	log.Warn("partition table repaired", "entries at", t.EntryLBA, "backup", errText(err))
	return Commit(f, t, sectors)
}

func errText(err error) string {
	if err == nil {
		return "whole"
	}
	return err.Error()
}

// blkpgPartition and blkpgArg are struct blkpg_partition and struct
// blkpg_ioctl_arg of include/uapi/linux/blkpg.h.
type blkpgPartition struct {
	start, length int64
	number        int32
	_             [64]byte // devname
	_             [64]byte // volname
	_             [4]byte
}

type blkpgArg struct {
	op, flags, size int32
	_               int32
	data            *blkpgPartition
}

// tellKernel brings the kernel's partition in line, without a re-read of the
// whole table, which it refuses while one of them is in use.
func tellKernel(f *os.File, sector uint64, number int, old, now Entry) error {
	op := int32(unix.BLKPG_RESIZE_PARTITION)
	switch {
	case old == now || !now.Used() || old.Used() && old.First == now.First && old.Last == now.Last:
		return nil
	case !old.Used():
		op = unix.BLKPG_ADD_PARTITION
	}
	p := blkpgPartition{start: int64(now.First * sector), length: int64(now.Sectors() * sector), number: int32(number)}
	arg := blkpgArg{op: op, size: int32(unsafe.Sizeof(p)), data: &p}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 && !(op == unix.BLKPG_ADD_PARTITION && errors.Is(errno, unix.EBUSY)) {
		return fmt.Errorf("tell the kernel: %w", errno)
	}
	return nil
}

// NewGUID makes a random GUID (RFC 9562, version 4).
func NewGUID() GUID {
	var g GUID
	rand.Read(g[:])
	g[7] = g[7]&0x0f | 0x40 // the version is in the high byte of a little endian field
	g[8] = g[8]&0x3f | 0x80
	return g
}
