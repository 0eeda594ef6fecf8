package main

// The stage of the EFI system partition.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keelson/imagebuild/disk"
	"keelson/imagebuild/esp"
	"keelson/imagebuild/grub"
	"keelson/imagebuild/guid"
	"keelson/imagebuild/input"
	"keelson/imagebuild/uki"
	"keelson/init/layout"
	"keelson/init/userdata"
)

func espKey(s *state) (string, error) {
	sums, err := s.hashes(s.part("keelson.efi"))
	if err != nil {
		return "", err
	}
	boot, err := s.packageSum("systemd-boot-efi")
	if err != nil {
		return "", err
	}
	seed, err := s.userData()
	if err != nil {
		return "", err
	}
	bios := ""
	if s.machine().bios {
		if bios, err = s.packageSum("grub-pc-bin"); err != nil {
			return "", err
		}
	}
	trust, err := s.trustKey()
	return keyOf("esp 2", sums, boot, bios, s.cmdline, string(seed), string(s.seed()), s.epoch(), trust), err
}

// userData is what the definition embeds; a machine would refuse what is
// refused here.
func (s *state) userData() ([]byte, error) {
	name := s.config.Definition.UserData
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read user-data: %w", err)
	}
	_, problems := userdata.Load(userdata.Documents{User: []userdata.Document{{Source: name, Data: text}}})
	if !userdata.Refused(problems) {
		return text, nil
	}
	var lines []string
	for _, p := range problems {
		if p.Fatal {
			lines = append(lines, p.String())
		}
	}
	return nil, fmt.Errorf("a machine would refuse the user-data of this image:\n  %s", strings.Join(lines, "\n  "))
}

// writeESP writes the EFI system partition, which BIOS machines boot from as
// well, and GRUB's core image.
func writeESP(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	if s.machine().bios {
		if err := replace(s.part("core.img"), func(f *os.File) error { _, err := f.Write(core.Image); return err }); err != nil {
			return err
		}
	}
	core.CD = nil
	return s.system(core, "esp.img", "keelson.efi", s.cmdline, layout.ESPSize)
}

// system writes an EFI system partition that starts a unified kernel image, or by BIOS the kernel in it. core says what else
// there is to start the medium with.
func (s *state) system(core grub.Core, name, unified, cmdline string, size int64) error {
	p := esp.Parts{Arch: s.config.Arch, Slot: string(layout.SlotA)}
	var err error
	if p.UKI, err = os.ReadFile(s.part(unified)); err != nil {
		return fmt.Errorf("read kernel image: %w", err)
	}
	if s.machine().bios {
		linux, initrd, err := uki.Locate(p.UKI)
		if err != nil {
			return err
		}
		p.GrubConfig, err = grub.RenderConfig([]grub.Entry{{
			Title: "Keelson " + s.source.Version, Cmdline: cmdline,
			Image: esp.UKIPath(p.Slot), Kernel: grub.Extent(linux), Initrd: grub.Extent(initrd),
		}})
		if err != nil {
			return err
		}
	}
	if p.Loader, err = s.packageFile("systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-boot"+s.machine().efi+".efi"); err != nil {
		return fmt.Errorf("read boot loader: %w", err)
	}
	if p.Loader, err = s.sign("boot loader", p.Loader); err != nil {
		return err
	}
	if p.Enroll, err = s.enrolled(); err != nil {
		return err
	}
	files, err := esp.Contents(p)
	if err != nil {
		return err
	}
	seed, err := s.userData()
	if err != nil {
		return err
	}
	if len(seed) > 0 {
		if err := files.Bytes(layout.ESPDir+"/user-data", 0o644, seed); err != nil {
			return err
		}
	}
	if err := s.putSums(files, core); err != nil {
		return err
	}
	return replace(s.part(name), func(f *os.File) error {
		return esp.Write(f, files, esp.Options{
			Size: size, Label: layout.LabelESP, Serial: guid.Derive(s.seed(), name).Serial(), Time: s.source.Epoch,
		})
	})
}

// grubCore is empty where there is no BIOS.
func (s *state) grubCore() (grub.Core, error) {
	if !s.machine().bios {
		return grub.Core{}, nil
	}
	one, err := input.Find(s.packages, "grub-pc-bin")
	if err != nil {
		return grub.Core{}, err
	}
	// The BIOS boot partition is the first: it begins where partitions may.
	return grub.Build(os.DirFS(filepath.Join(one.Dir, "usr/lib/grub/i386-pc")), disk.FirstLBA, layout.NumberESP, esp.GrubDir)
}
