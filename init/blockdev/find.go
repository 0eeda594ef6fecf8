package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"keelson/init/uevent"
)

// Partition is one partition of a disk. Start and Size are bytes.
type Partition struct {
	Name   string // vda3
	Disk   string // vda
	Number int
	Label  string // PARTLABEL
	Start  uint64
	Size   uint64
	// Undivided says that the kernel has no device for it: it is a part of the device Name, which is the whole medium.
	Undivided bool
}

// Device is the path of its node, of the whole medium's where that is undivided.
func (p Partition) Device() string { return "/dev/" + p.Name }

func (p Partition) String() string {
	return fmt.Sprintf("%s (%s)", p.Device(), p.Label)
}

// Scan reads the partitions that the kernel knows from a /sys/class/block,
// sorted by name. A device that vanishes meanwhile is left out.
func Scan(class string) ([]Partition, error) {
	dirs, err := os.ReadDir(class)
	if os.IsNotExist(err) {
		return nil, nil // no block device at all so far
	}
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var out []Partition
	for _, d := range dirs {
		dir := filepath.Join(class, d.Name())
		number, err := readUint(filepath.Join(dir, "partition"))
		if err != nil {
			continue // a whole disk
		}
		start, err1 := readUint(filepath.Join(dir, "start"))
		size, err2 := readUint(filepath.Join(dir, "size"))
		env, err3 := os.ReadFile(filepath.Join(dir, "uevent"))
		real, err4 := filepath.EvalSymlinks(dir)
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
			continue
		}
		// sysfs counts in sectors of 512 bytes whatever the disk has.
		p := Partition{Name: d.Name(), Disk: filepath.Base(filepath.Dir(real)), Number: int(number), Start: start * 512, Size: size * 512}
		for line := range strings.SplitSeq(string(env), "\n") {
			if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
				p.Label = v
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Partition) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func readUint(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 63)
}

// ErrRefused says that a partition has the label but is not the one.
var ErrRefused = errors.New("wrong partition")

// Find waits for a partition with the label that accept takes (nil takes any):
// it looks at what is there, then again after every event of a block device.
// Partitions that accept refuses are named in the error when ctx ends first.
func Find(ctx context.Context, class string, sub *uevent.Subscription, label string, accept func(Partition) error) (Partition, error) {
	return FindIn(ctx, func() ([]Partition, error) { return Scan(class) }, sub, label, accept)
}

// FindIn is Find among the partitions that scan lists.
func FindIn(ctx context.Context, scan func() ([]Partition, error), sub *uevent.Subscription, label string, accept func(Partition) error) (Partition, error) {
	refused := map[string]error{}
	for {
		parts, err := scan()
		if err != nil {
			return Partition{}, err
		}
		for _, p := range parts {
			if p.Label != label {
				continue
			}
			if accept == nil {
				return p, nil
			}
			if refused[p.Name] = accept(p); refused[p.Name] == nil {
				return p, nil
			}
		}
		if _, err := sub.Next(ctx); err != nil {
			return Partition{}, notFound(label, refused, parts)
		}
	}
}

func notFound(label string, refused map[string]error, parts []Partition) error {
	for _, p := range parts {
		if err := refused[p.Name]; err != nil {
			return fmt.Errorf("%w %s: %w", ErrRefused, p, err)
		}
	}
	var seen []string
	for _, p := range parts {
		seen = append(seen, p.String())
	}
	if len(seen) == 0 {
		return fmt.Errorf("no partition %s: the kernel sees no partition at all (no disk, or no driver for it)", label)
	}
	return fmt.Errorf("no partition %s among %s", label, strings.Join(seen, ", "))
}
