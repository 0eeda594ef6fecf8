// Package iso makes the ISO 9660 volume that turns a disk image into one that starts from a CD as well.
//
// The image is a disk first: boot code, GPT and partitions, as package disk writes them. ISO 9660 leaves the first 32 KiB of
// a medium to others and names its files by sector, so the volume fits between the partition table and the first partition,
// and its files are partitions and small texts. El Torito names what firmware starts from a CD: GRUB for BIOS, the EFI system
// partition for UEFI. Render makes bytes; it never opens a file, and the same volume gives the same bytes.
//
// Formats: ECMA-119 (ISO 9660), "El Torito" bootable CD-ROM format specification 1.0, UEFI 2.10 section 13.3.2.1, and the
// boot information table of mkisofs (isolinux and GRUB's cdboot.img read it).
package iso

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Sector is the size of ISO 9660's sectors and blocks.
const Sector = 2048

// Start is where the volume begins on the medium.
const Start = 16 * Sector

// The sectors of the volume before its files.
const (
	primaryAt    = 16
	bootRecordAt = 17
	terminatorAt = 18
	catalogAt    = 19
	tableLittle  = 20
	tableBig     = 21
	rootAt       = 22
	filesAt      = 23
)

// File is one file of the volume's root directory: bytes of its own, or an extent of the medium.
type File struct {
	Name   string // upper case letters, digits and _, with one dot: README.TXT
	Data   []byte
	Offset int64 // of the extent, where Data is nil; a multiple of Sector
	Size   int64
}

// Volume is what is rendered.
type Volume struct {
	Label  string // up to 32 of A-Z, 0-9 and _
	Time   time.Time
	Size   int64 // of the whole medium
	Files  []File
	BIOS   []byte // loaded and started by BIOS firmware; nil: none
	EFI    int64  // where the EFI system partition begins
	EFILen int64
}

// Render makes the volume's bytes, which belong at Start of the medium. They must not reach limit.
func Render(v Volume, limit int64) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("iso: %w", err)
	}
	out := make([]byte, (filesAt-primaryAt)*Sector)
	put := func(data []byte) int64 {
		at := Start + int64(len(out))
		out = append(out, data...)
		out = append(out, make([]byte, (Sector-len(data)%Sector)%Sector)...)
		return at
	}
	files := slices.Clone(v.Files)
	bios := int64(0)
	if v.BIOS != nil {
		loader := Loaded(v.BIOS)
		bios = put(loader)
		// Readers that look for the size of what firmware starts find it here.
		files = append(files, File{Name: "BIOS.IMG", Offset: bios, Size: int64(len(loader))})
	}
	for i, f := range files {
		if f.Data != nil {
			files[i].Offset, files[i].Size = put(f.Data), int64(len(f.Data))
		}
	}
	if end := Start + int64(len(out)); end > limit {
		return nil, fmt.Errorf("iso: the volume takes %d bytes: the first partition begins at %d", end, limit)
	}
	root, err := directory(files, v.Time)
	if err != nil {
		return nil, fmt.Errorf("iso: %w", err)
	}
	for sector, data := range map[int][]byte{
		primaryAt: v.primary(), bootRecordAt: bootRecord(), terminatorAt: terminator(), catalogAt: v.catalog(bios),
		tableLittle: pathTable(binary.LittleEndian), tableBig: pathTable(binary.BigEndian), rootAt: root,
	} {
		copy(out[(sector-primaryAt)*Sector:], data)
	}
	return out, nil
}

func (v Volume) check() error {
	if !regexp.MustCompile(`^[A-Z0-9_]{1,32}$`).MatchString(v.Label) {
		return fmt.Errorf("label %q: want 1 to 32 of A-Z, 0-9 and _", v.Label)
	}
	if y := v.Time.UTC().Year(); y < 1900 || y > 2155 {
		return fmt.Errorf("time %v: ISO 9660 holds 1900 to 2155", v.Time)
	}
	if v.Size <= 0 || v.Size%Sector != 0 || v.Size/Sector > 1<<32-1 {
		return fmt.Errorf("size %d: want whole sectors of %d bytes", v.Size, Sector)
	}
	if v.EFI%Sector != 0 || v.EFI <= 0 || v.EFILen <= 0 || v.EFI+v.EFILen > v.Size {
		return fmt.Errorf("EFI system partition at %d of %d bytes: not on the medium", v.EFI, v.EFILen)
	}
	names := map[string]bool{}
	for _, f := range v.Files {
		if !regexp.MustCompile(`^[A-Z0-9_]{1,20}\.[A-Z0-9_]{1,9}$`).MatchString(f.Name) {
			return fmt.Errorf("file %q: want a name like README.TXT", f.Name)
		}
		if names[f.Name] {
			return fmt.Errorf("file %s is there twice", f.Name)
		}
		names[f.Name] = true
		if f.Data == nil && (f.Offset%Sector != 0 || f.Offset <= 0 || f.Size <= 0 || f.Size >= 1<<32 || f.Offset+f.Size > v.Size) {
			return fmt.Errorf("file %s at %d of %d bytes: not on the medium", f.Name, f.Offset, f.Size)
		}
	}
	return nil
}

// both writes a number in both byte orders.
func both32(b []byte, n uint32) {
	binary.LittleEndian.PutUint32(b, n)
	binary.BigEndian.PutUint32(b[4:], n)
}

func both16(b []byte, n uint16) {
	binary.LittleEndian.PutUint16(b, n)
	binary.BigEndian.PutUint16(b[2:], n)
}

func padded(b []byte, s string, length int) {
	copy(b, s+strings.Repeat(" ", length-len(s)))
}

// primary is the primary volume descriptor (ECMA-119 8.4).
func (v Volume) primary() []byte {
	b := make([]byte, Sector)
	b[0] = 1
	copy(b[1:], "CD001\x01")
	padded(b[8:], "", 32)
	padded(b[40:], v.Label, 32)
	both32(b[80:], uint32(v.Size/Sector))
	both16(b[120:], 1) // one volume
	both16(b[124:], 1) // of one
	both16(b[128:], Sector)
	both32(b[132:], pathTableLen)
	binary.LittleEndian.PutUint32(b[140:], tableLittle)
	binary.BigEndian.PutUint32(b[148:], tableBig)
	copy(b[156:], record("\x00", rootAt*Sector, Sector, true, v.Time))
	padded(b[190:], "", 128) // volume set
	padded(b[318:], "KEELSON", 128)
	padded(b[446:], "", 128)
	padded(b[574:], "KEELSON IMAGEBUILD", 128)
	padded(b[702:], "", 37*3)
	stamp := v.Time.UTC().Format("20060102150405") + "00\x00"
	copy(b[813:], stamp) // made
	copy(b[830:], stamp) // changed
	none := strings.Repeat("0", 16) + "\x00"
	copy(b[847:], none) // never expires
	copy(b[864:], none)
	b[881] = 1
	return b
}

// bootRecord points to the boot catalogue (El Torito 2.0).
func bootRecord() []byte {
	b := make([]byte, Sector)
	copy(b[1:], "CD001\x01")
	copy(b[7:], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], catalogAt)
	return b
}

func terminator() []byte {
	b := make([]byte, Sector)
	b[0] = 255
	copy(b[1:], "CD001\x01")
	return b
}

const pathTableLen = 10

// pathTable holds the root alone (ECMA-119 9.4).
func pathTable(order binary.ByteOrder) []byte {
	b := make([]byte, Sector)
	b[0] = 1
	order.PutUint32(b[2:], rootAt)
	order.PutUint16(b[6:], 1)
	return b
}

// directory is the root directory (ECMA-119 9.1): one sector.
func directory(files []File, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	out.Write(record("\x00", rootAt*Sector, Sector, true, at))
	out.Write(record("\x01", rootAt*Sector, Sector, true, at))
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range files {
		out.Write(record(f.Name+";1", f.Offset, f.Size, false, at))
	}
	if out.Len() > Sector {
		return nil, fmt.Errorf("%d files do not fit one directory sector", len(files))
	}
	return out.Bytes(), nil
}

func record(name string, offset, size int64, dir bool, at time.Time) []byte {
	length := 33 + len(name)
	length += length % 2
	b := make([]byte, length)
	b[0] = byte(length)
	both32(b[2:], uint32(offset/Sector))
	both32(b[10:], uint32(size))
	at = at.UTC()
	copy(b[18:], []byte{byte(at.Year() - 1900), byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()), 0})
	if dir {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	return b
}
