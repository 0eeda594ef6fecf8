package datadisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func (c Config) node(name string) string { return filepath.Join(c.Dev, name) }

func (c Config) sys(name string) string { return filepath.Join(c.Sys, "class/block", name) }

// errAbsent says that no device is what a document names.
var errAbsent = errors.New("is not there")

// await finds a device, and waits for it within bounds.
func (c Config) await(ctx context.Context, spec string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, appear)
	defer cancel()
	for {
		name, err := c.find(spec)
		if !errors.Is(err, errAbsent) || c.NextDevice == nil {
			return name, err
		}
		if c.NextDevice(ctx) != nil {
			return "", err
		}
	}
}

// find resolves /dev/NAME, LABEL=, UUID=, PARTLABEL= and the folders of
// /dev/disk, which udev makes elsewhere.
func (c Config) find(spec string) (string, error) {
	key, value, _ := strings.Cut(spec, "=")
	if rest, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok {
		key, value, _ = strings.Cut(rest, "/")
		key = strings.ToUpper(key)
	}
	if value == "" {
		name := strings.TrimPrefix(spec, "/dev/")
		if _, err := os.Stat(c.sys(name)); err != nil || strings.Contains(name, "/") {
			return "", fmt.Errorf("%s %w", spec, errAbsent)
		}
		return name, nil
	}
	entries, err := os.ReadDir(filepath.Join(c.Sys, "class/block"))
	if err != nil {
		return "", fmt.Errorf("list block devices: %w", err)
	}
	var found []string
	for _, e := range entries {
		if c.fits(e.Name(), key, value) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%s %w", spec, errAbsent)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%s is more than one device: %s", spec, strings.Join(found, ", "))
}

func (c Config) fits(name, key, value string) bool {
	switch key {
	case "PARTLABEL":
		b, _ := os.ReadFile(filepath.Join(c.sys(name), "uevent"))
		return bytes.Contains(append(b, '\n'), []byte("\nPARTNAME="+value+"\n"))
	case "ID": // its end is the serial number, as virtio, SCSI and NVMe show it
		if _, err := os.Stat(filepath.Join(c.sys(name), "partition")); err == nil {
			return false
		}
		for _, file := range []string{"serial", "device/serial"} {
			b, _ := os.ReadFile(filepath.Join(c.sys(name), file))
			if serial := strings.TrimSpace(string(b)); len(serial) >= 3 && (value == serial || strings.HasSuffix(value, "-"+serial) || strings.HasSuffix(value, "_"+serial)) {
				return true
			}
		}
		return false
	case "LABEL", "UUID":
		f, err := os.Open(c.node(name))
		if err != nil {
			return false
		}
		defer f.Close()
		have := probe(f)
		return key == "LABEL" && have.label == value || key == "UUID" && strings.EqualFold(have.uuid, value) && value != ""
	}
	return false
}

// content is what a device holds.
type content struct{ fstype, label, uuid string }

// probe reads superblocks: ext4's (Linux Documentation/filesystems/ext4), xfs'
// (xfs_dsb of fs/xfs/libxfs/xfs_format.h) and FAT's boot sector.
func probe(r io.ReaderAt) content {
	b := make([]byte, 2048)
	if _, err := r.ReadAt(b, 0); err != nil {
		return content{}
	}
	text := func(s []byte) string { return strings.TrimRight(string(s), " \x00") }
	uuid := func(u []byte) string { return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16]) }
	switch le := binary.LittleEndian; {
	case le.Uint16(b[1024+0x38:]) == 0xef53:
		label, _, _ := bytes.Cut(b[1024+0x78:1024+0x88], []byte{0})
		return content{"ext4", string(label), uuid(b[1024+0x68:])}
	case string(b[:4]) == "XFSB":
		return content{"xfs", text(b[108:120]), uuid(b[32:])}
	case b[510] == 0x55 && b[511] == 0xaa && string(b[82:87]) == "FAT32":
		return content{"vfat", text(b[71:82]), fmt.Sprintf("%04X-%04X", le.Uint16(b[69:]), le.Uint16(b[67:]))}
	case b[510] == 0x55 && b[511] == 0xaa && string(b[54:57]) == "FAT":
		return content{"vfat", text(b[43:54]), fmt.Sprintf("%04X-%04X", le.Uint16(b[41:]), le.Uint16(b[39:]))}
	}
	return content{}
}

// mayWrite refuses the machine's own disk.
func (c Config) mayWrite(name string) error {
	real, err := filepath.EvalSymlinks(c.sys(name))
	if err != nil {
		return fmt.Errorf("%s %w", name, errAbsent)
	}
	if name == c.System || filepath.Base(filepath.Dir(real)) == c.System {
		return fmt.Errorf("%s is of the disk that the machine runs from, which is not for data", name)
	}
	return nil
}
