// Package bootentry tells UEFI firmware to start a disk before all else: a load option of its own, first in the boot order
// and the one for the next start.
//
// The variables are the files of an efivarfs (Linux, Documentation/filesystems/efivarfs.rst), each four bytes of attributes
// and then the value; formats are those of the UEFI Specification 2.10, 3.1 and 10.3. Package main of init calls it at the
// end of an installation, with what package install has written. It never removes another system's option, and changes
// nothing that is as it should be: firmware keeps its variables in flash.
package bootentry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	description = "Keelson" // by which a machine's option is known; it has one
	global      = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// Non-volatile, for boot services and for the running system (UEFI 2.10, 8.2).
	attributes = 0x7
	active     = 0x1 // of a load option: LOAD_OPTION_ACTIVE
	numbers    = 1 << 16
)

// Loader is what is started: a program in a partition of a GPT.
type Loader struct {
	Partition      uint32   // its number, from 1
	Start, Sectors uint64   // in sectors of the disk
	ID             [16]byte // the partition's own, as the table has it
	Path           string   // "/EFI/BOOT/BOOTX64.EFI"
}

// Fallback is where firmware looks in a medium by itself (UEFI 2.10, 3.5.1.1), for an architecture as Go names it.
func Fallback(arch string) string {
	if arch == "arm64" {
		return "/EFI/BOOT/BOOTAA64.EFI"
	}
	return "/EFI/BOOT/BOOTX64.EFI"
}

// Ensure has the firmware start the loader next, and from then on first. Dir is a writable efivarfs.
func Ensure(dir string, l Loader) error {
	order, err := readOrder(dir)
	if err != nil {
		return err
	}
	number, err := place(dir, order)
	if err != nil {
		return err
	}
	if err := ensure(dir, fmt.Sprintf("Boot%04X", number), Render(l)); err != nil {
		return err
	}
	order = slices.DeleteFunc(order, func(n uint16) bool { return n == number })
	var all, one []byte
	for _, n := range append([]uint16{number}, order...) {
		all = binary.LittleEndian.AppendUint16(all, n)
	}
	one = binary.LittleEndian.AppendUint16(one, number)
	// The next start comes last: it holds where a firmware keeps an order of its own.
	if err := ensure(dir, "BootOrder", all); err != nil {
		return err
	}
	return ensure(dir, "BootNext", one)
}

// Render makes a load option (UEFI 2.10, 3.1.3) whose device path begins with the partition, the short form that firmware
// finds on whatever bus the disk is (3.1.2).
func Render(l Loader) []byte {
	path := node(4, 1, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(
		binary.LittleEndian.AppendUint32(nil, l.Partition), l.Start), l.Sectors), l.ID[:], []byte{2, 2}) // a GPT, and its GUID
	path = append(path, node(4, 4, text(strings.ReplaceAll(l.Path, "/", `\`)))...)
	path = append(path, node(0x7f, 0xff)...) // the end
	option := binary.LittleEndian.AppendUint32(nil, active)
	option = binary.LittleEndian.AppendUint16(option, uint16(len(path)))
	return append(append(option, text(description)...), path...)
}

// node is one of a device path (UEFI 2.10, 10.3.1).
func node(kind, sub byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	return append(binary.LittleEndian.AppendUint16([]byte{kind, sub}, uint16(4+len(content))), content...)
}

// text is UCS-2 with a zero at its end.
func text(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// place is the number of the machine's option: that of the one it has, or else the first that is free.
func place(dir string, order []uint16) (uint16, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("read the firmware's variables: %w", err)
	}
	taken := map[uint16]bool{}
	for _, n := range order {
		taken[n] = true // a number without an option is some firmware's own
	}
	for _, f := range files {
		n, ok := number(f.Name())
		if !ok {
			continue
		}
		taken[n] = true
		value, err := read(dir, strings.TrimSuffix(f.Name(), "-"+global))
		if err != nil {
			return 0, err
		}
		if ours(value) {
			return n, nil
		}
	}
	for n := range numbers {
		if !taken[uint16(n)] {
			return uint16(n), nil
		}
	}
	return 0, errors.New("the firmware has no room for another boot entry: remove one in its settings")
}

// number is that of a load option's file, "Boot0001-<global>".
func number(file string) (uint16, bool) {
	digits, ok := strings.CutPrefix(strings.TrimSuffix(file, "-"+global), "Boot")
	if !ok || len(digits) != 4 || !strings.HasSuffix(file, "-"+global) {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 16)
	return uint16(n), err == nil
}

// ours says whether a load option is one that this package has made.
func ours(option []byte) bool {
	const head = 6
	return len(option) > head && bytes.HasPrefix(option[head:], text(description))
}

func readOrder(dir string) ([]uint16, error) {
	value, err := read(dir, "BootOrder")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var order []uint16
	for ; len(value) > 1; value = value[2:] {
		order = append(order, binary.LittleEndian.Uint16(value))
	}
	return order, nil
}

func path(dir, name string) string { return filepath.Join(dir, name+"-"+global) }

func read(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(path(dir, name))
	if err != nil {
		return nil, fmt.Errorf("read the firmware's %s: %w", name, err)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("read the firmware's %s: %d bytes, want 4 of attributes and a value", name, len(b))
	}
	return b[4:], nil
}

// ensure writes a variable, by one call as efivarfs wants it, where it is another.
func ensure(dir, name string, value []byte) error {
	if old, err := read(dir, name); err == nil && bytes.Equal(old, value) {
		return nil
	}
	f, err := os.OpenFile(path(dir, name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("write the firmware's %s: %w", name, err)
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), value...))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the firmware's %s: %w", name, err)
	}
	return nil
}
