package install

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Disk is what the kernel says of one.
type Disk struct {
	Name       string // vda
	Size       int64
	Sector     int64 // bytes
	Model      string
	Serial     string
	WWN        string // without what says of which kind it is
	Namespace  string // its number in an NVMe controller; "" for another disk
	Transport  string // ata, mmc, nvme, sas, scsi, usb or virtio; "" for another
	Rotational bool
	ReadOnly   bool
}

// Path is its node.
func (d Disk) Path() string { return "/dev/" + d.Name }

// String is how people tell it from others.
func (d Disk) String() string {
	words := []string{Bytes(d.Size)}
	for _, w := range []struct{ name, value string }{{"", d.Transport}, {"", d.Model}, {"serial ", d.Serial}, {"wwn ", d.WWN}} {
		if w.value != "" {
			words = append(words, w.name+w.value)
		}
	}
	return fmt.Sprintf("%s (%s)", d.Path(), strings.Join(words, ", "))
}

// Bytes writes a size as makers of disks do.
func Bytes(n int64) string {
	unit, names := int64(1e6), []string{"MB", "GB", "TB", "PB"}
	for len(names) > 1 && n >= unit*1000 {
		unit, names = unit*1000, names[1:]
	}
	return strconv.FormatFloat(float64(n)/float64(unit), 'f', 1, 64) + " " + names[0]
}

// diskName is of whole disks that a system may be on: no CD drive, loop device, RAM disk, or hidden part of a disk.
var diskName = regexp.MustCompile(`^(sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+)$`)

// Scan lists the disks of a /sys, in the order of their names.
func Scan(sys string) ([]Disk, error) {
	class := filepath.Join(sys, "class/block")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var out []Disk
	for _, e := range entries {
		if !diskName.MatchString(e.Name()) {
			continue
		}
		if d := read(filepath.Join(class, e.Name())); d.Size > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// read takes what is there; attributes differ from driver to driver.
func read(dir string) Disk {
	text := func(names ...string) string {
		for _, name := range names {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				if s := clean(b); s != "" {
					return s
				}
			}
		}
		return ""
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(text(name), 10, 54)
		if err != nil {
			return 0
		}
		return n
	}
	// sysfs counts in sectors of 512 bytes whatever the disk has.
	d := Disk{
		Name: filepath.Base(dir), Size: number("size") * 512, Sector: number("queue/logical_block_size"),
		Model: text("device/model", "device/name"), Serial: text("serial", "device/serial"), WWN: bareWWN(text("wwid", "device/wwid")),
		Rotational: number("queue/rotational") == 1, ReadOnly: number("ro") == 1,
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	d.Transport = transport(d.Name, real)
	if d.Transport == "nvme" {
		d.Namespace = text("nsid")
	}
	// The unit serial number as SCSI disks, and ATA disks by way of libata, give it (SPC-4, 7.8.15).
	if b, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80")); err == nil && len(b) > 4 {
		d.Serial = clean(b[4:])
	}
	if d.Transport == "usb" {
		d.Serial = usbSerial(real, d.Serial)
	}
	return d
}

func clean(b []byte) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(b))), " ")
}

// transport tells by the name and by the devices that the disk hangs on.
func transport(name, real string) string {
	switch {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case strings.HasPrefix(name, "vd"):
		return "virtio"
	case !strings.HasPrefix(name, "sd"):
		return ""
	}
	for _, t := range []struct{ part, transport string }{{"/usb", "usb"}, {"/ata", "ata"}, {"/end_device-", "sas"}} {
		if strings.Contains(real, t.part) {
			return t.transport
		}
	}
	return "scsi"
}

// usbSerial is the stick's own: what it answers as a SCSI disk is the same for many.
func usbSerial(real, serial string) string {
	for dir := real; strings.Contains(dir, "/usb"); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "idVendor")); err != nil {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, "serial")); err == nil {
			return clean(b)
		}
		break
	}
	return serial
}

// bareWWN drops what goes before the number in the kernel's and in udev's form.
func bareWWN(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, prefix := range []string{"naa.", "eui.", "uuid.", "wwn-", "0x"} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}
