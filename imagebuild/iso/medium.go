package iso

import (
	"fmt"
	"time"
)

// Medium is what is particular about one medium of Keelson.
type Medium struct {
	Version string
	Time    time.Time
	Size    int64
	BIOS    []byte // as in Volume
	EFI     int64
	EFILen  int64
	Root    int64 // where the root begins
	RootLen int64
}

// Volume is the medium's.
func (m Medium) Volume() Volume {
	return Volume{
		Label: "KEELSON", Time: m.Time, Size: m.Size, BIOS: m.BIOS, EFI: m.EFI, EFILen: m.EFILen,
		Files: []File{
			{Name: "README.TXT", Data: readme(m.Version)},
			{Name: "EFI.IMG", Offset: m.EFI, Size: m.EFILen},
			{Name: "ROOT.EROFS", Offset: m.Root, Size: m.RootLen},
		},
	}
}

// readme is for who opens the medium on another system.
func readme(version string) []byte {
	return fmt.Appendf(nil, `Keelson %s: an operating system that is one Kubernetes node.

Start a machine from this CD, or write the whole file to a USB stick. It runs
from the medium and writes nothing to it; its state is in memory, unless a disk
of the machine has a partition KEELSON-STATE. The stick's second partition takes
user-data in the folder /keelson: user-data, meta-data, vendor-data,
network-config. With the key install in its user-data the medium installs itself
to a disk.
`, version)
}
