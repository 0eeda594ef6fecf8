package blockdev

import (
	"fmt"
	"slices"

	"keelson/init/layout"
)

// Plan fits a table to a disk of that many of its sectors. It returns nil where
// nothing is to be done. newID makes unique GUIDs.
//
// Partitions are only ever enlarged to their end or added behind all others;
// nothing moves and nothing is dropped.
func Plan(t *Table, sectors uint64, newID func() GUID) (*Table, error) {
	n := *t
	n.Entries = slices.Clone(t.Entries)
	n.Alternate = sectors - 1
	n.LastLBA = lastUsable(sectors, t.Sector)
	alignLBA := layout.Align / t.Sector
	// Partitions end on the alignment, so that block sizes divide their length.
	end := (n.LastLBA + 1) / alignLBA * alignLBA

	a := &n.Entries[layout.NumberRootA-1]
	b := &n.Entries[layout.NumberRootB-1]
	state := &n.Entries[layout.NumberState-1]
	if a.Name != layout.LabelRootA {
		return nil, fmt.Errorf("partition %d is %q, want %s", layout.NumberRootA, a.Name, layout.LabelRootA)
	}
	for i, e := range n.Entries {
		if i >= layout.NumberState && e.Used() {
			return nil, fmt.Errorf("partition %d (%s) is not Keelson's: the disk must hold nothing else", i+1, e.Name)
		}
	}
	switch {
	case b.Used() && state.Used():
		if b.Name != layout.LabelRootB || state.Name != layout.LabelState {
			return nil, fmt.Errorf("partitions %d and %d are %q and %q, want %s and %s", layout.NumberRootB, layout.NumberState,
				b.Name, state.Name, layout.LabelRootB, layout.LabelState)
		}
		if end <= state.Last+1 {
			if t.Alternate == n.Alternate {
				return nil, nil
			}
			end = state.Last + 1
		}
		state.Last = end - 1
	case b.Used() || state.Used():
		return nil, fmt.Errorf("only one of %s and %s is there: the partition table was changed by hand", layout.LabelRootB, layout.LabelState)
	default:
		slot, err := slotSectors(*a, end, t.Sector)
		if err != nil {
			return nil, err
		}
		stateType, err := ParseGUID(layout.TypeState)
		if err != nil {
			return nil, err
		}
		n.Disk = newID() // copies of one image must not look like one disk
		a.Last = a.First + slot - 1
		*b = Entry{Type: a.Type, ID: newID(), First: a.Last + 1, Last: a.Last + slot, Attributes: a.Attributes, Name: layout.LabelRootB}
		*state = Entry{Type: stateType, ID: newID(), First: b.Last + 1, Last: end - 1, Name: layout.LabelState}
	}
	return &n, nil
}

// slotSectors is the size of a slot: SlotSize where both slots and a STATE of
// the least size fit, else what is left, but never below what slot A holds now.
func slotSectors(a Entry, end, sector uint64) (uint64, error) {
	alignLBA := layout.Align / sector
	least := (a.Sectors() + alignLBA - 1) / alignLBA * alignLBA
	need := a.First + 2*least + layout.StateMinSize/sector
	if end < need {
		return 0, fmt.Errorf("the disk has %d MiB, but this image needs %d MiB or more: enlarge the disk",
			(end*sector)>>20, (need*sector+layout.Align*2)>>20)
	}
	slot := (end - a.First - layout.StateMinSize/sector) / 2 / alignLBA * alignLBA
	return max(least, min(slot, layout.SlotSize/sector)), nil
}
