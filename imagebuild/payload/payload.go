// Package payload makes what an installation medium carries to install a disk, besides its own partitions.
//
// The medium has the root, the boot loaders, kernel and initramfs already, for starting itself. An installed disk differs from
// it in a command line, in the EFI system partition's size and in little else. So the payload says which bytes of the installed
// partitions are found where on the medium, and holds only those that are nowhere. Make reads partitions and writes bytes; the
// format is layout.Payload; the installer (init/install) carries it out.
package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"keelson/init/layout"
)

// block is what is looked for: the sector of the file systems whose clusters are compared.
const block = 512

// Content is bytes that can be read anywhere.
type Content struct {
	Data io.ReaderAt
	Len  int64
}

// Partition is one of an installed disk, and the medium's partition that most of it is found in. Without Medium that one
// begins with the very same content, and nothing is looked for.
type Partition struct {
	layout.PayloadPartition // Length, SHA256 and Extents are Make's
	Content                 Content
	From                    int
	Medium                  Content
	// Within is the part of Medium that is looked through: whoever puts user-data on a stick changes directories and
	// allocation, and must still be able to install.
	Within Range
}

// Range is a part of a content.
type Range struct{ Offset, Len int64 }

// Make finds the installed partitions on the medium. It returns the payload's bytes: the head, then what is not there.
func Make(version string, bootCode string, partitions []Partition) ([]byte, error) {
	p := &layout.Payload{Version: version, BootCode: bootCode}
	var rest []byte
	for _, part := range partitions {
		found, err := part.find(&rest)
		if err != nil {
			return nil, fmt.Errorf("payload: %s: %w", part.Label, err)
		}
		p.Partitions = append(p.Partitions, found)
	}
	head, err := layout.RenderPayload(p)
	if err != nil {
		return nil, err
	}
	return append(head, rest...), nil
}

// find compares block by block; what neither the medium nor the payload has yet is appended to rest.
func (p Partition) find(rest *[]byte) (layout.PayloadPartition, error) {
	out := p.PayloadPartition
	out.Length, out.Extents = p.Content.Len, nil
	sum := sha256.New()
	if p.Medium.Data == nil {
		out.Extents = []layout.PayloadExtent{{From: p.From, Length: p.Content.Len}}
		err := each(p.Content, func(_ int64, b []byte) { sum.Write(b) })
		out.SHA256 = hex.EncodeToString(sum.Sum(nil))
		return out, err
	}
	if p.Within.Offset < 0 || p.Within.Len < 0 || p.Within.Offset > p.Medium.Len-p.Within.Len {
		return out, fmt.Errorf("%d bytes at %d of the medium's %d: not there", p.Within.Len, p.Within.Offset, p.Medium.Len)
	}
	medium := Content{Data: io.NewSectionReader(p.Medium.Data, p.Within.Offset, p.Within.Len), Len: p.Within.Len}
	known, err := index(medium)
	if err != nil {
		return out, fmt.Errorf("read the medium: %w", err)
	}
	err = each(p.Content, func(at int64, b []byte) {
		sum.Write(b)
		if len(bytes.Trim(b, "\x00")) == 0 {
			return
		}
		if n := len(out.Extents); n > 0 {
			last := &out.Extents[n-1]
			if last.To+last.Length == at && last.From == p.From && matches(medium, last.Offset+last.Length-p.Within.Offset, b) {
				last.Length += int64(len(b)) // a run goes on where it is, even if the block is found elsewhere, too
				return
			}
		}
		e := layout.PayloadExtent{From: p.From, Length: int64(len(b)), To: at}
		if offset, ok := known[sha256.Sum256(b)]; ok {
			e.Offset = p.Within.Offset + offset
		} else {
			e.From, e.Offset = layout.NumberPayload, int64(len(*rest))
			*rest = append(*rest, b...)
			if n := len(out.Extents); n > 0 {
				last := &out.Extents[n-1]
				if last.From == e.From && last.To+last.Length == at && last.Offset+last.Length == e.Offset {
					last.Length += e.Length
					return
				}
			}
		}
		out.Extents = append(out.Extents, e)
	})
	out.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return out, err
}

func matches(c Content, offset int64, b []byte) bool {
	if offset+int64(len(b)) > c.Len {
		return false
	}
	there := make([]byte, len(b))
	_, err := c.Data.ReadAt(there, offset)
	return (err == nil || err == io.EOF) && bytes.Equal(there, b)
}

// index says where on the medium each block is first.
func index(c Content) (map[[32]byte]int64, error) {
	known := map[[32]byte]int64{}
	err := each(c, func(at int64, b []byte) {
		sum := sha256.Sum256(b)
		if _, ok := known[sum]; !ok {
			known[sum] = at
		}
	})
	return known, err
}

// each goes through content in blocks; the last may be short.
func each(c Content, do func(at int64, b []byte)) error {
	buf := make([]byte, 1<<20)
	for at := int64(0); at < c.Len; {
		n := min(int64(len(buf)), c.Len-at)
		if _, err := c.Data.ReadAt(buf[:n], at); err != nil && err != io.EOF {
			return err
		}
		for i := int64(0); i < n; i += block {
			do(at+i, buf[i:min(i+block, n)])
		}
		at += n
	}
	return nil
}
