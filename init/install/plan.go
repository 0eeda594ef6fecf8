package install

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/layout"
	"keelson/init/userdata"
)

// Config says what is to be installed and where the machine is.
type Config struct {
	Want      userdata.Install
	Instance  string // instance-id of the machine
	Documents userdata.Documents

	Payload *layout.Payload
	// Source reads the medium's partition of that number; layout.NumberPayload begins behind the payload's head.
	Source func(number int) (io.ReaderAt, error)
	Medium string // name of the disk that the machine runs from
	UEFI   bool   // what started the machine, and is to start the installed system

	Sys, Dev string // /sys and /dev
	Temp     string // a folder in memory
	Tools    ext4.Runner
	// NextDevice blocks until the kernel tells of a block device.
	NextDevice func(context.Context) error
	// Release has the machine let go of a disk that it uses itself.
	Release func(disk string) error
	Say     func(format string, args ...any)
}

// appear is how long a disk may take to show itself.
const appear = 10 * time.Second

// Plan is what will be done.
type Plan struct {
	Disk    Disk
	Holds   Content
	Wipe    bool
	Version string
	ID      blockdev.GUID
	Table   *blockdev.Table

	c Config
}

// Identity is the GUID of a disk that this user-data installs. It does not hang on the version: a medium of another one must
// not replace a system that runs.
func Identity(instance string, docs userdata.Documents) blockdev.GUID {
	h := sha256.New()
	fmt.Fprintf(h, "keelson install\n%d %s\n", len(instance), instance)
	for _, d := range docs.User {
		fmt.Fprintf(h, "%d ", len(d.Data))
		h.Write(d.Data)
	}
	g := blockdev.GUID(h.Sum(nil)[:16])
	g[7] = g[7]&0x0f | 0x80 // RFC 9562: version 8, the maker's own
	g[8] = g[8]&0x3f | 0x80
	return g
}

// New chooses the disk and plans. A *Choice says what of the user-data, or which disk, must change.
func New(ctx context.Context, c Config) (*Plan, error) {
	need, err := need(c.Payload)
	if err != nil {
		return nil, err
	}
	d, err := c.await(ctx, need)
	if err != nil {
		return nil, err
	}
	p := &Plan{Disk: d, Wipe: c.Want.Wipe, Version: c.Payload.Version, ID: Identity(c.Instance, c.Documents), c: c}
	f, err := os.Open(filepath.Join(c.Dev, d.Name))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", d.Path(), err)
	}
	defer f.Close()
	if p.Holds, err = Look(f, d.Size, d.Sector, p.ID); err != nil {
		return nil, fmt.Errorf("look at %s: %w", d.Path(), err)
	}
	if p.Table, err = table(c.Payload, d.Size, d.Sector); err != nil {
		return nil, err
	}
	p.Table.Disk = p.ID
	if p.Holds.Kind == Foreign && !p.Wipe {
		return nil, &Choice{diskKey, fmt.Sprintf("%s holds %s and is not touched; empty it, choose another disk, or name it by path, by-id, serial or wwn "+
			"and say wipe: true to lose what it holds", d, p.Holds.What)}
	}
	return p, nil
}

// await chooses, and waits for a disk within bounds.
func (c Config) await(ctx context.Context, need int64) (Disk, error) {
	ctx, cancel := context.WithTimeout(ctx, appear)
	defer cancel()
	for {
		disks, err := Scan(c.Sys)
		if err != nil {
			return Disk{}, err
		}
		d, err := Choose(disks, c.Want.Disk, c.Medium, need)
		var choice *Choice
		if !errors.As(err, &choice) || c.NextDevice == nil || c.NextDevice(ctx) != nil {
			return d, err
		}
	}
}

// table is that of the installed disk, as the first boot of an image would leave it.
func table(payload *layout.Payload, size, sector int64) (*blockdev.Table, error) {
	sectors := uint64(size / sector)
	t := blockdev.NewTable(sectors, uint64(sector))
	at := t.FirstLBA
	for _, p := range payload.Partitions {
		kind, err := blockdev.ParseGUID(p.Type)
		if err != nil {
			return nil, fmt.Errorf("payload: partition %d: %w", p.Number, err)
		}
		e := blockdev.Entry{Type: kind, ID: blockdev.NewGUID(), First: at, Last: at + uint64(p.Size/sector) - 1, Attributes: p.Attributes, Name: p.Label}
		t.Entries[p.Number-1], at = e, e.Last+1
	}
	return blockdev.Plan(t, sectors, blockdev.NewGUID)
}

// need is the least that a disk must have: both slots as large as the root is, the least state, and the tables.
func need(payload *layout.Payload) (int64, error) {
	all := int64(2*layout.Align + layout.StateMinSize)
	for _, p := range payload.Partitions {
		all += p.Size
		if p.Number == layout.NumberRootA {
			all += p.Size
		}
	}
	_, err := table(payload, all, layout.SectorSize)
	return all, err
}

// Print says what will be done.
func (p *Plan) Print() {
	say := func(format string, args ...any) { p.c.Say("install: plan: "+format, args...) }
	say("Keelson %s to %s", p.Version, p.Disk)
	switch p.Holds.Kind {
	case Foreign:
		say("the disk holds %s, which is lost (wipe: true)", p.Holds.What)
	case Unfinished:
		say("the disk holds an installation that was not finished: it begins anew")
	case Empty:
		say("the disk is empty")
	}
	for i, e := range p.Table.Entries {
		if e.Used() {
			say("partition %d: %s, %s", i+1, e.Name, Bytes(int64(e.Sectors()*p.Table.Sector)))
		}
	}
	say("user-data goes along; then %s", p.c.Want.Then)
}

// open takes the disk for writing, once nobody else has it.
func (p *Plan) open() (*device, error) {
	if p.c.Release != nil {
		if err := p.c.Release(p.Disk.Name); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(p.c.Dev, p.Disk.Name)
	// The kernel refuses where one of its partitions is mounted. The tools want it for themselves, too, so that it is let go.
	own, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("%s is in use: %w", p.Disk.Path(), err)
	}
	own.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.Disk.Path(), err)
	}
	return &device{f}, nil
}

// device is a disk that is written to.
type device struct{ *os.File }

// Sync flushes data to the medium of the disk.
func (d *device) Sync() error { return unix.Fdatasync(int(d.Fd())) }

// Drop forgets what memory has of the disk, so that the next read is the disk's.
func (d *device) Drop() error {
	_ = unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED) // an advice
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKFLSBUF, 0)
	if errno != 0 && errno != unix.ENOTTY { // a file in a test
		return fmt.Errorf("drop what is read already: %w", errno)
	}
	return nil
}
