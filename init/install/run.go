package install

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/layout"
)

// Target is the disk: device, or a recorder in a test.
type Target interface {
	blockdev.Device
	Drop() error // forget what was read already
}

// stub is the boot code of a disk that is not finished: it has the BIOS go on to its next device (interrupt 18h, "BIOS Boot
// Specification" 1.01, 5.2), and is what such a disk is known by.
func stub() []byte {
	return append([]byte{0xcd, 0x18, 0xf4, 0xeb, 0xfd}, "\x00KEELSON installs this disk"...)
}

// Sizes of what is done at once.
const (
	chunk      = 1 << 20
	flushEvery = 32 << 20
	cleared    = 1 << 20 // at both ends of the disk
)

// Run carries the plan out.
func (p *Plan) Run(ctx context.Context) error {
	d, err := p.open()
	if err != nil {
		return err
	}
	defer d.Close()
	w := writer{Plan: p, to: d, state: p.makeState}
	return w.run(ctx)
}

// writer is one run of a plan.
type writer struct {
	*Plan
	to    Target
	state func(ctx context.Context, start, size int64) error
	first []byte // of the EFI system partition: written last
}

type step struct {
	name string
	do   func(context.Context) error
}

// steps in their order, which is what makes a cut harmless: see the package's comment.
func (w *writer) steps() []step {
	all := []step{{"mark the disk", w.mark}, {"clear its ends", w.clear}}
	for _, part := range w.c.Payload.Partitions {
		all = append(all, step{"write " + part.Label, func(ctx context.Context) error { return w.copy(ctx, part) }})
	}
	all = append(all, step{"make " + layout.LabelState, w.stateStep}, step{"write the partition table", w.tableStep})
	for _, part := range w.c.Payload.Partitions {
		all = append(all, step{"verify " + part.Label, func(ctx context.Context) error { return w.verify(ctx, part) }})
	}
	boot, esp := step{"write the boot code", w.bootCode}, step{"write the boot sector", w.bootSector}
	// The last one makes the machine's firmware start the disk; the other is passed over by it.
	if w.c.UEFI {
		return append(all, boot, esp)
	}
	return append(all, esp, boot)
}

func (w *writer) run(ctx context.Context) error {
	all := w.steps()
	for i, s := range all {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		w.c.Say("install: %d of %d: %s", i+1, len(all), s.name)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %s: %w", w.Disk.Path(), s.name, err)
		}
	}
	return nil
}

func (w *writer) write(b []byte, at int64) error {
	if _, err := w.to.WriteAt(b, at); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	return w.to.Sync()
}

// mark is the first write, of one sector: before it the disk is what it was, after it the installer knows it.
func (w *writer) mark(context.Context) error { return w.write(w.mbr(stub()), 0) }

// clear removes what systems and firmware know a disk by. The backup of a partition table goes first: the table that it
// would replace is still whole then.
func (w *writer) clear(context.Context) error {
	zero := make([]byte, cleared)
	if err := w.write(zero, w.Disk.Size-cleared); err != nil {
		return err
	}
	return w.write(zero[w.Disk.Sector:], w.Disk.Sector)
}

// mbr is the protective one (UEFI 2.10 table 5.4) with that code, as a whole sector.
func (w *writer) mbr(code []byte) []byte {
	b := make([]byte, w.Disk.Sector)
	copy(b[:440], code)
	entry := b[446:]
	copy(entry, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], uint32(min(w.Disk.Size/w.Disk.Sector-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (w *writer) start(number int) int64 {
	return int64(w.Table.Entries[number-1].First * w.Table.Sector)
}

// copy streams a partition from the medium.
func (w *writer) copy(ctx context.Context, part layout.PayloadPartition) error {
	dirty := 0
	err := w.stream(ctx, part, part.Size, func(b []byte, at int64) error {
		if part.Number == layout.NumberESP && at == 0 {
			w.first = bytes.Clone(b[:w.Disk.Sector])
			clear(b[:w.Disk.Sector])
		}
		if _, err := w.to.WriteAt(b, w.start(part.Number)+at); err != nil {
			return err
		}
		if dirty += len(b); dirty >= flushEvery {
			dirty = 0
			return w.to.Sync()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.to.Sync()
}

// stream reads a partition's first bytes from the medium, as many as size says.
func (w *writer) stream(ctx context.Context, part layout.PayloadPartition, size int64, do func(b []byte, at int64) error) error {
	buf, extents := make([]byte, chunk), part.Extents
	for at := int64(0); at < size; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(chunk, size-at)]
		clear(b)
		var err error
		if extents, err = w.fill(b, at, extents); err != nil {
			return err
		}
		if err := do(b, at); err != nil {
			return err
		}
	}
	return nil
}

var errMedium = errors.New("the medium is damaged: it does not have what was built; write it anew")

// fill reads what of the extents is in b, which stands at a place of the partition, and returns those behind.
func (w *writer) fill(b []byte, at int64, extents []layout.PayloadExtent) ([]layout.PayloadExtent, error) {
	end := at + int64(len(b))
	for len(extents) > 0 && extents[0].To < end {
		e := extents[0]
		from, to := max(e.To, at), min(e.To+e.Length, end)
		r, err := w.c.Source(e.From)
		if err != nil {
			return nil, err
		}
		if n, err := r.ReadAt(b[from-at:to-at], e.Offset+from-e.To); int64(n) < to-from {
			return nil, fmt.Errorf("read the medium: partition %d at %d: %w", e.From, e.Offset+from-e.To, noEOF(err))
		}
		if e.To+e.Length > end {
			break
		}
		extents = extents[1:]
	}
	return extents, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (w *writer) stateStep(ctx context.Context) error {
	e := w.Table.Entries[layout.NumberState-1]
	start, size := int64(e.First*w.Table.Sector), int64(e.Sectors()*w.Table.Sector)
	// What mke2fs does not write over, and what is in the other slot, must not be taken for something.
	for _, at := range []int64{w.start(layout.NumberRootB), start} {
		if _, err := w.to.WriteAt(make([]byte, ext4.Cleared), at); err != nil {
			return err
		}
	}
	if err := w.to.Sync(); err != nil {
		return err
	}
	if err := w.state(ctx, start, size); err != nil {
		return err
	}
	return w.to.Sync()
}

func (w *writer) tableStep(context.Context) error {
	sectors := uint64(w.Disk.Size / w.Disk.Sector)
	if err := blockdev.Commit(w.to, w.Table, sectors); err != nil {
		return err
	}
	if err := w.to.Drop(); err != nil {
		return err
	}
	for _, lba := range []uint64{1, sectors - 1} {
		if t, err := blockdev.ReadTable(w.to, w.Table.Sector, lba); err != nil || t.Disk != w.ID || !slices.Equal(t.Entries, w.Table.Entries) {
			return fmt.Errorf("sector %d: %w (%v)", lba, errDefective, err)
		}
	}
	return nil
}

var errDefective = errors.New("what is read back is not what was written: the disk is defective")

// verify reads a partition back from the disk and compares it with what was built.
func (w *writer) verify(ctx context.Context, part layout.PayloadPartition) error {
	if err := w.to.Drop(); err != nil {
		return err
	}
	sum, buf := sha256.New(), make([]byte, chunk)
	for at := int64(0); at < part.Length; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(chunk, part.Length-at)]
		if n, err := w.to.ReadAt(b, w.start(part.Number)+at); n < len(b) {
			return fmt.Errorf("read back: %w", noEOF(err))
		}
		if part.Number == layout.NumberESP && at == 0 {
			copy(b, w.first)
		}
		sum.Write(b)
	}
	if hex.EncodeToString(sum.Sum(nil)) == part.SHA256 {
		return nil
	}
	// One of the two is to blame.
	sum.Reset()
	err := w.stream(ctx, part, part.Length, func(b []byte, _ int64) error { sum.Write(b); return nil })
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != part.SHA256 {
		err = errMedium
	}
	return cmp.Or(err, errDefective)
}

func (w *writer) bootSector(context.Context) error {
	return w.writeBack(w.first, w.start(layout.NumberESP))
}

func (w *writer) bootCode(context.Context) error {
	code, err := w.c.Payload.Boot()
	if err != nil {
		return err
	}
	return w.writeBack(w.mbr(code), 0)
}

// writeBack writes one sector and looks at it again.
func (w *writer) writeBack(b []byte, at int64) error {
	if err := w.write(b, at); err != nil {
		return err
	}
	if err := w.to.Drop(); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if _, err := w.to.ReadAt(got, at); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !bytes.Equal(got, b) {
		return errDefective
	}
	return nil
}

// makeState makes the file system of the state, with the user-data where a machine keeps what it has accepted.
func (p *Plan) makeState(ctx context.Context, start, size int64) error {
	dir, err := p.stateFolder()
	if err != nil {
		return err
	}
	defer removeAll(dir)
	return ext4.MakeIn(ctx, p.c.Tools, filepath.Join(p.c.Dev, p.Disk.Name), start, size, dir)
}
