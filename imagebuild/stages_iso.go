package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/disk"
	"keelson/imagebuild/esp"
	"keelson/imagebuild/iso"
	"keelson/init/layout"
)

// The stages of a CD or USB stick that runs live. It is a disk whose root
// partition has another label, with an ISO 9660 volume between its partition
// table and its first partition.

func isoStages(wanted []string) []stage {
	if !slices.Contains(wanted, definition.ISO) {
		return nil
	}
	return []stage{
		{name: "live kernel image", key: liveUKIKey, run: writeLiveUKI, files: parts("live.efi")},
		{name: "live esp", key: liveESPKey, run: writeLiveESP, files: parts("live-esp.img")},
		{name: "installed esp", key: installedESPKey, run: writeInstalledESP, files: func(s *state) []string { return []string{s.installedESP()} }},
		{name: "payload", key: payloadKey, run: writePayload, files: parts("payload")},
		{name: "iso", key: isoKey, run: writeISO, files: func(s *state) []string { return []string{s.artefact(".iso")} }},
	}
}

// liveCmdline starts the same root from the medium.
func (s *state) liveCmdline() string {
	return s.cmdline + " " + layout.ParamLive + "=" + layout.LiveMedium
}

// liveESPSize is what holds one slot's files, and room for a user's; the
// partition of an installed disk has room for two slots.
func (s *state) liveESPSize() (int64, error) {
	const room = 8 << 20
	info, err := os.Stat(s.part("live.efi"))
	if err != nil {
		return 0, fmt.Errorf("size of the ESP: %w", err)
	}
	return max(esp.MinSize, (info.Size()+room+layout.Align-1)/layout.Align*layout.Align), nil
}

func liveUKIKey(s *state) (string, error) {
	key, err := ukiKey(s)
	return keyOf("live uki", key, s.liveCmdline()), err
}

func writeLiveUKI(_ context.Context, s *state) error {
	return s.unify(s.part("live.efi"), s.part("initrd"), s.liveCmdline())
}

func liveESPKey(s *state) (string, error) {
	key, err := espKey(s)
	if err != nil {
		return "", err
	}
	sum, err := s.hashes(s.part("live.efi"))
	if err != nil {
		return "", err
	}
	size, err := s.liveESPSize()
	return keyOf("live esp 2", key, sum, s.liveCmdline(), fmt.Sprint(size)), err
}

func writeLiveESP(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	size, err := s.liveESPSize()
	if err != nil {
		return err
	}
	return s.system(core, "live-esp.img", "live.efi", s.liveCmdline(), size)
}

// isoParts are the contents of the medium's partitions.
func (s *state) isoParts() []string { return append(s.diskParts("live-esp.img"), s.part("payload")) }

func isoKey(s *state) (string, error) {
	sums, err := s.hashes(s.isoParts()...)
	return keyOf("iso 2", sums, string(s.seed()), s.source.Version, s.epoch()), err
}

func writeISO(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	size, err := s.liveESPSize()
	if err != nil {
		return err
	}
	// No type that other systems start or mount by themselves.
	partitions := s.diskPartitions(size,
		disk.Partition{Number: layout.NumberLive, Label: layout.LabelLive, Type: layout.TypeData, Attrs: layout.AttrRoot})
	partitions = append(partitions,
		disk.Partition{Number: layout.NumberPayload, Label: layout.LabelPayload, Type: layout.TypeData, Attrs: layout.AttrRoot})
	end, err := fill(partitions, s.isoParts())
	defer end()
	if err != nil {
		return err
	}
	system, root := len(partitions)-3, len(partitions)-2
	volume := func(starts []int64, size int64) ([]byte, error) {
		return iso.Render(iso.Medium{
			Version: s.source.Version, Time: s.source.Epoch, Size: size, BIOS: core.CD,
			EFI: starts[system], EFILen: partitions[system].Size, Root: starts[root], RootLen: partitions[root].Len,
		}.Volume(), starts[0])
	}
	_, err = disk.Write(s.artefact(".iso"), disk.Image{
		Seed: append(s.seed(), definition.ISO...), BootCode: core.Boot, Partitions: partitions, Active: true, Lead: volume,
	})
	return err
}
