package iso

import (
	"encoding/binary"
	"errors"
)

// Values of the boot catalogue (El Torito 2.1 to 2.4, UEFI 2.10 13.3.2.1).
const (
	platformX86  = 0x00
	platformEFI  = 0xef
	bootable     = 0x88
	lastSection  = 0x91
	catalogEntry = 32
	// biosSectors of 512 bytes are loaded by the firmware: cdboot.img loads the rest itself.
	biosSectors = 4
)

// catalog says what can be started: BIOS first where there is one, since old firmware reads the first entry alone.
func (v Volume) catalog(bios int64) []byte {
	var b []byte
	if bios > 0 {
		b = append(b, validation(platformX86)...)
		b = append(b, entry(bios, biosSectors)...)
		header := make([]byte, catalogEntry)
		header[0], header[1] = lastSection, platformEFI
		binary.LittleEndian.PutUint16(header[2:], 1)
		b = append(b, header...)
	} else {
		b = append(b, validation(platformEFI)...)
	}
	// 16 bits count 512-byte sectors up to 32 MiB. Zero means up to the medium's end to UEFI firmware (EDK II,
	// MdeModulePkg/Universal/Disk/PartitionDxe/ElTorito.c), which finds the volume's own size inside it.
	sectors := v.EFILen / 512
	if sectors > 0xffff {
		sectors = 0
	}
	return append(b, entry(v.EFI, uint16(sectors))...)
}

func validation(platform byte) []byte {
	b := make([]byte, catalogEntry)
	b[0], b[1] = 1, platform
	copy(b[4:], "KEELSON")
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < catalogEntry; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
	return b
}

func entry(offset int64, sectors uint16) []byte {
	b := make([]byte, catalogEntry)
	b[0] = bootable // no emulation, the segment that the firmware takes by itself
	binary.LittleEndian.PutUint16(b[6:], sectors)
	binary.LittleEndian.PutUint32(b[8:], uint32(offset/Sector))
	return b
}

// bootInfoAt and bootInfoLen are the place of the boot information table in a loader.
const bootInfoAt, bootInfoLen = 8, 56

// loaderAt is where the loader stands on the medium: it is the volume's first file.
const loaderAt = filesAt * Sector

// Loaded is a loader as it stands on the medium.
func Loaded(loader []byte) []byte { return withBootInfo(loader, loaderAt) }

// Loader finds the loader in the bytes of a volume.
func Loader(volume []byte) ([]byte, error) {
	const at = loaderAt - Start
	if len(volume) >= at+Sector {
		n := int64(binary.LittleEndian.Uint32(volume[at+bootInfoAt+8:]))
		if n >= Sector && n%Sector == 0 && n <= int64(len(volume)-at) {
			return volume[at : at+n], nil
		}
	}
	return nil, errors.New("iso: the volume has no loader")
}

// withBootInfo tells a loader where it is on the medium.
func withBootInfo(loader []byte, at int64) []byte {
	b := make([]byte, max((len(loader)+Sector-1)/Sector*Sector, Sector))
	copy(b, loader)
	clear(b[bootInfoAt : bootInfoAt+bootInfoLen])
	le := binary.LittleEndian
	var sum uint32
	for i := bootInfoAt + bootInfoLen; i+4 <= len(b); i += 4 {
		sum += le.Uint32(b[i:])
	}
	le.PutUint32(b[bootInfoAt:], primaryAt)
	le.PutUint32(b[bootInfoAt+4:], uint32(at/Sector))
	le.PutUint32(b[bootInfoAt+8:], uint32(len(b)))
	le.PutUint32(b[bootInfoAt+12:], sum)
	return b
}
