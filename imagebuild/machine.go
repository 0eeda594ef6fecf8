package main

import (
	"fmt"
	"runtime"
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

// diskParts are the files that the disk's partitions hold.
func (s *state) diskParts() []string {
	if s.machine().bios {
		return []string{s.part("core.img"), s.part("esp.img"), s.part("root.erofs")}
	}
	return []string{s.part("esp.img"), s.part("root.erofs")}
}

// espFiles are those of the stage that makes the ESP, and what BIOS machines
// boot from.
func espFiles(s *state) []string {
	parts := s.diskParts()
	return parts[:len(parts)-1]
}
