// Package testpe makes EFI programs for tests. It is imported by tests only.
package testpe

import "encoding/binary"

// Program is a small PE32+ image: headers of that many bytes, 512 or more, one section as long, and a tail of tail bytes
// that no header names.
func Program(headers, tail int) []byte {
	le := binary.LittleEndian
	const pe, opt, table = 0x40, 0x40 + 24, 0x40 + 24 + 240
	b := make([]byte, 2*headers+tail)
	size := uint32(headers)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00\x64\x86\x01\x00")
	le.PutUint16(b[pe+20:], 240)
	le.PutUint16(b[opt:], 0x20b)
	le.PutUint32(b[opt+32:], 512)
	le.PutUint32(b[opt+36:], 512)
	le.PutUint32(b[opt+60:], size)
	le.PutUint32(b[opt+108:], 16)
	copy(b[table:], ".text")
	le.PutUint32(b[table+8:], size)
	le.PutUint32(b[table+12:], 4096)
	le.PutUint32(b[table+16:], size)
	le.PutUint32(b[table+20:], size)
	for i := headers; i < len(b); i++ {
		b[i] = byte(i)
	}
	return b
}
