package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"keelson/imagebuild/rootfs"
	"keelson/imagebuild/tree"
	"keelson/init/layout"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/erofs/go-erofs"
)

func rules(arch string) rootfs.Rules {
	return rootfs.Rules{
		Arch: arch, Layers: layout.Layers, Factory: layout.FactoryEtc,
		Runtime: []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var"},
	}
}

func lintRoot(_ context.Context, s *state) error { return lintTree(&s.root, s.config.Arch) }

func lintTree(t *tree.Tree, arch string) error {
	wrong, err := rootfs.Lint(t, rules(arch))
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d things must not be in a root:\n  %s", len(wrong), strings.Join(wrong, "\n  "))
	}
	return nil
}

// lint checks a directory, an EROFS image, or slot A of a disk image.
func lint(name, arch string, stdout io.Writer) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("lint: %w", err)
	}
	fsys := os.DirFS(name)
	if !info.IsDir() {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("lint: %w", err)
		}
		defer f.Close()
		if fsys, err = openImage(f); err != nil {
			return fmt.Errorf("lint %s: %w", name, err)
		}
	}
	t, err := rootfs.Load(fsys)
	if err != nil {
		return fmt.Errorf("lint %s: %w", name, err)
	}
	if err := lintTree(t, arch); err != nil {
		return fmt.Errorf("lint %s: %w", name, err)
	}
	fmt.Fprintf(stdout, "%s: %d entries, nothing wrong\n", name, t.Len())
	return nil
}

func openImage(f *os.File) (fs.FS, error) {
	if fsys, err := erofs.Open(f); err == nil {
		return fsys, nil
	}
	table, err := gpt.Read(f, layout.SectorSize, layout.SectorSize)
	if err != nil {
		return nil, fmt.Errorf("neither an EROFS nor a disk with a GPT: %w", err)
	}
	for _, p := range table.Partitions {
		if p.Name == layout.LabelRootA {
			start := int64(p.Start) * layout.SectorSize
			return erofs.Open(io.NewSectionReader(f, start, int64(p.End+1)*layout.SectorSize-start))
		}
	}
	return nil, fmt.Errorf("the disk has no partition %s", layout.LabelRootA)
}
