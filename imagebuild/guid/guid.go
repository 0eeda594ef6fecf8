// Package guid derives the identifiers of an image from what is in it, so
// that two builds of the same inputs have the same partition GUIDs, file
// system UUIDs and volume serials, and builds of other inputs have others.
//
// It never asks for randomness. The seed comes from the builder: a hash over
// everything that goes into the image.
package guid

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// GUID is an identifier in the byte order of its text form.
type GUID [16]byte

// Derive is the GUID that seed gives for name: RFC 9562, 5.8, version 8.
func Derive(seed []byte, name string) GUID {
	h := sha256.New()
	// The length keeps ("ab", "c") and ("a", "bc") apart.
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(name))))
	h.Write([]byte(name))
	h.Write(seed)
	var g GUID
	copy(g[:], h.Sum(nil))
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// String is the usual text form in lower case.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// Serial is a volume serial number for file systems that have 32 bits for it.
func (g GUID) Serial() uint32 { return binary.LittleEndian.Uint32(g[:4]) }
