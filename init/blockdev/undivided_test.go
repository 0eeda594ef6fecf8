package blockdev

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keelson/init/layout"
)

// cd puts a medium with a partition table into a drive's place.
func cd(t *testing.T, dev, name string, entries ...Entry) {
	t.Helper()
	b := make([]byte, 64<<10)
	if len(entries) > 0 {
		table := &Table{Sector: layout.SectorSize, FirstLBA: 2048, LastLBA: 100_000, Entries: make([]Entry, entryCount)}
		copy(table.Entries, entries)
		copy(b[primaryLBA*layout.SectorSize:], table.headerBytes(primaryLBA, 100_033, entriesLBA))
		copy(b[entriesLBA*layout.SectorSize:], table.entryBytes())
	}
	if err := os.WriteFile(filepath.Join(dev, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestScanMedia(t *testing.T) {
	class, dev := sysfs(t, "sr0"), t.TempDir()
	kind := GUID{1}
	for name, entries := range map[string][]Entry{
		"nothing": nil,
		"ours": {
			{Type: kind, First: 2048, Last: 4095, Name: layout.LabelESP}, {}, {Type: kind, First: 4096, Last: 8191, Name: layout.LabelLive},
			{Type: kind, First: 9000, Last: 9001, Name: "another's"},
		},
	} {
		cd(t, dev, "sr0", entries...)
		got, err := ScanMedia(class, dev)
		if err != nil {
			t.Fatal(err)
		}
		var want []Partition
		if name == "ours" {
			want = []Partition{
				{Name: "sr0", Disk: "sr0", Number: 1, Label: layout.LabelESP, Start: 1 << 20, Size: 1 << 20, Undivided: true},
				{Name: "sr0", Disk: "sr0", Number: 3, Label: layout.LabelLive, Start: 2 << 20, Size: 2 << 20, Undivided: true},
			}
		}
		if len(got) != len(want) || len(want) == 2 && (got[0] != want[0] || got[1] != want[1]) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if err := os.Remove(filepath.Join(dev, "sr0")); err != nil {
		t.Fatal(err)
	}
	if got, err := ScanMedia(class, dev); err != nil || got != nil {
		t.Errorf("an empty drive: got %v, %v", got, err)
	}
	// A disk is the kernel's to divide.
	cd(t, dev, "vda", Entry{Type: kind, First: 2048, Last: 4095, Name: layout.LabelLive})
	if got, err := ScanMedia(sysfs(t, "vda"), dev); err != nil || got != nil {
		t.Errorf("a disk: got %v, %v", got, err)
	}
}

func TestLoop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "medium")
	content := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := Loop(file, 4096, 8192)
	if err != nil {
		t.Skipf("SKIPPED: this host has no loop devices for us: %v", err)
	}
	defer func() {
		if out, err := exec.Command("losetup", "-d", path).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v\n%s", path, err, out)
		}
	}()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content[4096:4096+8192]) {
		t.Errorf("got %d bytes, %v, want the 8192 from 4096 on", len(got), err)
	}
}
