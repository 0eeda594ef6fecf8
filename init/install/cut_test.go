package install

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/layout"
	"keelson/init/userdata"
)

// block is what the recorder counts in.
type block [512]byte

const blockSize = 512

// power is a disk that can lose its power: after cut operations nothing reaches it any more, and of what was not flushed
// until then each sector is there or is not.
type power struct {
	durable, view map[int64]block
	pending       []int64
	random        *rand.Rand
	sector        int64 // what the disk writes whole or not at all
	cut, done     int   // cut is negative for never
}

var errPower = errors.New("no power")

func newPower(content map[int64]block, cut int, seed uint64) *power {
	return &power{sector: 512, durable: maps.Clone(content), view: maps.Clone(content), cut: cut, random: rand.New(rand.NewPCG(seed, uint64(cut)))}
}

func (p *power) alive() bool {
	if p.cut >= 0 && p.done >= p.cut {
		kept := p.chance()
		for _, at := range p.pending {
			if kept(at) {
				set(p.durable, at, p.view[at])
			}
		}
		p.pending, p.view = nil, p.durable
		return false
	}
	p.done++
	return true
}

// chance decides for each sector whether it gets to the disk.
func (p *power) chance() func(at int64) bool {
	decided := map[int64]bool{}
	return func(at int64) bool {
		n := at * blockSize / p.sector
		if _, ok := decided[n]; !ok {
			decided[n] = p.random.IntN(2) == 0
		}
		return decided[n]
	}
}

func set(m map[int64]block, at int64, b block) {
	if b == (block{}) {
		delete(m, at)
		return
	}
	m[at] = b
}

func (p *power) ReadAt(b []byte, off int64) (int, error) {
	for i := 0; i < len(b); {
		s := p.view[(off+int64(i))/blockSize]
		i += copy(b[i:], s[(off+int64(i))%blockSize:])
	}
	return len(b), nil
}

func (p *power) WriteAt(b []byte, off int64) (int, error) {
	if off%p.sector != 0 || int64(len(b))%p.sector != 0 || off+int64(len(b)) > diskSize {
		return 0, fmt.Errorf("write of %d bytes at %d", len(b), off)
	}
	alive, kept := p.alive(), p.chance()
	// A write that the power fails in is there in part.
	for i := 0; i < len(b); i += blockSize {
		at, data := (off+int64(i))/blockSize, block(b[i:i+blockSize])
		switch {
		case alive:
			set(p.view, at, data)
			p.pending = append(p.pending, at)
		case p.done == p.cut && kept(at):
			set(p.durable, at, data)
		}
	}
	if !alive {
		p.done++
		return 0, errPower
	}
	return len(b), nil
}

func (p *power) Sync() error {
	if !p.alive() {
		return errPower
	}
	for _, at := range p.pending {
		set(p.durable, at, p.view[at])
	}
	p.pending = nil
	return nil
}

func (p *power) Drop() error {
	if len(p.pending) > 0 {
		return errors.New("what is not flushed would be read back")
	}
	return nil
}

// fresh is what stands for mke2fs: the superblock of a state that was never mounted, in two writes.
func (p *power) fresh(_ context.Context, start, size int64) error {
	sb := make([]byte, 4096)
	binary.LittleEndian.PutUint16(sb[1024+0x38:], 0xef53)
	binary.LittleEndian.PutUint32(sb[1024+4:], uint32(size/4096))
	binary.LittleEndian.PutUint32(sb[1024+0x18:], 2)
	copy(sb[1024+0x78:], layout.StateFSLabel)
	if _, err := p.WriteAt(noise(9, 4096), start+65536); err != nil {
		return err
	}
	_, err := p.WriteAt(sb, start)
	return err
}

// old is a disk with another system: an MBR with code, a GUID partition table with an EFI system partition, data in it.
func old(t testing.TB, sector int64) map[int64]block {
	t.Helper()
	p := newPower(map[int64]block{}, -1, 0)
	esp, err := blockdev.ParseGUID(layout.TypeESP)
	if err != nil {
		t.Fatal(err)
	}
	table := blockdev.NewTable(uint64(diskSize/sector), uint64(sector))
	table.Entries[0] = blockdev.Entry{Type: esp, ID: blockdev.GUID{2}, First: table.FirstLBA, Last: 4*table.FirstLBA - 1, Name: "EFI system"}
	if err := blockdev.Commit(p, table, uint64(diskSize/sector)); err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		at   int64
		data []byte
	}{{0, append(noise(7, 510), 0x55, 0xaa)}, {1 << 20, noise(8, 3<<20)}} {
		if _, err := p.WriteAt(w.data, w.at); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	return p.durable
}

// trial is one kind of installation.
type trial struct {
	uefi, wipe bool
	sector     int64
	before     map[int64]block
	esp        []byte
}

func (c trial) power(content map[int64]block, cut int, seed uint64) *power {
	p := newPower(content, cut, seed)
	p.sector = c.sector
	return p
}

// install looks at the disk as New does, and writes to it until the power fails.
func (c trial) install(t testing.TB, p *power) (Content, error) {
	t.Helper()
	load, from, _ := medium(t, c.esp)
	config := Config{
		Want: userdata.Install{Wipe: c.wipe, Then: userdata.ThenReboot}, Documents: documents(), Payload: load, Source: from, UEFI: c.uefi,
		Say: func(string, ...any) {},
	}
	id := Identity("", config.Documents)
	found, err := Look(p, diskSize, c.sector, id)
	if err != nil {
		t.Fatal(err)
	}
	if found.Kind == Installed {
		return found, nil
	}
	if found.Kind == Foreign && !c.wipe {
		return found, nil
	}
	table, err := table(load, diskSize, c.sector)
	if err != nil {
		t.Fatal(err)
	}
	table.Disk = id
	w := writer{Plan: &Plan{Disk: Disk{Name: "vda", Size: diskSize, Sector: c.sector}, Wipe: c.wipe, ID: id, Table: table, c: config}, to: p, state: p.fresh}
	return found, w.run(context.Background())
}

// whole says what is wrong with a disk that a firmware would start.
func (c trial) whole(t testing.TB, content map[int64]block) error {
	t.Helper()
	p := c.power(content, -1, 0)
	load, _, parts := medium(t, c.esp)
	var esp, core, root = c.esp, parts[layout.NumberBIOS], parts[layout.NumberLive]
	for _, lba := range []int64{1, diskSize/c.sector - 1} {
		if tab, err := blockdev.ReadTable(p, uint64(c.sector), uint64(lba)); err != nil || tab.Disk != Identity("", documents()) {
			return fmt.Errorf("partition table at %d: %v", lba, err)
		}
	}
	tab, err := table(load, diskSize, c.sector)
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range map[int][]byte{layout.NumberBIOS: core, layout.NumberESP: esp, layout.NumberRootA: root} {
		got := make([]byte, len(want))
		if _, err := p.ReadAt(got, int64(tab.Entries[number-1].First*tab.Sector)); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("partition %d is not what is installed", number)
		}
	}
	state := tab.Entries[layout.NumberState-1]
	b := make([]byte, ext4.Cleared)
	if _, err := p.ReadAt(b, int64(state.First*tab.Sector)); err != nil {
		t.Fatal(err)
	}
	if found, err := ext4.Look(bytes.NewReader(b)); err != nil || found.Kind != ext4.Fresh {
		return fmt.Errorf("state: %+v, %v", found, err)
	}
	return nil
}

// startable says that a firmware of the machine's kind would start the new system.
func (c trial) startable(content map[int64]block) bool {
	p := c.power(content, -1, 0)
	if !c.uefi {
		first := content[0]
		return bytes.HasPrefix(first[:], []byte("boot code"))
	}
	for _, lba := range []int64{1, diskSize/c.sector - 1} {
		tab, err := blockdev.ReadTable(p, uint64(c.sector), uint64(lba))
		if err != nil || !isOurs(tab) {
			continue
		}
		boot := make([]byte, c.sector)
		if _, err := p.ReadAt(boot, int64(tab.Entries[layout.NumberESP-1].First*tab.Sector)); err == nil && !isZero(boot) {
			return true
		}
	}
	return false
}

// after says what is wrong with the disk that a cut has left.
func (c trial) after(t testing.TB, content map[int64]block) error {
	t.Helper()
	if maps.Equal(content, c.before) {
		return nil // the old disk
	}
	if c.startable(content) {
		return c.whole(t, content)
	}
	p := c.power(content, -1, 0)
	// The old system still starts as long as its table is there: then all that it has must be there, too.
	if tab, err := blockdev.ReadTable(p, uint64(c.sector), 1); err == nil && !isOurs(tab) {
		for at, b := range c.before {
			if at >= c.sector/blockSize && at < (diskSize-cleared)/blockSize && content[at] != b {
				return fmt.Errorf("the old table is in force, but sector %d is lost", at)
			}
		}
	}
	if first := content[0]; !bytes.HasPrefix(first[:], stub()) && !c.uefi {
		return errors.New("a BIOS starts a disk that is not finished")
	}
	return nil
}

func trials(t testing.TB) map[string]trial {
	t.Helper()
	return map[string]trial{
		"empty, BIOS":        {false, false, 512, map[int64]block{}, smallESP()},
		"empty, UEFI":        {true, false, 512, map[int64]block{}, smallESP()},
		"old, BIOS":          {false, true, 512, old(t, 512), smallESP()},
		"old, UEFI":          {true, true, 512, old(t, 512), smallESP()},
		"old, large sectors": {true, true, 4096, old(t, 4096), smallESP()},
	}
}

// Once before and in every write and every flush.
func TestCutAtEveryStep(t *testing.T) {
	for name, c := range trials(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := c.power(c.before, -1, 0)
			if _, err := c.install(t, p); err != nil {
				t.Fatal(err)
			}
			if err := c.whole(t, p.durable); err != nil || !c.startable(p.durable) {
				t.Fatalf("without a cut: %v", err)
			}
			last := p.done
			for cut := range last {
				p := c.power(c.before, cut, 1)
				if _, err := c.install(t, p); !errors.Is(err, errPower) {
					t.Fatalf("cut %d of %d: got %v", cut, last, err)
				}
				if err := c.after(t, p.durable); err != nil {
					t.Fatalf("cut %d of %d: %v", cut, last, err)
				}
				again := c.power(p.durable, -1, 0)
				found, err := c.install(t, again)
				if err != nil || found.Kind == Foreign && !c.wipe {
					t.Fatalf("cut %d of %d: the installer does not begin again: %+v, %v", cut, last, found, err)
				}
				if err := c.whole(t, again.durable); err != nil || !c.startable(again.durable) {
					t.Fatalf("cut %d of %d: begun again: %v", cut, last, err)
				}
			}
			t.Logf("%d cuts", last)
		})
	}
}

// Many cuts, one behind the other, on the same disk.
func TestCutAgainAndAgain(t *testing.T) {
	for name, c := range trials(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(3, 4))
			disk := c.before
			for n := range 20 {
				p := c.power(disk, r.IntN(40), uint64(n))
				found, err := c.install(t, p)
				if found.Kind == Foreign && !c.wipe || err != nil && !errors.Is(err, errPower) {
					t.Fatalf("cut %d: %+v, %v", n, found, err)
				}
				if err := c.after(t, p.durable); err != nil {
					t.Fatalf("cut %d: %v", n, err)
				}
				disk = p.durable
			}
			p := c.power(disk, -1, 0)
			if _, err := c.install(t, p); err != nil {
				t.Fatal(err)
			}
			if err := c.whole(t, p.durable); err != nil {
				t.Error(err)
			}
		})
	}
}

// A disk that does not keep what it is given is not made startable.
func TestDefectiveDisk(t *testing.T) {
	c := trials(t)["empty, BIOS"]
	for name, at := range map[string]int64{"root": 8 << 20, "EFI system partition": 2<<20 + 4096, "partition table": 512 * 5} {
		p := &defective{power: c.power(c.before, -1, 0), at: at / blockSize}
		load, from, _ := medium(t, c.esp)
		tab, err := table(load, diskSize, c.sector)
		if err != nil {
			t.Fatal(err)
		}
		w := writer{Plan: &Plan{Disk: Disk{Name: "vda", Size: diskSize, Sector: 512}, Table: tab, ID: tab.Disk, c: Config{Payload: load, Source: from, Say: func(string, ...any) {}}}, to: p, state: p.fresh}
		if err := w.run(context.Background()); !errors.Is(err, errDefective) {
			t.Errorf("%s: got %v", name, err)
		}
		if c.startable(p.durable) {
			t.Errorf("%s: the disk starts all the same", name)
		}
	}
}

// defective loses a bit of one sector.
type defective struct {
	*power
	at   int64
	lost bool
}

func (d *defective) Drop() error {
	if b := d.view[d.at]; !d.lost {
		b[3] ^= 4
		d.view[d.at], d.durable[d.at], d.lost = b, b, true
	}
	return d.power.Drop()
}
