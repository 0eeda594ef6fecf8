package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keelson/imagebuild/definition"
	"keelson/imagebuild/firmware"
	"keelson/imagebuild/input"
	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/kernel"
)

// packageLists are the lists of configs/packages that an image needs, without
// the ending: what every image of the architecture has, its kernel, and
// firmware.
func packageLists(arch, flavour string, firmware bool) []string {
	lists := []string{arch, arch + "-" + flavour}
	if firmware {
		lists = append(lists, arch+"-firmware")
	}
	return lists
}

func lockFile(list string) string { return filepath.Join("configs", "packages", list+".lock") }

// openPackages reads list and lock of Debian packages.
func openPackages(config Config, name string) (*input.Packages, error) {
	listFile := filepath.Join("configs", "packages", name+".list")
	text, err := os.ReadFile(listFile)
	if err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	list, err := input.LoadList(listFile, text)
	if err != nil {
		return nil, err
	}
	var locked []apt.Package
	if text, err = os.ReadFile(lockFile(name)); err == nil {
		locked, err = input.LoadLock(lockFile(name), text)
	} else if os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	// A client of other components has indexes of its own.
	state := strings.Join(append([]string{"apt", config.Arch}, list.Components...), "-")
	return input.New(input.Config{
		List: list, Lock: locked, Strict: config.Locked, Cache: config.Cache, Log: config.Log,
		Open: func() (input.Archive, error) {
			return apt.New(apt.Config{Dir: filepath.Join(config.Cache, state), Suite: list.Suite, Components: list.Components, Arch: config.Arch})
		},
	}), nil
}

// lock writes the newest versions into the lock files of an architecture.
func lock(ctx context.Context, config Config) error {
	lists, err := filepath.Glob(filepath.Join("configs", "packages", config.Arch+"*.list"))
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	for _, file := range lists {
		if err := lockList(ctx, config, strings.TrimSuffix(filepath.Base(file), ".list")); err != nil {
			return err
		}
	}
	return nil
}

func lockList(ctx context.Context, config Config, name string) error {
	packages, err := openPackages(config, name)
	if err != nil {
		return err
	}
	newest, err := packages.Newest(ctx)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	text := input.RenderLock(newest)
	old, err := os.ReadFile(lockFile(name))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("lock: %w", err)
	}
	if bytes.Equal(old, text) {
		config.Log.Info(lockFile(name) + ": every package is the newest already")
		return nil
	}
	before, err := input.LoadLock(lockFile(name), old)
	if err != nil {
		before = nil // a lock that cannot be read is what this command repairs
	}
	for _, line := range input.Changes(before, newest) {
		config.Log.Info(line)
	}
	return replace(lockFile(name), func(f *os.File) error { _, err := f.Write(text); return err })
}

func getPackages(ctx context.Context, s *state) error {
	s.packages = nil
	for _, list := range packageLists(s.config.Arch, s.config.Definition.Kernel, s.config.Definition.Firmware) {
		packages, err := openPackages(s.config, list)
		if err != nil {
			return err
		}
		more, err := packages.Ensure(ctx)
		if err != nil {
			return err
		}
		s.packages = append(s.packages, more...)
	}
	return nil
}

// kernelPackage is the metapackage of a kernel of Debian.
func kernelPackage(arch, flavour string) string {
	if flavour == definition.Generic {
		return "linux-image-6.12-" + arch
	}
	return "linux-image-6.12-" + flavour + "-" + arch
}

func openKernel(_ context.Context, s *state) error {
	one, err := input.Find(s.packages, kernelPackage(s.config.Arch, s.config.Definition.Kernel))
	if err != nil {
		return err
	}
	s.kernel, err = kernel.Open(one.Dir, filepath.Join(s.config.Cache, "modules", one.SHA256))
	return err
}

// findFirmware is the firmware that a set of modules names.
func (s *state) findFirmware(set *kernel.Set) (*firmware.Set, error) {
	var packages []firmware.Package
	for _, p := range s.packages {
		if strings.HasPrefix(p.Name, "firmware-") {
			packages = append(packages, firmware.Package{Name: p.Name, Dir: p.Dir})
		}
	}
	return firmware.Find(packages, set.Firmware())
}

// sysroot has all that programs in C are linked with, as locked packages: a machine's own C library is of another version on
// each machine, and that of a cross compiler has no corrections of security.
func (s *state) sysroot(ctx context.Context) (string, error) {
	packages, err := openPackages(s.config, s.config.Arch+"-sysroot")
	if err != nil {
		return "", err
	}
	ready, err := packages.Ensure(ctx)
	if err != nil {
		return "", err
	}
	s.linked = ready
	dir, err := input.Merge(filepath.Join(s.config.Cache, "sysroot"), ready)
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

func buildPrograms(ctx context.Context, s *state) error {
	stamps, err := gobuild.Stamps(s.source.Modules, s.source.BundleCommit, s.source.BundleEpoch)
	if err != nil {
		return err
	}
	config := gobuild.Config{Out: s.config.Bin, Arch: s.config.Arch, Stamps: stamps, Triplet: s.machine().triplet, Foreign: foreign(s.config.Arch)}
	if config.Sysroot, err = s.sysroot(ctx); err != nil {
		return err
	}
	s.programs, err = gobuild.Build(ctx, config, gobuild.Programs())
	return err
}

// programFiles are the binaries in a fixed order.
func (s *state) programFiles() []string {
	var out []string
	for _, name := range gobuild.Names(s.programs) {
		out = append(out, s.programs[name])
	}
	return out
}

// moduleSet is the closure of names and of the names in files.
func (s *state) moduleSet(names []string, files ...string) (*kernel.Set, error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read module list: %w", err)
		}
		more, err := kernel.LoadList(file, text)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return s.kernel.Closure(names)
}

// loadedAtBoot are the modules that modules-load.d(5) files name: init loads
// them whatever devices there are, so the root must have them.
func loadedAtBoot() ([]string, error) {
	files, err := filepath.Glob("configs/modules-load.d/*.conf")
	if err != nil {
		return nil, fmt.Errorf("look for modules-load.d: %w", err)
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read modules-load.d: %w", err)
		}
		more, err := kernel.LoadList(file, text)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}
