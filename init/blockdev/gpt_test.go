package blockdev

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keelson/init/layout"
)

// memory is a disk in memory, sector by sector, that can lose its power: after
// limit writes nothing reaches it any more.
type memory struct {
	sector int64
	data   map[int64]string // a sector's bytes, by its number
	writes int
	limit  int // negative for none
}

func (m *memory) Sync() error { return nil }

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for i := range b {
		at := off + int64(i)
		if s, ok := m.data[at/m.sector]; ok {
			b[i] = s[at%m.sector]
		}
	}
	return len(b), nil
}

// WriteAt takes one sector at a time, as a disk does.
func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	for i := 0; i < len(b); i += int(m.sector) {
		if m.limit >= 0 && m.writes >= m.limit {
			return i, errors.New("no power")
		}
		m.writes++
		piece := append(slices.Clone(b[i:min(i+int(m.sector), len(b))]), make([]byte, m.sector)...)
		m.data[(off+int64(i))/m.sector] = string(piece[:m.sector])
	}
	return len(b), nil
}

func (m *memory) flip(at int64) {
	s := []byte(m.data[at/m.sector])
	s[at%m.sector] ^= 1
	m.data[at/m.sector] = string(s)
}

// save writes the disk to a file for a tool to look at.
func (m *memory) save(t *testing.T, sectors int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(sectors * m.sector); err != nil {
		t.Fatal(err)
	}
	for lba, b := range m.data {
		if _, err := f.WriteAt([]byte(b), lba*m.sector); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func counted(from ...byte) func() GUID {
	n := byte(0)
	if len(from) > 0 {
		n = from[0]
	}
	return func() GUID { n++; return GUID{0: n, 15: 0xff} }
}

func mustGUID(t testing.TB, s string) GUID {
	t.Helper()
	g, err := ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

const testRoot = 40 << 20 // bytes

// sectorSizes are those that disks have.
func sectorSizes(t *testing.T, run func(t *testing.T, sector uint64)) {
	for _, sector := range []uint64{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) { run(t, sector) })
	}
}

// image is a table as the builder leaves it, on a disk of that many sectors.
func image(t testing.TB, imageSectors, sector uint64) *Table {
	t.Helper()
	id := counted()
	start, mib := 98<<20/sector, 1<<20/sector
	tab := &Table{Sector: sector, Disk: id(), FirstLBA: spareLBA(sector) + tableLBAs(sector), LastLBA: imageSectors - 2 - tableLBAs(sector), Self: 1, Alternate: imageSectors - 1, EntryLBA: 2, Entries: make([]Entry, entryCount)}
	tab.Entries[0] = Entry{Type: mustGUID(t, layout.TypeBIOSBoot), ID: id(), First: mib, Last: 2*mib - 1, Name: layout.LabelBIOS}
	tab.Entries[1] = Entry{Type: mustGUID(t, layout.TypeESP), ID: id(), First: 2 * mib, Last: start - 1, Name: layout.LabelESP}
	tab.Entries[2] = Entry{Type: mustGUID(t, layout.TypeRootAMD64), ID: id(), First: start, Last: start + testRoot/sector - 1, Attributes: layout.AttrRoot, Name: layout.LabelRootA}
	return tab
}

// written puts the image's table on a larger disk, the backup where the image
// ended.
func written(t testing.TB, sector uint64) (*memory, *Table) {
	t.Helper()
	imageSectors := 140 << 20 / sector
	tab := image(t, imageSectors, sector)
	m := &memory{sector: int64(sector), data: map[int64]string{}, limit: -1}
	mbr := make([]byte, sector) // protective MBR (UEFI 2.10, table 5.4)
	copy(mbr[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	mbr[510], mbr[511] = 0x55, 0xaa
	m.data[0] = string(mbr)
	if err := Commit(m, tab, imageSectors); err != nil {
		t.Fatal(err)
	}
	m.writes = 0
	got, err := ReadTable(m, sector, primaryLBA)
	if err != nil {
		t.Fatal(err)
	}
	return m, got
}

func TestGUID(t *testing.T) {
	for _, s := range []string{layout.TypeESP, layout.TypeState, "00112233-4455-6677-8899-aabbccddeeff"} {
		if got := mustGUID(t, s).String(); got != s {
			t.Errorf("got %s, want %s", got, s)
		}
	}
	g := mustGUID(t, layout.TypeESP)
	if want := []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b}; !bytes.Equal(g[:10], want) {
		t.Errorf("stored form: got % x, want % x", g[:10], want)
	}
	for _, bad := range []string{"", "x", layout.TypeESP + "0", strings.Replace(layout.TypeESP, "c", "g", 1)} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	if v := NewGUID().String()[14]; v != '4' {
		t.Errorf("random GUID has version %c", v)
	}
}

func TestTableRoundTrip(t *testing.T) {
	sectorSizes(t, func(t *testing.T, sector uint64) {
		m, got := written(t, sector)
		want := image(t, 140<<20/sector, sector)
		want.Self, want.EntryLBA = primaryLBA, entriesLBA
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		backup, err := ReadTable(m, sector, want.Alternate)
		if err != nil || !reflect.DeepEqual(backup.Entries, want.Entries) {
			t.Errorf("backup: %v", err)
		}
		for _, at := range []uint64{sector + 20, sector + 60, 2*sector + 5} {
			m.flip(int64(at))
			if _, err := ReadTable(m, sector, 1); !errors.Is(err, ErrNoTable) {
				t.Errorf("flipped byte %d: got %v, want ErrNoTable", at, err)
			}
			m.flip(int64(at))
		}
		if _, err := ReadTable(m, 4096+512-sector, 1); !errors.Is(err, ErrNoTable) {
			t.Errorf("by the other size of sectors: got %v, want ErrNoTable", err)
		}
	})
	for _, sector := range []uint64{0, 256, 1000, 8192} {
		if _, err := ReadTable(bytes.NewReader(nil), sector, 1); err == nil || !strings.Contains(err.Error(), "sectors of") {
			t.Errorf("sectors of %d bytes: got %v", sector, err)
		}
	}
}

// A table without partitions is one that sgdisk takes, and takes partitions.
func TestNewTable(t *testing.T) {
	sectorSizes(t, func(t *testing.T, sector uint64) {
		m := &memory{sector: int64(sector), data: map[int64]string{}, limit: -1}
		sectors := 64 << 20 / sector
		n := NewTable(sectors, sector)
		if err := Commit(m, n, sectors); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTable(m, sector, primaryLBA)
		if err != nil || got.Disk != n.Disk || got.FirstLBA != 1<<20/sector || got.LastLBA+1+tableLBAs(sector)+1 != sectors {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func FuzzReadTable(f *testing.F) {
	for _, sector := range []uint64{512, 4096} {
		m, _ := written(f, sector)
		seed := make([]byte, 34*sector)
		m.ReadAt(seed, int64(sector))
		f.Add(seed, sector)
	}
	f.Fuzz(func(t *testing.T, b []byte, sector uint64) {
		tab, err := ReadTable(bytes.NewReader(append(make([]byte, min(sector, 4096)), b...)), sector, 1)
		if err != nil {
			return
		}
		if n, err := Plan(tab, 1<<30, counted()); err == nil && n != nil {
			for i, e := range n.Entries {
				if e.Used() && (e.First > e.Last || e.Last > n.LastLBA) {
					t.Errorf("partition %d: %d to %d", i+1, e.First, e.Last)
				}
			}
		}
	})
}

func TestPlan(t *testing.T) {
	cases := []struct {
		name    string
		disk    uint64 // MiB
		slot    uint64
		wantErr string
	}{
		{"large disk", 20 << 10, 1024, ""},
		{"odd disk", 20<<10 + 7, 1024, ""},
		{"small disk gets smaller slots", 2048, 462, ""},
		{"smallest disk", 1206, 41, ""},
		{"too small", 1100, 0, "enlarge the disk"},
		{"image's own size", 140, 0, "enlarge the disk"},
	}
	for _, c := range cases {
		sectorSizes(t, func(t *testing.T, sector uint64) {
			mib := 1 << 20 / sector
			old := image(t, 140*mib, sector)
			n, err := Plan(old, c.disk*mib, counted(100))
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("%s: got %v, want an error with %q", c.name, err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			a, b, state := n.Entries[2], n.Entries[3], n.Entries[4]
			if got := a.Sectors() / mib; c.name != "smallest disk" && got != c.slot {
				t.Errorf("slot: got %d MiB, want %d", got, c.slot)
			}
			if a.First != old.Entries[2].First || a.Sectors()*sector < testRoot || b.First != a.Last+1 || b.Sectors() != a.Sectors() || state.First != b.Last+1 {
				t.Errorf("partitions do not follow each other: %+v %+v %+v", a, b, state)
			}
			if state.Sectors()*sector < layout.StateMinSize || state.Last > n.LastLBA || (state.Last+1)%mib != 0 {
				t.Errorf("STATE: %d sectors from %d on a disk of %d", state.Sectors(), state.First, c.disk*mib)
			}
			if n.Disk == old.Disk || a.ID != old.Entries[2].ID || n.Entries[1] != old.Entries[1] {
				t.Error("the disk must get its own GUID, and what was there must keep theirs")
			}
			again, err := Plan(n, c.disk*mib, counted())
			if err != nil || again != nil {
				t.Errorf("a fitted disk: got %+v, %v, want nothing to do", again, err)
			}
			larger, err := Plan(n, 2*c.disk*mib, counted())
			if err != nil || larger.Entries[4].First != state.First || larger.Entries[4].Last <= state.Last || larger.Entries[3] != b || larger.Disk != n.Disk {
				t.Errorf("a larger disk: got %+v, %v", larger, err)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	const sector, sectors = 512, 8 << 30 / 512
	for name, change := range map[string]func(*Table){
		"another disk":      func(t *Table) { t.Entries[2].Name = "root" },
		"foreign partition": func(t *Table) { t.Entries[7] = Entry{Type: GUID{1}, First: 300000, Last: 300001, Name: "data"} },
		"slot B alone": func(t *Table) {
			t.Entries[3] = Entry{Type: GUID{1}, First: 300000, Last: 300001, Name: layout.LabelRootB}
		},
		"other names": func(t *Table) {
			t.Entries[3] = Entry{Type: GUID{1}, First: 300000, Last: 300001, Name: "swap"}
			t.Entries[4] = Entry{Type: GUID{1}, First: 300002, Last: 300003, Name: layout.LabelState}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tab := image(t, 140<<20/sector, sector)
			change(tab)
			if got, err := Plan(tab, sectors, counted()); err == nil {
				t.Errorf("got %+v, want an error", got.Entries[:5])
			}
		})
	}
}

// The power may go between any two sectors. Whatever was written then, the
// primary table is whole and either the old or the new one, and the next boot
// gets from there to the new one.
func TestCommitSurvivesPowerCut(t *testing.T) { sectorSizes(t, commitSurvivesPowerCut) }

func commitSurvivesPowerCut(t *testing.T, sector uint64) {
	sectors := 1210 << 20 / sector
	m, old := written(t, sector)
	start := maps.Clone(m.data)
	want, err := Plan(old, sectors, counted())
	if err != nil {
		t.Fatal(err)
	}
	if err := Commit(m, want, sectors); err != nil {
		t.Fatal(err)
	}
	total, seen := m.writes, map[string]int{}
	for limit := range total {
		cut := &memory{sector: int64(sector), data: maps.Clone(start), limit: limit}
		if err := Commit(cut, want, sectors); err == nil {
			t.Fatalf("cut after %d writes: Commit did not notice", limit)
		}
		got, err := ReadTable(cut, sector, primaryLBA)
		if err != nil {
			t.Fatalf("cut after %d of %d writes: primary table: %v", limit, total, err)
		}
		switch {
		case reflect.DeepEqual(got.Entries, old.Entries):
			seen["old"]++
		case reflect.DeepEqual(got.Entries, want.Entries):
			seen["new"]++
		default:
			t.Fatalf("cut after %d writes: neither the old nor the new table", limit)
		}
		cut.limit = -1
		next, err := Plan(got, sectors, counted())
		if err != nil {
			t.Fatalf("cut after %d writes: next boot: %v", limit, err)
		}
		if next == nil {
			next = got
		}
		if err := Commit(cut, next, sectors); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadTable(cut, sector, primaryLBA); err != nil || got.EntryLBA != entriesLBA || !got.Entries[4].Used() {
			t.Fatalf("cut after %d writes: the next boot left %+v, %v", limit, got, err)
		}
	}
	if seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("cuts hit %v: the test does not cover both", seen)
	}
}

// sgdisk must find nothing wrong with the table, at rest and while the entries
// are at their spare place.
func TestTableSatisfiesSgdisk(t *testing.T) {
	if _, err := exec.LookPath("sgdisk"); err != nil {
		t.Skip("sgdisk (package gdisk) is not installed")
	}
	const sector, sectors = 512, 1210 << 20 / 512 // of files sgdisk knows no other size
	m, old := written(t, sector)
	want, err := Plan(old, sectors, counted())
	if err != nil {
		t.Fatal(err)
	}
	for name, limit := range map[string]int{"spare place": int(2*tableLBAs(sector)) + 2, "at rest": -1} {
		t.Run(name, func(t *testing.T) {
			disk := &memory{sector: sector, data: maps.Clone(m.data), limit: limit}
			if err := Commit(disk, want, sectors); (err != nil) != (limit >= 0) {
				t.Fatal(err)
			}
			file := disk.save(t, sectors)
			out, err := exec.Command("sgdisk", "-v", "-p", file).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "No problems found") {
				t.Errorf("sgdisk: %v\n%s", err, out)
			}
			for _, label := range []string{layout.LabelRootA, layout.LabelRootB, layout.LabelState} {
				if !strings.Contains(string(out), label) {
					t.Errorf("sgdisk does not list %s:\n%s", label, out)
				}
			}
		})
	}
}

func TestCommitRefusesPartitionOnTable(t *testing.T) {
	const sector = 512
	m, tab := written(t, sector)
	tab.Entries[5] = Entry{Type: GUID{1}, First: 40, Last: 50, Name: "early"}
	before := maps.Clone(m.data)
	if err := Commit(m, tab, 300<<20/sector); err == nil || !maps.Equal(before, m.data) {
		t.Errorf("got %v, want an error before anything is written", err)
	}
}

func TestDiskPartitionNames(t *testing.T) {
	const sector = 4096
	tab := image(t, 140<<20/sector, sector)
	for disk, want := range map[string]string{"vda": "/dev/vda3", "nvme0n1": "/dev/nvme0n1p3", "mmcblk0": "/dev/mmcblk0p3"} {
		p := (&Disk{Name: disk, Table: tab}).Partition(layout.NumberRootA)
		if got := p.Device(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if p.Label != layout.LabelRootA || p.Size != testRoot || p.Start != 98<<20 || fmt.Sprint(p) != want+" (KEELSON-ROOT-A)" {
			t.Errorf("got %+v", p)
		}
	}
}

func TestPartitionName(t *testing.T) {
	for disk, want := range map[string]string{"sdb": "sdb3", "nvme0n1": "nvme0n1p3", "mmcblk0": "mmcblk0p3"} {
		if got := PartitionName(disk, 3); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
