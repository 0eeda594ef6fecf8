// Package dmi reads who made the machine, and what it calls itself, from the
// SMBIOS tables that the kernel shows in /sys.
//
// Package source chooses the cloud's metadata by it, so that no network has to
// be probed. The package never fails: a machine without SMBIOS has an empty
// Identity.
package dmi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// DefaultSys is where the kernel shows the tables (Linux
// Documentation/ABI/testing/sysfs-class-dmi and sysfs-firmware-dmi-tables).
const DefaultSys = "/sys"

// Identity is what the firmware or the hypervisor says.
type Identity struct {
	SystemVendor  string
	ProductName   string
	ProductSerial string
	ProductUUID   string
	BIOSVersion   string
	ChassisTag    string   // asset tag of the chassis
	OEM           []string // SMBIOS type 11, free text of whoever started the machine

	values map[string]string
}

// names ties the words of dmidecode(8), which cloud-init uses in addresses, to
// the kernel's files.
func names() map[string]string {
	return map[string]string{
		"baseboard-asset-tag": "board_asset_tag", "baseboard-manufacturer": "board_vendor",
		"baseboard-product-name": "board_name", "baseboard-serial-number": "board_serial",
		"baseboard-version": "board_version", "bios-release-date": "bios_date", "bios-vendor": "bios_vendor",
		"bios-version": "bios_version", "chassis-asset-tag": "chassis_asset_tag",
		"chassis-manufacturer": "chassis_vendor", "chassis-serial-number": "chassis_serial",
		"chassis-version": "chassis_version", "system-manufacturer": "sys_vendor",
		"system-product-name": "product_name", "system-serial-number": "product_serial",
		"system-uuid": "product_uuid", "system-version": "product_version",
	}
}

// maxTable bounds what is read of the tables; SMBIOS 3 tables of large servers
// have some 20 KiB.
const maxTable = 1 << 20

// Load reads the identity from a /sys.
func Load(sys string) Identity {
	id := Identity{values: map[string]string{}}
	for word, file := range names() {
		if b, err := os.ReadFile(filepath.Join(sys, "class/dmi/id", file)); err == nil {
			id.values[word] = strings.TrimSpace(string(b))
		}
	}
	id.SystemVendor, id.ProductName = id.values["system-manufacturer"], id.values["system-product-name"]
	id.ProductSerial, id.ProductUUID = id.values["system-serial-number"], id.values["system-uuid"]
	id.BIOSVersion, id.ChassisTag = id.values["bios-version"], id.values["chassis-asset-tag"]
	if table, err := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/DMI")); err == nil {
		id.OEM = OEMStrings(table[:min(len(table), maxTable)])
	}
	return id
}

// Value returns what dmidecode -s word prints.
func (id Identity) Value(word string) (value string, known bool) {
	if _, known = names()[word]; !known {
		return "", false
	}
	return id.values[word], true
}

// OEMStrings finds the texts of type 11 in a table of structures: type, length
// of the formatted part, handle, the rest of that part, and texts that each end
// with a zero byte, the last with two (DMTF DSP0134, 6.1 and 7.12).
func OEMStrings(table []byte) (out []string) {
	const header, oem, end = 4, 11, 127
	for len(table) >= header {
		kind, size := table[0], int(table[1])
		if size < header || size > len(table) || kind == end {
			return out
		}
		texts, rest, whole := bytes.Cut(table[size:], []byte{0, 0})
		if kind == oem {
			for s := range bytes.SplitSeq(texts, []byte{0}) {
				if len(s) > 0 {
					out = append(out, string(s))
				}
			}
		}
		if !whole {
			return out
		}
		table = rest
	}
	return out
}
