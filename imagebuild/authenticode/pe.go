package authenticode

import (
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Offsets in a PE32+ image (PE/COFF, 2 to 4): of the PE signature's place,
// and from the PE signature on.
const (
	peOffsetAt  = 0x3c
	checksumAt  = 4 + 20 + 64
	certEntryAt = 4 + 20 + 112 + 4*8 // data directory 4
)

// layout is what signing needs to know of an image.
type layout struct {
	checksum  int // offset of the checksum
	certEntry int // offset of the directory entry of the signature
	certAt    int // offset of the signature, where there is one
	certSize  int // its size, 0 where there is none
}

// parse reads the headers. It takes only images whose headers, sections and
// tail lie without a gap one behind the other: firmware leaves gaps out of
// the hash, so that anybody could change them. For such images the hash is
// that of the file but for checksum and signature.
func parse(image io.ReaderAt, length int64) (layout, error) {
	f, err := pe.NewFile(io.NewSectionReader(image, 0, length))
	if err != nil {
		return layout{}, fmt.Errorf("no EFI program: %w", err)
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	begin := make([]byte, peOffsetAt+4)
	if _, err := image.ReadAt(begin, 0); !ok || length < peOffsetAt+4 || err != nil && err != io.EOF || string(begin[:2]) != "MZ" {
		return layout{}, errors.New("no EFI program: want a PE32+ image")
	}
	start := int64(binary.LittleEndian.Uint32(begin[peOffsetAt:]))
	l := layout{checksum: int(start + checksumAt), certEntry: int(start + certEntryAt)}
	headers := int64(opt.SizeOfHeaders)
	if opt.NumberOfRvaAndSizes < 5 || headers > length || start+certEntryAt+8 > headers {
		return layout{}, errors.New("the headers have no place for a signature")
	}
	// debug/pe reads sections by their table, wherever that is; the hash of
	// the headers must take it in.
	if table := start + 4 + 20 + int64(f.SizeOfOptionalHeader) + 40*int64(len(f.Sections)); table > headers {
		return layout{}, errors.New("the section table is outside of the headers")
	}
	sections := slices.Clone(f.Sections)
	slices.SortStableFunc(sections, func(a, b *pe.Section) int { return cmp.Compare(a.Offset, b.Offset) })
	at := headers
	for _, s := range sections {
		if s.Size == 0 {
			continue
		}
		if int64(s.Offset) != at {
			return layout{}, fmt.Errorf("section %q begins at %d and not at %d, where what is before it ends: no signature would cover that", s.Name, s.Offset, at)
		}
		at += int64(s.Size)
	}
	if at > length {
		return layout{}, errors.New("the sections are longer than the file")
	}
	if entry := opt.DataDirectory[4]; entry.Size != 0 || entry.VirtualAddress != 0 {
		// It is the one directory whose address is an offset in the file.
		from, size := int64(entry.VirtualAddress), int64(entry.Size)
		if from < at || from%8 != 0 || size < certHeaderLen || from+size != length {
			return layout{}, fmt.Errorf("signature of %d bytes at %d: want it at the end of the file", size, from)
		}
		l.certAt, l.certSize = int(from), int(size)
	}
	return l, nil
}

// sum is the checksum of a PE image: the sum of its 16-bit words with the
// carry added, and its length (imagehlp's CheckSumMappedFile). Firmware does
// not look at it; tools that compare images do.
func (l layout) sum(image io.Reader) (uint32, error) {
	var sum uint64
	buf := make([]byte, 1<<20) // even, so that no word is in two pieces
	for length := 0; ; {
		n, err := io.ReadFull(image, buf)
		for i := 0; i < n; i += 2 {
			if at := length + i; at == l.checksum || at == l.checksum+2 {
				continue
			}
			word := uint64(buf[i])
			if i+1 < n {
				word |= uint64(buf[i+1]) << 8
			}
			sum += word
		}
		length += n
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			return uint32(sum) + uint32(length), nil
		}
		if err != nil {
			return 0, err
		}
	}
}
