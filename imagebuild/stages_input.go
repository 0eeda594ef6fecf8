package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/kernel"
)

func lockFile(arch string) string { return filepath.Join("configs", "packages", arch+".lock") }

// openPackages reads list and lock of the image's Debian packages.
func openPackages(config Config) (*input.Packages, error) {
	listFile := filepath.Join("configs", "packages", config.Arch+".list")
	text, err := os.ReadFile(listFile)
	if err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	list, err := input.LoadList(listFile, text)
	if err != nil {
		return nil, err
	}
	var locked []apt.Package
	if text, err = os.ReadFile(lockFile(config.Arch)); err == nil {
		locked, err = input.LoadLock(lockFile(config.Arch), text)
	} else if os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return input.New(input.Config{
		List: list, Lock: locked, Strict: config.Locked, Cache: config.Cache, Log: config.Log,
		Open: func() (input.Archive, error) {
			return apt.New(apt.Config{Dir: filepath.Join(config.Cache, "apt-"+config.Arch), Suite: list.Suite, Arch: config.Arch})
		},
	}), nil
}

// lock writes the newest versions into the lock file.
func lock(ctx context.Context, config Config) error {
	packages, err := openPackages(config)
	if err != nil {
		return err
	}
	newest, err := packages.Newest(ctx)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	text := input.RenderLock(newest)
	old, err := os.ReadFile(lockFile(config.Arch))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("lock: %w", err)
	}
	if bytes.Equal(old, text) {
		config.Log.Info(lockFile(config.Arch) + ": every package is the newest already")
		return nil
	}
	before, err := input.LoadLock(lockFile(config.Arch), old)
	if err != nil {
		before = nil // a lock that cannot be read is what this command repairs
	}
	for _, line := range input.Changes(before, newest) {
		config.Log.Info(line)
	}
	if err := os.WriteFile(lockFile(config.Arch)+".part", text, 0o644); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if err := os.Rename(lockFile(config.Arch)+".part", lockFile(config.Arch)); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

func getPackages(ctx context.Context, s *state) error {
	packages, err := openPackages(s.config)
	if err != nil {
		return err
	}
	s.packages, err = packages.Ensure(ctx)
	return err
}

func openKernel(_ context.Context, s *state) error {
	one, err := input.Find(s.packages, "linux-image-6.12-cloud-amd64")
	if err != nil {
		return err
	}
	s.kernel, err = kernel.Open(one.Dir, filepath.Join(s.config.Cache, "modules", one.SHA256))
	return err
}

func buildPrograms(ctx context.Context, s *state) error {
	stamps, err := gobuild.Stamps(s.source.Modules, s.source.BundleCommit, s.source.BundleEpoch)
	if err != nil {
		return err
	}
	s.programs, err = gobuild.Build(ctx, gobuild.Config{Out: s.part("bin"), Arch: s.config.Arch, Stamps: stamps}, gobuild.Programs())
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

// moduleSet is the closure of names and module lists of configs/modules.
func (s *state) moduleSet(names []string, lists ...string) (*kernel.Set, error) {
	for _, list := range lists {
		file := filepath.Join("configs", "modules", list+".list")
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
