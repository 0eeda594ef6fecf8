// Package grub makes what boots the disk on BIOS firmware: GRUB's core image
// for the BIOS boot partition, the boot code for the MBR, and grub.cfg.
//
// It does what grub-mkimage and grub-bios-setup do for platform i386-pc, from
// the files of Debian's grub-pc-bin and without running them: the kernel, the
// modules and the place of grub.cfg are packed with LZMA behind a small
// decompressor, and that behind the sector that loads it all. It never writes
// to a disk; package disk puts the results in their places.
//
// Formats: GRUB 2.06, util/mkimage.c, util/grub-install-common.c,
// util/setup.c, include/grub/{kernel,offsets}.h and i386/pc/boot.h.
package grub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ulikunitz/xz/lzma"
)

const (
	sectorSize = 512
	cdSector   = 2048
)

// Offsets and values of include/grub/offsets.h and kernel.h.
const (
	decompressedSizeAt = 0x0c       // GRUB_DECOMPRESSOR_I386_PC_UNCOMPRESSED_SIZE
	compressedSizeAt   = 0x08       // GRUB_DECOMPRESSOR_I386_PC_COMPRESSED_SIZE
	maxDecompressor    = 0xe00      // GRUB_DECOMPRESSOR_I386_PC_MAX_DECOMPRESSOR_SIZE: 0x9000 - 0x8200
	moduleMagic        = 0x676d696d // GRUB_MODULE_MAGIC, "mimg"
	objELF             = 0          // OBJ_TYPE_ELF
	objPrefix          = 3          // OBJ_TYPE_PREFIX
	blocklistAt        = sectorSize - 12
	loadSegment        = 0x820   // the second sector goes to 0x8200
	maxCoreSize        = 0x78000 // GRUB_MEMORY_MACHINE_UPPER_START: below the EBDA
)

// Modules is what the core image carries: disk, partition table, file
// system, files as disks, the Linux loader, and what grub.cfg and a person at
// the prompt use.
// Their dependencies come from moddep.lst.
func Modules() []string {
	return []string{"biosdisk", "part_gpt", "fat", "loopback", "normal", "linux", "serial", "test", "echo", "ls", "reboot", "halt"}
}

// Core is what Build makes for one position on a disk.
type Core struct {
	Boot  []byte // 440 bytes for the beginning of the MBR
	Image []byte // whole sectors for the BIOS boot partition
	CD    []byte // the same as Image for firmware that starts a CD (El Torito, no emulation)
}

// Build makes the core image that stands at sector lba of the disk. dir holds
// GRUB's i386-pc files; grub.cfg is looked for in the directory prefix of
// partition number part of the disk that was booted from, whatever other
// disks there are.
func Build(dir fs.FS, lba uint64, part int, prefix string) (Core, error) {
	boot, err := bootSector(dir, lba)
	if err != nil {
		return Core{}, fmt.Errorf("grub: %w", err)
	}
	img, err := coreImage(dir, lba, fmt.Sprintf("(,gpt%d)%s", part, prefix))
	if err != nil {
		return Core{}, fmt.Errorf("grub: %w", err)
	}
	// cdboot.img loads what follows it to 0x8000 and enters it at 0x8200, behind diskboot.img.
	cd, err := fs.ReadFile(dir, "cdboot.img")
	if err != nil {
		return Core{}, fmt.Errorf("grub: %w", err)
	}
	if len(cd) != cdSector {
		return Core{}, fmt.Errorf("grub: cdboot.img: %d bytes, want one sector of a CD", len(cd))
	}
	return Core{Boot: boot, Image: img, CD: append(cd, img...)}, nil
}

// bootSector is boot.img told where the core image is (setup.c).
func bootSector(dir fs.FS, lba uint64) ([]byte, error) {
	b, err := readSector(dir, "boot.img")
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(b[0x5c:], lba) // GRUB_BOOT_MACHINE_KERNEL_SECTOR
	// GRUB_BOOT_MACHINE_DRIVE_CHECK: two nops instead of a jump switch the
	// check on that repairs the drive number of some BIOSes for hard disks.
	b[0x66], b[0x67] = 0x90, 0x90
	// What follows is the disk signature and the partition table.
	return b[:440], nil
}

func coreImage(dir fs.FS, lba uint64, prefix string) ([]byte, error) {
	payload, err := payload(dir, prefix)
	if err != nil {
		return nil, err
	}
	packed, err := compress(payload)
	if err != nil {
		return nil, err
	}
	dec, err := fs.ReadFile(dir, "lzma_decompress.img")
	if err != nil {
		return nil, err
	}
	if len(dec) < decompressedSizeAt+4 || len(dec) > maxDecompressor {
		return nil, fmt.Errorf("lzma_decompress.img: %d bytes", len(dec))
	}
	binary.LittleEndian.PutUint32(dec[compressedSizeAt:], uint32(len(packed)))
	binary.LittleEndian.PutUint32(dec[decompressedSizeAt:], uint32(len(payload)))
	first, err := readSector(dir, "diskboot.img")
	if err != nil {
		return nil, err
	}
	rest := append(dec, packed...)
	sectors := (len(rest) + sectorSize - 1) / sectorSize
	if len(rest) > maxCoreSize {
		return nil, fmt.Errorf("core image of %d bytes: at most %d can be loaded", len(rest), maxCoreSize)
	}
	// struct grub_pc_bios_boot_blocklist
	binary.LittleEndian.PutUint64(first[blocklistAt:], lba+1)
	binary.LittleEndian.PutUint16(first[blocklistAt+8:], uint16(sectors))
	binary.LittleEndian.PutUint16(first[blocklistAt+10:], loadSegment)
	out := make([]byte, (1+sectors)*sectorSize)
	copy(out, first)
	copy(out[sectorSize:], rest)
	return out, nil
}

// payload is kernel, module header, modules in the order they are needed,
// and the prefix.
func payload(dir fs.FS, prefix string) ([]byte, error) {
	kernel, err := fs.ReadFile(dir, "kernel.img")
	if err != nil {
		return nil, err
	}
	out, err := flatten(kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel.img: %w", err)
	}
	deps, err := fs.ReadFile(dir, "moddep.lst")
	if err != nil {
		return nil, err
	}
	order, err := closure(parseDeps(deps), Modules())
	if err != nil {
		return nil, fmt.Errorf("moddep.lst: %w", err)
	}
	var objs []byte
	for _, m := range order {
		b, err := fs.ReadFile(dir, m+".mod")
		if err != nil {
			return nil, err
		}
		objs = appendObject(objs, objELF, b)
	}
	objs = appendObject(objs, objPrefix, append([]byte(prefix), 0))
	// struct grub_module_info32
	out = binary.LittleEndian.AppendUint32(out, moduleMagic)
	out = binary.LittleEndian.AppendUint32(out, 12)
	out = binary.LittleEndian.AppendUint32(out, uint32(12+len(objs)))
	return append(out, objs...), nil
}

// appendObject adds struct grub_module_header and b, padded to 4 bytes.
func appendObject(out []byte, kind uint32, b []byte) []byte {
	padded := (len(b) + 3) &^ 3
	out = binary.LittleEndian.AppendUint32(out, kind)
	out = binary.LittleEndian.AppendUint32(out, uint32(8+padded))
	out = append(out, b...)
	return append(out, make([]byte, padded-len(b))...)
}

// flatten lays out the loadable part of GRUB's kernel as it is in memory. The
// modules have to begin where its data ends (_edata), which is where the one
// segment's bytes in the file end.
func flatten(b []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var load []*elf.Prog
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			load = append(load, p)
		}
	}
	if len(load) != 1 || f.Class != elf.ELFCLASS32 || f.Entry != load[0].Vaddr {
		return nil, errors.New("want a 32-bit ELF with one loadable segment that begins at its entry")
	}
	if load[0].Filesz > uint64(len(b)) {
		return nil, errors.New("segment is larger than the file")
	}
	out := make([]byte, (load[0].Filesz+3)&^3)
	if _, err := load[0].ReadAt(out[:load[0].Filesz], 0); err != nil {
		return nil, err
	}
	return out, nil
}

// compress packs with the parameters that the decompressor has built in
// (mkimage.c, compress_kernel_lzma) and without LZMA's own header: the
// decompressor knows the sizes.
func compress(b []byte) ([]byte, error) {
	const headerLen = 13
	var out bytes.Buffer
	w, err := lzma.WriterConfig{
		Properties: &lzma.Properties{LC: 3, LP: 0, PB: 2}, DictCap: 1 << 16,
		SizeInHeader: true, Size: int64(len(b)), EOSMarker: false,
	}.NewWriter(&out)
	if err != nil {
		return nil, fmt.Errorf("lzma: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("lzma: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("lzma: %w", err)
	}
	return out.Bytes()[headerLen:], nil
}

func readSector(dir fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(dir, name)
	if err != nil {
		return nil, err
	}
	if len(b) != sectorSize {
		return nil, fmt.Errorf("%s: %d bytes, want one sector", name, len(b))
	}
	return b, nil
}
