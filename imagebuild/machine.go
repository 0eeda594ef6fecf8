package main

import (
	"fmt"
	"runtime"

	"keelson/imagebuild/disk"
	"keelson/init/layout"
)

// machine is what is called differently on each architecture.
type machine struct {
	efi     string // suffix of EFI programs
	bios    bool   // there are machines without UEFI
	triplet string // of GNU tools
	gcc     string // Debian package of the compiler on other machines
	libc    string // and of the C library to link with
}

// machineOf an architecture, as Go and Debian name it.
func machineOf(arch string) (machine, error) {
	switch arch {
	case "amd64":
		return machine{efi: "x64", bios: true, triplet: "x86_64-linux-gnu", gcc: "gcc-x86-64-linux-gnu", libc: "libc6-dev-amd64-cross"}, nil
	case "arm64":
		return machine{efi: "aa64", triplet: "aarch64-linux-gnu", gcc: "gcc-aarch64-linux-gnu", libc: "libc6-dev-arm64-cross"}, nil
	}
	return machine{}, fmt.Errorf("architecture %q: want amd64 or arm64", arch)
}

// machine of the image; build has seen that there is one.
func (s *state) machine() machine {
	m, err := machineOf(s.config.Arch)
	if err != nil {
		return machine{}
	}
	return m
}

// foreign says that programs in C need another compiler than this machine's.
func foreign(arch string) bool { return arch != runtime.GOARCH }

// diskParts are the files that a disk's partitions hold, where esp is the EFI system partition.
func (s *state) diskParts(esp string) []string {
	files := []string{s.part("core.img"), s.part(esp), s.part("root.erofs")}
	if !s.machine().bios {
		return files[1:]
	}
	return files
}

// diskPartitions are the entries of the same partitions.
func (s *state) diskPartitions(espSize int64, root disk.Partition) []disk.Partition {
	all := []disk.Partition{
		{Number: layout.NumberBIOS, Label: layout.LabelBIOS, Type: layout.TypeBIOSBoot, Size: layout.BIOSSize},
		{Number: layout.NumberESP, Label: layout.LabelESP, Type: layout.TypeESP, Size: espSize},
		root,
	}
	if !s.machine().bios {
		return all[1:]
	}
	return all
}

// espFiles are those of the stage that makes the ESP, and what BIOS machines
// boot from.
func espFiles(s *state) []string {
	parts := s.diskParts("esp.img")
	return parts[:len(parts)-1]
}
