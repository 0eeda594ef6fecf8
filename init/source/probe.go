package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/init/layout"
)

// FindVolumes looks at every block device of a /sys/class/block for the label of
// NoCloud or of a ConfigDrive, and on Azure for a CD, whose label says nothing.
// Devices without a medium are passed over. It reads a few sectors of each
// device and interprets nothing else of them.
func FindVolumes(sys string, cds bool) ([]Volume, error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var out []Volume
	for _, e := range entries {
		name := e.Name()
		if quiet(name) {
			continue
		}
		device := "/dev/" + strings.ReplaceAll(name, "!", "/")
		f, err := os.Open(device)
		if err != nil {
			continue // an empty drive, or a device that just went away
		}
		fstype, label := Probe(f)
		f.Close()
		isCD := cds && strings.HasPrefix(name, "sr") && (fstype == "udf" || fstype == "iso9660")
		if slices.Contains(layout.NoCloudLabels(), label) || isConfigDrive(label) || isCD {
			out = append(out, Volume{Device: device, FSType: fstype, Label: label})
		}
	}
	return parents(sys, out), nil
}

// isConfigDrive knows the label of OpenStack's volume, as ISO 9660 or as FAT.
func isConfigDrive(label string) bool { return strings.EqualFold(label, "config-2") }

// quiet names devices that never carry a seed.
func quiet(name string) bool {
	for _, prefix := range []string{"dm-", "ram", "zram", "fd", "nbd", "md"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// parents leaves out partitions whose whole disk is a volume already: a hybrid
// ISO shows the same file system twice.
func parents(sys string, volumes []Volume) []Volume {
	whole := map[string]bool{}
	for _, v := range volumes {
		whole[filepath.Base(v.Device)] = true
	}
	return slices.DeleteFunc(volumes, func(v Volume) bool {
		link, err := filepath.EvalSymlinks(filepath.Join(sys, filepath.Base(v.Device)))
		return err == nil && whole[filepath.Base(filepath.Dir(link))]
	})
}

// Probe reads type and label of a FAT or ISO 9660 file system, and knows UDF;
// empty for others. ISO: ECMA-119 8.4, the primary volume descriptor in sector 16. FAT:
// Microsoft's specification 3.1 to 3.3, the volume label of the boot sector.
func Probe(r io.ReaderAt) (fstype, label string) {
	var boot [512]byte
	if _, err := r.ReadAt(boot[:], 0); err == nil && boot[510] == 0x55 && boot[511] == 0xaa {
		if label, ok := fatLabel(boot[:]); ok {
			return "vfat", label
		}
	}
	var pvd [2048]byte
	_, err := r.ReadAt(pvd[:], 16*2048)
	if (err == nil || errors.Is(err, io.EOF)) && pvd[0] == 1 && string(pvd[1:6]) == "CD001" {
		return "iso9660", text(pvd[40:72])
	}
	// ECMA-167 part 2, 8.3: descriptors from sector 16 on, one of them NSR.
	for sector := int64(16); sector < 24; sector++ {
		if _, err := r.ReadAt(pvd[:], sector*2048); err != nil && !errors.Is(err, io.EOF) {
			break
		}
		switch id := string(pvd[1:6]); {
		case id == "NSR02" || id == "NSR03":
			return "udf", ""
		case id != "BEA01" && id != "CD001" && id != "BOOT2":
			return "", ""
		}
	}
	return "", ""
}

func fatLabel(boot []byte) (string, bool) {
	sector := binary.LittleEndian.Uint16(boot[11:])
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || boot[13] == 0 || boot[16] == 0 {
		return "", false
	}
	at := 38 // FAT12 and FAT16: extended boot signature, then serial and label
	if binary.LittleEndian.Uint16(boot[22:]) == 0 {
		at = 66 // FAT32
	}
	if boot[at] != 0x29 {
		return "", false
	}
	return text(boot[at+5 : at+16]), true
}

func text(b []byte) string { return string(bytes.TrimRight(b, " \x00")) }
