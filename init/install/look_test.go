package install

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson/init/blockdev"
	"keelson/init/layout"
)

const smallDisk = 64 << 20

func at(off int, b string) []byte {
	out := make([]byte, smallDisk)
	copy(out[(off+smallDisk)%smallDisk:], b)
	return out
}

func dos(kinds ...byte) []byte {
	b := make([]byte, smallDisk)
	for i, k := range kinds {
		b[446+16*i+4] = k
		binary.LittleEndian.PutUint32(b[446+16*i+12:], 1000)
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

func TestLook(t *testing.T) {
	marked := make([]byte, smallDisk)
	copy(marked, stub())
	for name, c := range map[string]struct {
		disk []byte
		want Content
	}{
		"zeros":               {make([]byte, smallDisk), Content{}},
		"data far inside":     {at(8<<20, "something"), Content{}},
		"MBR":                 {dos(0x83, 0x82), Content{Foreign, "a partition table (MBR, 2 partitions)"}},
		"boot sector":         {at(0, "\xeb\x3c\x90code"), Content{Foreign, "data of an unknown kind"}},
		"LUKS":                {at(0, "LUKS\xba\xbe"), Content{Foreign, "an encrypted volume (LUKS)"}},
		"broken GPT":          {at(512, "EFI PART"), Content{Foreign, "a partition table"}},
		"ext4 of others":      {at(1024+0x38, "\x53\xef"), Content{Foreign, `an ext file system with the label ""`}},
		"backup GPT":          {at(-512, "EFI PART"), Content{Foreign, "the backup of a partition table"}},
		"RAID 1.0":            {at(-8192, "\xfc\x4e\x2b\xa9"), Content{Foreign, "a member of a software RAID"}},
		"RAID 0.90":           {at(-65536, "\xfc\x4e\x2b\xa9"), Content{Foreign, "a member of a software RAID"}},
		"Intel RAID":          {at(-1024, "Intel Raid ISM Cfg Sig. 1.0"), Content{Foreign, "a member of a firmware RAID"}},
		"marked":              {marked, Content{Kind: Unfinished}},
		"marked, data inside": {append(bytes.Clone(stub()), at(8<<20, "x")[len(stub()):]...), Content{Kind: Unfinished}},
		"marked, a file system behind": {append(bytes.Clone(stub()), at(0x10040, "_BHRfS_M")[len(stub()):]...),
			Content{Foreign, "a btrfs file system"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Look(bytes.NewReader(c.disk), smallDisk, 512, blockdev.GUID{})
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	if _, err := Look(bytes.NewReader(nil), smallDisk, 512, blockdev.GUID{}); err == nil {
		t.Error("a disk that cannot be read: no error")
	}
}

// Tables as another program writes them.
func TestLookAtTablesOfSgdisk(t *testing.T) {
	needTools(t, "sgdisk")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"partitions": {[]string{"-n", "1:0:+1M", "-c", "1:EFI system", "-n", "2:0:+1M"}, "a partition table (EFI system, 2)"},
		"empty":      {[]string{"-o"}, "a partition table without partitions"},
		"many": {[]string{"-n", "1:0:+1M", "-n", "2:0:+1M", "-n", "3:0:+1M", "-n", "4:0:+1M", "-n", "5:0:+1M", "-n", "6:0:+1M", "-n", "7:0:+1M"},
			"a partition table (1, 2, 3, 4, 5, 6, ...)"},
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, make([]byte, smallDisk), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sgdisk", append(c.args, file)...).CombinedOutput(); err != nil {
			t.Fatalf("sgdisk: %v\n%s", err, out)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Look(bytes.NewReader(b), smallDisk, 512, blockdev.GUID{}); err != nil || got != (Content{Foreign, c.want}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		copy(b, make([]byte, 34*512)) // as a tool leaves it that clears the beginning alone
		want := strings.Replace(c.want, "a partition", "the backup of a partition", 1)
		if got, err := Look(bytes.NewReader(b), smallDisk, 512, blockdev.GUID{}); err != nil || got != (Content{Foreign, want}) {
			t.Errorf("%s, its backup: got %+v, %v", name, got, err)
		}
	}
}

// A system that has run is never taken for one that is not finished, whatever is wrong with it.
func TestLookAtOurOwn(t *testing.T) {
	c := trial{sector: 512, esp: smallESP(), before: map[int64]block{}}
	p := newPower(map[int64]block{}, -1, 0)
	if _, err := c.install(t, p); err != nil {
		t.Fatal(err)
	}
	load, _, _ := medium(t, c.esp)
	tab, err := table(load, diskSize, 512)
	if err != nil {
		t.Fatal(err)
	}
	state, esp := int64(tab.Entries[layout.NumberState-1].First*512), int64(tab.Entries[layout.NumberESP-1].First)
	mounted := func(p *power) {
		b := p.view[state/512+2]
		b[0x34] = 1 // the count of mounts
		set(p.view, state/512+2, b)
	}
	id, other := Identity("", documents()), blockdev.GUID{7}
	for name, c := range map[string]struct {
		change func(*power)
		id     blockdev.GUID
		want   Content
	}{
		"installed":               {func(*power) {}, id, Content{Kind: Installed}},
		"installed and used":      {mounted, id, Content{Kind: Installed}},
		"by other user-data":      {func(*power) {}, other, Content{Foreign, "a Keelson system"}},
		"by other, used":          {mounted, other, Content{Foreign, "a Keelson system and its state"}},
		"no boot sector":          {func(p *power) { delete(p.view, esp) }, other, Content{Kind: Unfinished}},
		"no boot sector, used":    {func(p *power) { mounted(p); delete(p.view, esp) }, other, Content{Foreign, "a Keelson system and its state"}},
		"marked":                  {func(p *power) { p.view[0] = block(append(stub(), make([]byte, 512-len(stub()))...)) }, other, Content{Kind: Unfinished}},
		"marked, but used":        {func(p *power) { mounted(p); p.view[0] = block(append(stub(), make([]byte, 512-len(stub()))...)) }, id, Content{Foreign, "a Keelson system and its state"}},
		"without the first table": {func(p *power) { delete(p.view, 1) }, id, Content{Foreign, "a damaged partition table"}},
		"marked, no table but last": {func(p *power) {
			delete(p.view, 1)
			p.view[0] = block(append(stub(), make([]byte, 512-len(stub()))...))
		}, id, Content{Kind: Unfinished}},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newPower(p.durable, -1, 0)
			c.change(disk)
			if got, err := Look(disk, diskSize, 512, c.id); err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func FuzzLook(f *testing.F) {
	f.Add(dos(0x83)[:4096])
	f.Add(stub())
	f.Add(at(512, "EFI PART")[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := make([]byte, 1<<20)
		copy(disk, b)
		got, err := Look(bytes.NewReader(disk), int64(len(disk)), 512, blockdev.GUID{})
		if err == nil && got.Kind == Empty && !isZero(disk[:4096]) {
			t.Error("data was judged empty")
		}
	})
}
