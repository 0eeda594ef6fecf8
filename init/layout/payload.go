package layout

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A payload is what a disk is installed from, beside the medium's own partitions: the partition LabelPayload begins with one
// line, "KEELSON-PAYLOAD 1 <bytes of JSON>", then the JSON of Payload, then, from the next multiple of PayloadAlign on, the
// bytes that no other partition of the medium has. imagebuild writes it, the installer reads it.
const (
	PayloadAlign = 4096
	payloadMagic = "KEELSON-PAYLOAD 1 "
	// MaxPayloadHead bounds line and JSON.
	MaxPayloadHead = 1 << 20
)

// Payload describes the partitions of an installed disk.
type Payload struct {
	Version    string             `json:"version"`
	BootCode   string             `json:"bootCode,omitempty"` // base64 of up to 440 bytes for the MBR
	Partitions []PayloadPartition `json:"partitions"`
}

// PayloadPartition is one partition of an installed disk. What no extent covers is zero.
type PayloadPartition struct {
	Number     int             `json:"number"`
	Label      string          `json:"label"`
	Type       string          `json:"type"`
	Attributes uint64          `json:"attributes,omitempty"`
	Size       int64           `json:"size"`   // of the partition, a multiple of Align
	Length     int64           `json:"length"` // of its content, from the beginning
	SHA256     string          `json:"sha256"` // of the content
	Extents    []PayloadExtent `json:"extents"`
}

// PayloadExtent copies Length bytes at Offset of the medium's partition From to the byte To of a partition.
type PayloadExtent struct {
	From   int   `json:"from"` // number on the medium; NumberPayload counts from its first PayloadAlign behind the head
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	To     int64 `json:"to"`
}

// Boot returns the boot code.
func (p *Payload) Boot() ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(p.BootCode)
	if err != nil || len(b) > 440 {
		return nil, fmt.Errorf("payload: boot code: want base64 of up to 440 bytes")
	}
	return b, nil
}

// RenderPayload makes the head of a payload, whole multiples of PayloadAlign.
func RenderPayload(p *Payload) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%d\n%s\n", payloadMagic, len(text), text)
	if b.Len() > MaxPayloadHead {
		return nil, fmt.Errorf("payload: a head of %d bytes: at most %d are read", b.Len(), MaxPayloadHead)
	}
	b.Write(make([]byte, (PayloadAlign-b.Len()%PayloadAlign)%PayloadAlign))
	return b.Bytes(), nil
}

// ParsePayload reads the head from the beginning of a payload partition and says where its data begins.
func ParsePayload(b []byte) (p *Payload, data int64, err error) {
	line, rest, ok := bytes.Cut(b[:min(len(b), MaxPayloadHead)], []byte("\n"))
	digits, magic := strings.CutPrefix(string(line), payloadMagic)
	n, err := strconv.Atoi(digits)
	if !ok || !magic || err != nil || n < 0 || n >= len(rest) {
		return nil, 0, fmt.Errorf("payload: no head: the medium is damaged, or another version's")
	}
	p = &Payload{}
	decoder := json.NewDecoder(bytes.NewReader(rest[:n]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(p); err != nil {
		return nil, 0, fmt.Errorf("payload: %w: the medium is damaged, or another version's", err)
	}
	head := int64(len(line) + 1 + n + 1)
	return p, (head + PayloadAlign - 1) / PayloadAlign * PayloadAlign, p.check()
}

// maxDisk bounds every place and length: no sum of two overflows.
const maxDisk = 1 << 50

// check refuses what an installer could not carry out, whoever wrote it.
func (p *Payload) check() error {
	if _, err := p.Boot(); err != nil {
		return err
	}
	if len(p.Partitions) == 0 || len(p.Partitions) > NumberRootA {
		return fmt.Errorf("payload: %d partitions", len(p.Partitions))
	}
	number := 0
	for _, part := range p.Partitions {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("payload: partition %d: %s", part.Number, fmt.Sprintf(format, args...))
		}
		if part.Number <= number || part.Number > NumberRootA {
			return bad("out of its order")
		}
		number = part.Number
		if !strings.HasPrefix(part.Label, LabelPrefix) || len(part.Label) > 36 {
			return bad("label %.40q is not one of Keelson's", part.Label)
		}
		if part.Size <= 0 || part.Size%Align != 0 || part.Size > maxDisk || part.Length < 0 || part.Length > part.Size {
			return bad("%d bytes in %d", part.Length, part.Size)
		}
		if sum, err := hex.DecodeString(part.SHA256); err != nil || len(sum) != 32 {
			return bad("no SHA-256")
		}
		at := int64(0)
		for _, e := range part.Extents {
			if e.To < at || e.Length <= 0 || e.Length > part.Length || e.To > part.Length-e.Length || e.Offset < 0 || e.Offset > maxDisk {
				return bad("extent of %d bytes to %d: outside, or out of its order", e.Length, e.To)
			}
			if e.From < NumberBIOS || e.From > NumberPayload {
				return bad("extent from partition %d", e.From)
			}
			at = e.To + e.Length
		}
	}
	if number != NumberRootA {
		return fmt.Errorf("payload: the last partition is %d, want the root's %d", number, NumberRootA)
	}
	return nil
}
