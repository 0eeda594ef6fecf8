package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Offsets of the fields of a PE32+ image that are read or changed here
// (Microsoft PE/COFF specification, 3 and 4). opt* count from the optional
// header, coff* from the COFF header.
const (
	peOffsetAt      = 0x3c
	coffSections    = 2
	coffSymbols     = 8 // place and number of symbols
	coffOptSize     = 16
	coffLen         = 20
	optMagic        = 0
	optInitialized  = 8
	optSectionAlign = 32
	optFileAlign    = 36
	optImageSize    = 56
	optHeadersSize  = 60
	optChecksum     = 64
	optMinLen       = 112
	sectionLen      = 40
	magicPE32Plus   = 0x20b
	sectionReadData = 0x40000040 // IMAGE_SCN_MEM_READ | CNT_INITIALIZED_DATA
	maxSections     = 96         // what the Windows loader, and systemd's stub, take
)

// header is what parse finds in the headers of a PE image.
type header struct {
	coff, opt, table        int // offsets in the file
	headersSize             uint32
	fileAlign, sectionAlign uint32
	sections                []section
}

type section struct {
	name            string
	vaddr, vsize    uint32
	offset, rawSize uint32
}

// parse reads the headers of a PE32+ image and checks that every section's
// data is inside the file.
func parse(b []byte) (header, error) {
	le := binary.LittleEndian
	var h header
	if len(b) < peOffsetAt+4 || string(b[:2]) != "MZ" {
		return h, errors.New("no MZ header")
	}
	pe := int64(le.Uint32(b[peOffsetAt:]))
	if pe+4+coffLen > int64(len(b)) || string(b[pe:pe+4]) != "PE\x00\x00" {
		return h, errors.New("no PE signature")
	}
	h.coff = int(pe) + 4
	h.opt = h.coff + coffLen
	optLen := int(le.Uint16(b[h.coff+coffOptSize:]))
	h.table = h.opt + optLen
	if optLen < optMinLen || h.table > len(b) {
		return h, fmt.Errorf("optional header of %d bytes", optLen)
	}
	if m := le.Uint16(b[h.opt+optMagic:]); m != magicPE32Plus {
		return h, fmt.Errorf("optional header magic %#x: want PE32+", m)
	}
	h.fileAlign, h.sectionAlign = le.Uint32(b[h.opt+optFileAlign:]), le.Uint32(b[h.opt+optSectionAlign:])
	h.headersSize = le.Uint32(b[h.opt+optHeadersSize:])
	if !powerOfTwo(h.fileAlign) || !powerOfTwo(h.sectionAlign) || h.fileAlign > 1<<16 || h.sectionAlign > 1<<16 {
		return h, fmt.Errorf("file alignment %d, section alignment %d", h.fileAlign, h.sectionAlign)
	}
	n := int(le.Uint16(b[h.coff+coffSections:]))
	if n > maxSections || h.table+n*sectionLen > len(b) || int64(h.headersSize) > int64(len(b)) ||
		h.table+n*sectionLen > int(h.headersSize) {
		return h, fmt.Errorf("%d sections do not fit headers of %d bytes", n, h.headersSize)
	}
	for i := range n {
		s := b[h.table+i*sectionLen:]
		sec := section{
			name:  strings.TrimRight(string(s[:8]), "\x00"),
			vsize: le.Uint32(s[8:]), vaddr: le.Uint32(s[12:]),
			rawSize: le.Uint32(s[16:]), offset: le.Uint32(s[20:]),
		}
		if int64(sec.offset)+int64(sec.rawSize) > int64(len(b)) {
			return h, fmt.Errorf("section %q is past the end of the file", sec.name)
		}
		if int64(sec.vaddr)+int64(sec.vsize) > 1<<31 {
			return h, fmt.Errorf("section %q has address %#x", sec.name, sec.vaddr)
		}
		h.sections = append(h.sections, sec)
	}
	return h, nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func alignUp(n, to uint32) uint32 { return (n + to - 1) &^ (to - 1) }
