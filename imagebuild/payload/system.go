package payload

import (
	"bytes"
	"fmt"
	"io"

	"keelson/init/layout"
)

// System is an installed disk, and what of it is on the medium.
type System struct {
	Arch      string
	Core      Content // of the BIOS boot partition, on the medium too; Len is 0 where there is no BIOS
	ESP       Content
	Root      Content // on the medium too
	MediumESP Content
	Kernel    Content // the medium's kernel image, a file of MediumESP that most of ESP is found in
}

// Partitions lists the system's for Make.
func (s System) Partitions() ([]Partition, error) {
	rootType, err := layout.RootType(s.Arch)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	within, err := find(s.MediumESP, s.Kernel)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	part := func(number int, label, kind string, attributes uint64, size int64) layout.PayloadPartition {
		return layout.PayloadPartition{Number: number, Label: label, Type: kind, Attributes: attributes, Size: size}
	}
	var all []Partition
	if s.Core.Len > 0 {
		all = append(all, Partition{
			PayloadPartition: part(layout.NumberBIOS, layout.LabelBIOS, layout.TypeBIOSBoot, 0, layout.BIOSSize),
			Content:          s.Core, From: layout.NumberBIOS,
		})
	}
	return append(all, Partition{
		PayloadPartition: part(layout.NumberESP, layout.LabelESP, layout.TypeESP, 0, layout.ESPSize),
		Content:          s.ESP, From: layout.NumberESP, Medium: s.MediumESP, Within: within,
	}, Partition{
		PayloadPartition: part(layout.NumberRootA, layout.LabelRootA, rootType, layout.AttrRoot, (s.Root.Len+layout.Align-1)/layout.Align*layout.Align),
		Content:          s.Root, From: layout.NumberLive,
	}), nil
}

// find says where a file lies on a volume. One that was just made has it in one piece, from the beginning of a sector on.
func find(volume, file Content) (Range, error) {
	missing := fmt.Errorf("a kernel image of %d bytes is not on the medium in one piece", file.Len)
	begin := make([]byte, min(block, file.Len))
	if _, err := file.Data.ReadAt(begin, 0); err != nil && err != io.EOF {
		return Range{}, fmt.Errorf("read the medium's kernel image: %w", err)
	}
	if file.Len == 0 {
		return Range{}, missing
	}
	var candidates []int64
	err := each(volume, func(at int64, b []byte) {
		if at+file.Len <= volume.Len && bytes.HasPrefix(b, begin) {
			candidates = append(candidates, at)
		}
	})
	if err != nil {
		return Range{}, fmt.Errorf("read the medium: %w", err)
	}
	for _, at := range candidates {
		same := true
		err := each(file, func(from int64, b []byte) { same = same && matches(volume, at+from, b) })
		if err != nil {
			return Range{}, fmt.Errorf("read the medium's kernel image: %w", err)
		}
		if same {
			return Range{at, file.Len}, nil
		}
	}
	return Range{}, missing
}
