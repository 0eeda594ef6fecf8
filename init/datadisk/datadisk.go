// Package datadisk sets up the disks of a machine beside its own: partitions,
// ext4 file systems, mounts and swap, as user-data asks for them.
//
// It happens on every boot and changes nothing that is as asked. It never
// writes to the disk that the machine runs from, to a device in use, or to one
// that holds data, unless user-data says overwrite: true for it. What cannot be
// done is an error with the place in the document. The settings come from
// userdata.Load; the boot mounts before the node starts and calls SwapOff at
// the machine's end.
package datadisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keelson/init/blockdev"
	"keelson/init/ext4"
	"keelson/init/mount"
	"keelson/init/userdata"
)

// Config says where the machine is.
type Config struct {
	Sys    string // /sys
	Dev    string // /dev
	Root   string // /, or a folder in a test
	System string // name of the disk that is not to be touched
	Tools  ext4.Runner
	// NextDevice blocks until the kernel tells of a block device.
	NextDevice func(context.Context) error
	LoadModule func(names ...string) error
	Say        func(line string)
	// Mount is mount(2); nil means the kernel's. Mounted lists mount points.
	Mount   func(device, path, fstype string, flags uintptr, data string) error
	Mounted func() ([]string, error)
}

// appear is how long a disk may take to show itself.
const appear = 10 * time.Second

// Apply brings everything into the state that is asked for.
func Apply(ctx context.Context, c Config, s userdata.Storage) error {
	var errs []error
	place := func(p userdata.Place, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		}
	}
	for _, d := range s.Disks {
		place(d.Place, c.disk(ctx, d))
	}
	for _, f := range s.Filesystems {
		place(f.Place, c.filesystem(ctx, f))
	}
	for _, m := range s.Mounts {
		err := c.mount(ctx, m)
		if err != nil && m.NoFail {
			c.Say(fmt.Sprintf("%s: %v (nofail: the boot goes on)", m.Place, err))
			continue
		}
		place(m.Place, err)
	}
	if len(errs) == 0 && s.Swap != nil {
		place(s.Swap.Place, c.swap(*s.Swap))
	}
	return errors.Join(errs...)
}

func (c Config) filesystem(ctx context.Context, f userdata.Filesystem) error {
	name, err := c.await(ctx, f.Device)
	if err != nil {
		return err
	}
	if f.Partition > 0 {
		name = blockdev.PartitionName(name, f.Partition)
	}
	if err := c.mayWrite(name); err != nil {
		return err
	}
	device := c.node(name)
	dev, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil // it is mounted: made on an earlier turn
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	have := probe(dev)
	found, err := ext4.Look(dev)
	if err == nil && found.Kind != ext4.Empty && have.fstype != "ext4" && f.Overwrite {
		if _, err = dev.WriteAt(make([]byte, ext4.Cleared), 0); err == nil {
			err = dev.Sync()
		}
		found.Kind = ext4.Empty
	}
	if err = errors.Join(err, dev.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case have.fstype == "ext4" && (f.Label == "" || have.label == f.Label):
		return nil
	case found.Kind == ext4.Empty, f.Overwrite:
		return ext4.Format(ctx, c.Tools, device, f.Label)
	case have.fstype == "ext4":
		found.What = fmt.Sprintf("an ext4 file system with the label %q", have.label)
	}
	return fmt.Errorf("%s holds %s and is not touched; write overwrite: true to lose it", name, found.What)
}

func (c Config) mount(ctx context.Context, m userdata.Mount) error {
	points, err := c.mounted()
	if err != nil || slices.Contains(points, m.Path) {
		return err
	}
	name, err := c.await(ctx, m.Device)
	if err != nil {
		return err
	}
	if err := c.mayWrite(name); err != nil {
		return err
	}
	dev, err := os.Open(c.node(name))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	have := probe(dev)
	dev.Close()
	kind := m.Type
	if kind == "auto" {
		kind = have.fstype
	}
	if kind == "" || have.fstype != "" && kind != have.fstype {
		return fmt.Errorf("%s holds no file system of the kind that is wanted", name)
	}
	if kind == "ext4" {
		repaired, err := ext4.Check(ctx, c.Tools, c.node(name))
		if err != nil {
			return err
		}
		if repaired {
			c.Say(fmt.Sprintf("%s: %s: errors were repaired", m.Place, name))
		}
	}
	if c.LoadModule != nil {
		if err := c.LoadModule(kind); err != nil {
			c.Say(fmt.Sprintf("%s: %v", m.Place, err)) // it may be built in
		}
	}
	path := filepath.Join(c.Root, m.Path)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	flags, data := options(m.Options)
	do := c.Mount
	if do == nil {
		do = unix.Mount
	}
	if err := do(c.node(name), path, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", name, m.Path, err)
	}
	return nil
}

func (c Config) mounted() ([]string, error) {
	if c.Mounted != nil {
		return c.Mounted()
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return mount.ParsePoints(string(b))
}

// options turns words of fstab(5) into flags; what is no flag is the file
// system's own. Devices and setuid programs are not honoured on a data disk.
func options(words []string) (flags uintptr, data string) {
	flags = unix.MS_NODEV | unix.MS_NOSUID
	var own []string
	for _, w := range words {
		switch w {
		case "ro":
			flags |= unix.MS_RDONLY
		case "rw", "exec", "suid", "dev", "atime", "async", "nouser", "nosuid", "nodev":
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "noatime":
			flags |= unix.MS_NOATIME
		case "nodiratime":
			flags |= unix.MS_NODIRATIME
		case "relatime":
			flags |= unix.MS_RELATIME
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		default:
			own = append(own, w)
		}
	}
	return flags, strings.Join(own, ",")
}
