package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/imagebuild/cpio"
	"keelson/imagebuild/definition"
	"keelson/imagebuild/tree"
	"keelson/init/layout"
)

// The stages of what a machine starts from over the network: a unified kernel
// image with the root inside, for UEFI; kernel and initramfs with the root, for
// iPXE on BIOS; and the script for iPXE that chooses.

// Endings of their names.
const (
	pxeKernelExt = ".pxe.vmlinuz"
	pxeInitrdExt = ".pxe.initrd"
	pxeUKIExt    = ".pxe.efi"
	pxeScriptExt = ".ipxe"
)

func pxeStages(wanted []string) []stage {
	if !slices.Contains(wanted, definition.PXE) {
		return nil
	}
	file := func(ext string) func(*state) []string {
		return func(s *state) []string { return []string{s.artefact(ext)} }
	}
	return []stage{
		{name: "network initramfs", key: pxeInitrdKey, run: writePXEInitrd, files: file(pxeInitrdExt)},
		{name: "network kernel image", key: pxeUKIKey, run: writePXEUKI, files: file(pxeUKIExt)},
		{name: "network kernel", key: pxeKernelKey, run: writePXEKernel, files: file(pxeKernelExt)},
		{name: "network script", run: writePXEScript, files: file(pxeScriptExt)},
	}
}

// pxeCmdline starts the same root from memory.
func (s *state) pxeCmdline() string {
	return s.cmdline + " " + layout.ParamLive + "=" + layout.LiveMemory
}

func pxeInitrdKey(s *state) (string, error) {
	sums, err := s.hashes(s.part("initrd"), s.part("root.erofs"))
	return keyOf("pxe initrd", sums), err
}

// writePXEInitrd puts the root behind the initramfs: the kernel unpacks
// archives one behind the other, each with its own compression, and passes
// over zeros between them.
func writePXEInitrd(_ context.Context, s *state) error {
	var root tree.Tree
	if err := root.File(layout.RootInMemory, 0o400, s.part("root.erofs")); err != nil {
		return err
	}
	return replace(s.artefact(pxeInitrdExt), func(f *os.File) error {
		n, err := appendFile(f, s.part("initrd"))
		if err != nil {
			return err
		}
		if _, err := f.Write(make([]byte, (4-n%4)%4)); err != nil {
			return err
		}
		return cpio.WriteZstd(f, &root)
	})
}

func appendFile(to io.Writer, name string) (int64, error) {
	in, err := os.Open(name)
	if err != nil {
		return 0, fmt.Errorf("copy part: %w", err)
	}
	defer in.Close()
	n, err := io.Copy(to, in)
	if err != nil {
		return n, fmt.Errorf("copy %s: %w", name, err)
	}
	return n, nil
}

func pxeUKIKey(s *state) (string, error) {
	key, err := ukiKey(s)
	if err != nil {
		return "", err
	}
	sum, err := s.hashes(s.artefact(pxeInitrdExt))
	return keyOf("pxe uki", key, sum, s.pxeCmdline()), err
}

func writePXEUKI(_ context.Context, s *state) error {
	return s.unify(s.artefact(pxeUKIExt), s.artefact(pxeInitrdExt), s.pxeCmdline())
}

func pxeKernelKey(s *state) (string, error) {
	sum, err := s.hashes(s.part("vmlinuz"))
	return keyOf("pxe kernel", sum), err
}

func writePXEKernel(_ context.Context, s *state) error {
	return replace(s.artefact(pxeKernelExt), func(f *os.File) error {
		_, err := appendFile(f, s.part("vmlinuz"))
		return err
	})
}

func writePXEScript(_ context.Context, s *state) error {
	return replace(s.artefact(pxeScriptExt), func(f *os.File) error {
		_, err := f.WriteString(s.pxeScript())
		return err
	})
}

// pxeScript is for iPXE, which looks for the files where the script came from.
// The kernel image is given its command line as well: systemd's stub takes what
// it is started with in place of its own, unless Secure Boot is on.
func (s *state) pxeScript() string {
	name := filepath.Base(strings.TrimSuffix(s.config.Out, ".raw"))
	return fmt.Sprintf(`#!ipxe
# Keelson %[1]s: starts from the network and runs in memory.
# Kernel parameters of your own go into the setting extra, before this script is chained to.
set cmdline %[2]s
iseq ${platform} efi && goto efi ||
kernel %[3]s%[4]s ${cmdline} ${extra}
initrd %[3]s%[5]s
boot
:efi
kernel %[3]s%[6]s ${cmdline} ${extra}
boot
`, s.source.Version, s.pxeCmdline(), name, pxeKernelExt, pxeInitrdExt, pxeUKIExt)
}
