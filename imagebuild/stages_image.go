package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keelson/imagebuild/authenticode"
	"keelson/imagebuild/cpio"
	"keelson/imagebuild/disk"
	"keelson/imagebuild/erofs"
	"keelson/imagebuild/guid"
	"keelson/imagebuild/input"
	"keelson/imagebuild/tree"
	"keelson/imagebuild/uki"
	"keelson/imagebuild/verity"
	"keelson/init/layout"
)

func (s *state) epoch() string { return fmt.Sprint(s.source.Epoch.Unix()) }

// seed stands for the content of the root: identifiers are derived from it.
func (s *state) seed() []byte {
	sum := sha256.Sum256([]byte(s.rootHash + " " + s.epoch()))
	return sum[:]
}

func rootKey(s *state) (string, error) {
	var err error
	if s.rootHash, err = s.memo.Digest(&s.root, "/"); err != nil {
		return "", err
	}
	key := keyOf("root", s.rootHash, s.epoch())
	// The stages behind need what writing the root gave.
	text, ok := s.memo.Get("verity " + key)
	if !ok {
		return key, nil
	}
	s.verity, err = layout.ParseVerity(text)
	return key, err
}

// writeRoot writes the EROFS and, behind it, its hash tree.
func writeRoot(_ context.Context, s *state) error {
	err := replace(s.part("root.erofs"), func(f *os.File) error {
		seed := s.seed()
		size, err := erofs.Write(f, &s.root, erofs.Options{Time: s.source.Epoch, UUID: guid.Derive(seed, "erofs")})
		if err != nil {
			return err
		}
		hashes, err := verity.Append(f, size, verity.Derive(seed))
		s.verity = hashes.Verity
		return err
	})
	if err != nil {
		return err
	}
	s.memo.Set("verity "+keyOf("root", s.rootHash, s.epoch()), s.verity.String())
	return nil
}

// initrdTree is the initramfs: init, the modules that find the root, and the
// console that the kernel opens before it starts init.
func (s *state) initrdTree() (*tree.Tree, error) {
	var t tree.Tree
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := t.Dir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	console := tree.Entry{Path: "/dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1}
	if err := t.Add(console); err != nil {
		return nil, err
	}
	if err := t.File("/init", 0o755, s.programs["init"]); err != nil {
		return nil, err
	}
	set, err := s.moduleSet(nil, s.config.Definition.Boot...)
	if err != nil {
		return nil, err
	}
	if err := set.Put(&t, "/lib/modules"); err != nil || !s.config.Definition.Firmware {
		return &t, err
	}
	blobs, err := s.findFirmware(set)
	if err != nil {
		return nil, err
	}
	return &t, blobs.Put(&t, "/lib/firmware")
}

func initrdKey(s *state) (string, error) {
	t, err := s.initrdTree()
	if err != nil {
		return "", err
	}
	digest, err := s.memo.Digest(t, "/")
	return keyOf("initrd", digest, s.epoch()), err
}

func writeInitrd(_ context.Context, s *state) error {
	t, err := s.initrdTree()
	if err != nil {
		return err
	}
	return replace(s.part("initrd"), func(f *os.File) error { return cpio.WriteZstd(f, t) })
}

// writeCmdline joins the definition's part of the command line with what ties
// it to this root.
func writeCmdline(_ context.Context, s *state) error {
	s.cmdline = strings.Join([]string{s.config.Definition.Cmdline(),
		layout.ParamSlot + "=" + string(layout.SlotA),
		layout.ParamVerity + "=" + s.verity.String(),
		layout.ParamEpoch + "=" + s.epoch()}, " ")
	return replace(s.part("cmdline"), func(f *os.File) error {
		_, err := f.WriteString(s.cmdline + "\n")
		return err
	})
}

// packageFile reads a file of a package.
func (s *state) packageFile(pkg, name string) ([]byte, error) {
	one, err := input.Find(s.packages, pkg)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(one.Dir, name))
}

func (s *state) hashes(files ...string) (string, error) {
	var sums []string
	for _, file := range files {
		sum, err := s.memo.File(file)
		if err != nil {
			return "", err
		}
		sums = append(sums, sum)
	}
	return strings.Join(sums, " "), nil
}

func (s *state) packageSum(pkg string) (string, error) {
	one, err := input.Find(s.packages, pkg)
	return one.SHA256, err
}

func ukiKey(s *state) (string, error) {
	sums, err := s.hashes(s.kernel.Image, s.part("initrd"))
	if err != nil {
		return "", err
	}
	stub, err := s.packageSum("systemd-boot-efi")
	return keyOf("uki", sums, s.cmdline, stub, string(s.source.osRelease()), s.signer.ID()), err
}

func writeUKI(_ context.Context, s *state) error {
	if err := replace(s.part("vmlinuz"), func(f *os.File) error { _, err := appendFile(f, s.kernel.Image); return err }); err != nil {
		return err
	}
	return s.unify(s.part("keelson.efi"), s.part("initrd"), s.cmdline)
}

// unify writes a unified kernel image that starts with that command line. The
// initramfs is never held in memory.
func (s *state) unify(name, initramfs, cmdline string) error {
	parts, stub, err := s.ukiParts(cmdline)
	if err != nil {
		return err
	}
	initrd, err := os.Open(initramfs)
	if err != nil {
		return fmt.Errorf("read initramfs: %w", err)
	}
	defer initrd.Close()
	info, err := initrd.Stat()
	if err != nil {
		return fmt.Errorf("read initramfs: %w", err)
	}
	return replace(name, func(f *os.File) error {
		if err := uki.Write(f, stub, parts, uki.Stream{Data: initrd, Size: info.Size()}); err != nil || s.signer == nil {
			return err
		}
		end, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if err := authenticode.SignFile(f, end, s.signer); err != nil {
			return fmt.Errorf("sign kernel image: %w", err)
		}
		return nil
	})
}

// ukiParts are the stub and what goes into a unified kernel image, but for the initramfs.
func (s *state) ukiParts(cmdline string) (uki.Parts, []byte, error) {
	linux, err := os.ReadFile(s.part("vmlinuz"))
	if err != nil {
		return uki.Parts{}, nil, fmt.Errorf("read kernel: %w", err)
	}
	stub, err := s.packageFile("systemd-boot-efi", "usr/lib/systemd/boot/efi/linux"+s.machine().efi+".efi.stub")
	if err != nil {
		return uki.Parts{}, nil, fmt.Errorf("read stub: %w", err)
	}
	return uki.Parts{OSRelease: s.source.osRelease(), Cmdline: cmdline, Uname: s.kernel.Release, Linux: linux}, stub, nil
}

func diskKey(s *state) (string, error) {
	sums, err := s.hashes(s.diskParts("esp.img")...)
	return keyOf("disk", sums, string(s.seed())), err
}

func writeDisk(_ context.Context, s *state) error {
	core, err := s.grubCore()
	if err != nil {
		return err
	}
	rootType, err := layout.RootType(s.config.Arch)
	if err != nil {
		return err
	}
	partitions := s.diskPartitions(layout.ESPSize,
		disk.Partition{Number: layout.NumberRootA, Label: layout.LabelRootA, Type: rootType, Attrs: layout.AttrRoot})
	end, err := fill(partitions, s.diskParts("esp.img"))
	defer end()
	if err != nil {
		return err
	}
	_, err = disk.Write(s.config.Out, disk.Image{Seed: s.seed(), BootCode: core.Boot, Partitions: partitions})
	return err
}

// fill opens the files of the partitions, in their order; end closes them.
func fill(partitions []disk.Partition, names []string) (end func(), err error) {
	var open []*os.File
	end = func() {
		for _, f := range open {
			f.Close()
		}
	}
	for i, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return end, fmt.Errorf("open part: %w", err)
		}
		open = append(open, f)
		info, err := f.Stat()
		if err != nil {
			return end, fmt.Errorf("open part: %w", err)
		}
		partitions[i].Data, partitions[i].Len = f, info.Size()
	}
	return end, nil
}

// replace writes a file whole or not at all.
func replace(name string, write func(*os.File) error) error {
	f, err := os.Create(name + ".part")
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer os.Remove(name + ".part")
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(name+".part", name); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
