// Package uki assembles a unified kernel image: systemd's EFI stub with the
// kernel, the initramfs and the kernel command line as sections behind it,
// one file for firmware to start and, later, one file to sign.
//
// It adds sections, changes the few header fields that count them and leaves
// the stub's symbols out; it never touches the stub's code and signs nothing. Stub and kernel come from
// Debian packages. Read takes an image apart again, for tests and for whoever
// wants to know what an image would boot.
//
// Format: UAPI group, unified_kernel_image.md; Microsoft PE/COFF.
package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Parts is what a unified kernel image is made of.
type Parts struct {
	OSRelease []byte // os-release(5): systemd-boot takes the title from it
	Cmdline   string
	Uname     string // kernel release, as uname -r has it
	Initrd    []byte
	Linux     []byte
}

// pageSize is what the new sections' addresses are aligned to, whatever the
// stub says: firmware that protects memory does it by pages.
const pageSize = 4096

// sectorSize is what loaders count in.
const sectorSize = 512

// Build puts parts behind stub.
func Build(stub []byte, p Parts) ([]byte, error) {
	var out bytes.Buffer
	// One allocation: these are tens of megabytes.
	out.Grow(len(stub) + len(p.Initrd) + len(p.Linux) + 1<<16)
	err := Write(&out, stub, p, Stream{bytes.NewReader(p.Initrd), int64(len(p.Initrd))})
	return out.Bytes(), err
}

// Stream is content that is read once.
type Stream struct {
	Data io.Reader
	Size int64
}

// Write writes what Build makes, with an initramfs that may be too large to be held in memory in place of p.Initrd.
func Write(w io.Writer, stub []byte, p Parts, initrd Stream) error {
	h, err := parse(stub)
	if err != nil {
		return fmt.Errorf("uki: stub: %w", err)
	}
	added, err := sectionsOf(p, initrd)
	if err != nil {
		return fmt.Errorf("uki: %w", err)
	}
	for _, s := range h.sections {
		for _, a := range added {
			if s.name == a.name {
				return fmt.Errorf("uki: stub: section %s is there already", s.name)
			}
		}
	}
	room := (int(h.headersSize) - h.table) / sectionLen
	if len(h.sections)+len(added) > room {
		return fmt.Errorf("uki: stub: its headers have room for %d sections, %d are needed", room, len(h.sections)+len(added))
	}
	head, err := assemble(stub, h, added)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("uki: %w", err)
	}
	for _, s := range added {
		n, err := io.Copy(w, s.data)
		if err == nil && n != s.size {
			err = fmt.Errorf("%d bytes, want %d", n, s.size)
		}
		if err == nil {
			_, err = w.Write(make([]byte, int64(alignUp(uint32(s.size), h.fileAlign))-s.size))
		}
		if err != nil {
			return fmt.Errorf("uki: write section %s: %w", s.name, err)
		}
	}
	return nil
}

type newSection struct {
	name string
	data io.Reader
	size int64
}

// sectionsOf is the list in the order of the specification; the kernel comes
// last, so that what it grows by when it is unpacked in place hits nothing.
func sectionsOf(p Parts, initrd Stream) ([]newSection, error) {
	cmdline := strings.TrimSpace(p.Cmdline)
	held := func(name string, b []byte) newSection { return newSection{name, bytes.NewReader(b), int64(len(b))} }
	list := []newSection{
		held(".osrel", p.OSRelease), held(".cmdline", []byte(cmdline)), held(".uname", []byte(p.Uname)),
		{".initrd", initrd.Data, initrd.Size}, held(".linux", p.Linux),
	}
	for _, s := range list {
		if s.size <= 0 {
			return nil, fmt.Errorf("section %s is empty", s.name)
		}
		if s.size > 1<<30 {
			return nil, fmt.Errorf("section %s has %d bytes", s.name, s.size)
		}
	}
	// The stub turns the bytes into UTF-16 one by one, and the kernel keeps
	// 2047 of them (COMMAND_LINE_SIZE on x86 and arm64).
	for _, c := range []byte(cmdline) {
		if c < ' ' || c > '~' {
			return nil, fmt.Errorf("command line: byte %#x: want printable ASCII", c)
		}
	}
	if len(cmdline) > 2047 {
		return nil, fmt.Errorf("command line of %d bytes: the kernel keeps 2047", len(cmdline))
	}
	return list, nil
}

// assemble is the image up to the first of the added sections.
func assemble(stub []byte, h header, added []newSection) ([]byte, error) {
	le := binary.LittleEndian
	vaddr, end := h.headersSize, h.headersSize
	for _, s := range h.sections {
		vaddr = max(vaddr, s.vaddr+max(s.vsize, s.rawSize))
		if s.rawSize > 0 {
			end = max(end, s.offset+s.rawSize)
		}
	}
	// The linker's symbols behind the last section stay behind: they would
	// become a gap between sections, which a signature does not cover.
	stub = stub[:end]
	size := alignUp(end, h.fileAlign)
	total := uint64(size)
	for _, s := range added {
		total += uint64(alignUp(uint32(s.size), h.fileAlign))
	}
	if total > 1<<31 {
		return nil, errors.New("uki: the image would pass 2 GiB")
	}
	out := make([]byte, size)
	copy(out, stub)
	at, initialized := size, le.Uint32(stub[h.opt+optInitialized:])
	for i, s := range added {
		vaddr = alignUp(vaddr, pageSize)
		raw := alignUp(uint32(s.size), h.fileAlign)
		e := out[h.table+(len(h.sections)+i)*sectionLen:][:sectionLen]
		clear(e)
		copy(e, s.name)
		le.PutUint32(e[8:], uint32(s.size))
		le.PutUint32(e[12:], vaddr)
		le.PutUint32(e[16:], raw)
		le.PutUint32(e[20:], at)
		le.PutUint32(e[36:], sectionReadData)
		at, vaddr, initialized = at+raw, vaddr+uint32(s.size), initialized+raw
	}
	le.PutUint16(out[h.coff+coffSections:], uint16(len(h.sections)+len(added)))
	le.PutUint32(out[h.opt+optInitialized:], initialized)
	le.PutUint32(out[h.opt+optImageSize:], alignUp(vaddr, max(h.sectionAlign, pageSize)))
	clear(out[h.coff+coffSymbols : h.coff+coffOptSize])
	// EFI firmware ignores the checksum, and a signature must leave it out.
	le.PutUint32(out[h.opt+optChecksum:], 0)
	return out, nil
}

// Extent is a range of sectors of an image's file.
type Extent struct{ First, Count int64 }

// Locate says where the kernel and the initramfs stand in an image, for a loader that reads them without the image's own code.
// Both are whole sectors: zeros fill the last one, which the kernel passes over behind an initramfs.
func Locate(b []byte) (linux, initrd Extent, err error) {
	h, err := parse(b)
	if err != nil {
		return linux, initrd, fmt.Errorf("uki: %w", err)
	}
	for name, to := range map[string]*Extent{".linux": &linux, ".initrd": &initrd} {
		for _, s := range h.sections {
			if s.name == name && s.offset%sectorSize == 0 && s.rawSize%sectorSize == 0 {
				*to = Extent{int64(s.offset / sectorSize), int64(s.rawSize / sectorSize)}
			}
		}
		if to.Count == 0 {
			return linux, initrd, fmt.Errorf("uki: no section %s in whole sectors", name)
		}
	}
	return linux, initrd, nil
}

// Read takes an image apart. The slices point into b.
func Read(b []byte) (Parts, error) {
	h, err := parse(b)
	if err != nil {
		return Parts{}, fmt.Errorf("uki: %w", err)
	}
	var p Parts
	var missing []string
	get := func(name string) []byte {
		for _, s := range h.sections {
			if s.name == name {
				return b[s.offset:][:min(s.vsize, s.rawSize)]
			}
		}
		missing = append(missing, name)
		return nil
	}
	p.OSRelease, p.Cmdline, p.Uname = get(".osrel"), string(get(".cmdline")), string(get(".uname"))
	p.Initrd, p.Linux = get(".initrd"), get(".linux")
	if len(missing) > 0 {
		return Parts{}, fmt.Errorf("uki: no section %s", strings.Join(missing, ", "))
	}
	return p, nil
}
