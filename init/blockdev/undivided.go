package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keelson/init/layout"
)

// ScanMedia is Scan, and besides it the partitions of CDs: the kernel does not divide those, but an image that starts from
// CD as well as from a disk has a partition table all the same. dev is the folder of the device nodes.
func ScanMedia(class, dev string) ([]Partition, error) {
	parts, err := Scan(class)
	if err != nil {
		return nil, err
	}
	drives, err := filepath.Glob(filepath.Join(class, "sr[0-9]*"))
	if err != nil {
		return nil, fmt.Errorf("list CD drives: %w", err)
	}
	for _, drive := range drives {
		// An empty drive, and a CD of another kind, have nothing for us.
		parts = append(parts, undivided(filepath.Base(drive), dev)...)
	}
	return parts, nil
}

func undivided(name, dev string) []Partition {
	f, err := os.Open(filepath.Join(dev, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	t, err := ReadTable(f, layout.SectorSize, primaryLBA) // as the image has it, whatever the drive's
	if err != nil {
		return nil
	}
	var out []Partition
	for i, e := range t.Entries {
		if e.Used() && strings.HasPrefix(e.Name, layout.LabelPrefix) {
			out = append(out, Partition{
				Name: name, Disk: name, Number: i + 1, Label: e.Name, Start: e.First * t.Sector, Size: e.Sectors() * t.Sector, Undivided: true,
			})
		}
	}
	return out
}
