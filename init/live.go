package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"keelson/init/blockdev"
	"keelson/init/devmapper"
	"keelson/init/ext4"
	"keelson/init/layout"
	"keelson/init/mount"
	"keelson/init/uevent"
)

// What is different where a machine runs live: the root is found on a CD or a stick, or came along in the initramfs from the
// network; nothing is written to it, and the state is in memory unless a disk of this machine has one.

// live says that the machine runs live.
func (m *machine) live() bool {
	v, _ := m.cmdline.Get(layout.ParamLive)
	return v == layout.LiveMedium || v == layout.LiveMemory
}

// inMemory says that it runs live and the root is in the initramfs.
func (m *machine) inMemory() bool {
	v, _ := m.cmdline.Get(layout.ParamLive)
	return v == layout.LiveMemory
}

// rootInMemory makes a device of the root's file, which stays in the initramfs: dm-verity reads it as it would a disk.
func (m *machine) rootInMemory(file string, accept func(blockdev.Partition) error) (blockdev.Partition, error) {
	info, err := os.Stat(file)
	if err != nil {
		return blockdev.Partition{}, fmt.Errorf("the initramfs has no root: %w: start with the initramfs for the network, whole", err)
	}
	loader, err := m.newLoader("/lib/modules")
	if err != nil {
		return blockdev.Partition{}, err
	}
	if err := loader.Load("loop"); err != nil {
		return blockdev.Partition{}, err
	}
	device, err := blockdev.Loop(file, 0, uint64(info.Size()))
	if err != nil {
		return blockdev.Partition{}, err
	}
	name := filepath.Base(device)
	p := blockdev.Partition{Name: name, Disk: name, Label: layout.LabelLive, Size: uint64(info.Size())}
	if err := accept(p); err != nil {
		return p, fmt.Errorf("%w %s: %w", blockdev.ErrRefused, p, err)
	}
	return p, nil
}

func scanMedia() ([]blockdev.Partition, error) { return blockdev.ScanMedia(sysBlock, "/dev") }

// findLive finds the root on a medium. A part of a CD becomes a device of its own.
func (m *machine) findLive(ctx context.Context, sub *uevent.Subscription, accept func(blockdev.Partition) error) (blockdev.Partition, error) {
	if m.inMemory() {
		return m.rootInMemory(layout.RootInMemory, accept)
	}
	p, err := blockdev.FindIn(ctx, scanMedia, sub, layout.LabelLive, accept)
	if err != nil {
		return p, err
	}
	m.medium = p
	if !p.Undivided {
		return p, nil
	}
	device, err := devmapper.Create(mediumName, "KEELSON-"+mediumName, devmapper.LinearTarget(p.Device(), p.Start, p.Size))
	if err != nil {
		return p, fmt.Errorf("%s: %w", p, err)
	}
	p.Name, p.Start, p.Undivided = filepath.Base(device), 0, false
	return p, nil
}

// mediumName is the device-mapper name of a root on a CD.
const mediumName = "keelson-medium"

// ofMedium is the partition of that number on the medium that the machine runs from.
func (m *machine) ofMedium(number int) (blockdev.Partition, error) {
	if m.inMemory() {
		return blockdev.Partition{}, errors.New("the machine was started from the network and has no medium; start it from the ISO")
	}
	parts, err := scanMedia()
	if err != nil {
		return blockdev.Partition{}, err
	}
	for _, p := range parts {
		if p.Disk == m.medium.Disk && p.Number == number {
			return p, nil
		}
	}
	return blockdev.Partition{}, fmt.Errorf("medium %s has no partition %d any more", m.medium.Disk, number)
}

// espDevice is where user-data of the machine's own boot medium is, "" where that cannot be told. Its FAT has sectors of
// 512 bytes: on a medium with larger ones the kernel mounts it by way of a loop device alone.
func (m *machine) espDevice() string {
	if m.esp != "" || m.inMemory() {
		return m.esp
	}
	p, large, err := m.ownESP()
	if err == nil {
		m.esp = p.Device()
		if p.Undivided || large {
			from := uint64(0)
			if p.Undivided {
				from = p.Start
			}
			if err = m.load("loop"); err == nil {
				m.esp, err = blockdev.Loop(p.Device(), from, p.Size)
			}
		}
	}
	if err != nil {
		m.log.Warn("no user-data from the medium", "error", err)
		m.esp = ""
	}
	return m.esp
}

// ownESP is the ESP of the medium that the machine was started from; large tells that its disk has sectors above 512 bytes.
func (m *machine) ownESP() (p blockdev.Partition, large bool, err error) {
	if !m.live() {
		return m.disk.Partition(layout.NumberESP), m.disk.Table.Sector > layout.SectorSize, nil
	}
	p, err = m.ofMedium(layout.NumberESP)
	return p, false, err
}

// systemDisk is the disk that no data goes to: the one with the state, or the medium.
func (m *machine) systemDisk() string {
	switch {
	case m.disk != nil:
		return m.disk.Name
	case m.statePart.Disk != "":
		return m.statePart.Disk
	}
	return m.medium.Disk
}

// liveStateWait is how long a live machine waits for a disk with a state. It cannot know whether there is one.
const liveStateWait = 3 * time.Second

// mountLiveState takes the state of a disk that has one, else memory.
func (m *machine) mountLiveState(ctx context.Context) error {
	sub := m.events.Subscribe("block")
	defer sub.Close()
	wait, cancel := context.WithTimeout(ctx, liveStateWait)
	defer cancel()
	part, err := blockdev.Find(wait, sysBlock, sub, layout.LabelState, func(p blockdev.Partition) error {
		f, err := os.Open(p.Device())
		if err != nil {
			return err
		}
		defer f.Close()
		found, err := ext4.Look(f)
		if err == nil && found.Kind != ext4.Ours {
			err = fmt.Errorf("no state that was ever used")
		}
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		m.con.Printf("state: %s", part)
		return m.mountStateOf(ctx, part)
	}
	m.con.Printf("state: in memory, it ends with the machine (%s)", oneLine(err))
	if err := mount.StateInMemory(); err != nil {
		return err
	}
	return m.keepLog()
}
