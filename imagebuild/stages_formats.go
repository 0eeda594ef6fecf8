package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/imagebuild/cloud/gce"
	"keelson/imagebuild/cloud/ova"
	"keelson/imagebuild/cloud/qcow2"
	"keelson/imagebuild/cloud/vhd"
	"keelson/imagebuild/cloud/vmdk"
	"keelson/imagebuild/cloud/zst"
	"keelson/imagebuild/definition"
	"keelson/imagebuild/guid"
)

// format is an artefact that is made from the raw image.
type format struct {
	name  string // as --artefacts has it
	ext   string // in place of the raw's
	from  string // the artefact that it is made from; "": the raw
	write func(context.Context, *state, *os.File, *os.File, int64) error
}

// formats are all of them; what is made from another stands behind it.
func formats() []format {
	return []format{
		{name: "zst", ext: ".raw.zst", write: func(_ context.Context, _ *state, to, from *os.File, _ int64) error {
			return zst.Write(to, from)
		}},
		{name: "qcow2", ext: ".qcow2", write: func(ctx context.Context, _ *state, to, from *os.File, size int64) error {
			return qcow2.Write(ctx, to, from, size)
		}},
		{name: "vhd", ext: ".vhd", write: func(_ context.Context, s *state, to, from *os.File, size int64) error {
			_, err := vhd.Write(to, from, size, vhd.Options{Time: s.source.Epoch, UUID: guid.Derive(s.seed(), "vhd")})
			return err
		}},
		{name: "vmdk", ext: ".vmdk", write: func(ctx context.Context, s *state, to, from *os.File, size int64) error {
			return vmdk.Write(ctx, to, from, size, vmdk.Options{Name: filepath.Base(s.artefact(".vmdk")), ID: guid.Derive(s.seed(), "vmdk").Serial()})
		}},
		{name: "ova", ext: ".ova", from: "vmdk", write: func(_ context.Context, s *state, to, from *os.File, size int64) error {
			raw, err := os.Stat(s.config.Out)
			if err != nil {
				return fmt.Errorf("look at the raw image: %w", err)
			}
			return ova.Write(to, ova.Machine{
				Name: strings.TrimSuffix(filepath.Base(s.config.Out), ".raw"), Version: s.source.Version,
				Capacity: raw.Size(), CPUs: 2, Memory: 4096,
			}, from, size, s.source.Epoch)
		}},
		{name: "gce", ext: ".gce.tar.gz", write: func(ctx context.Context, s *state, to, from *os.File, size int64) error {
			return gce.Write(ctx, to, from, size, s.source.Epoch)
		}},
	}
}

// parseArtefacts reads the value of --artefacts: "all" for every format of the
// disk, or names with commas between them. The raw image is always made.
func parseArtefacts(value string) ([]string, error) {
	known := definition.Artefacts()
	if value == "all" {
		return slices.DeleteFunc(known, func(name string) bool { return name == definition.ISO }), nil
	}
	var out []string
	for _, name := range strings.Split(value, ",") {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("artefact %q: want all, or some of %s", name, strings.Join(known, ","))
		}
		out = append(out, name)
	}
	return out, nil
}

// formatStages are the stages of the artefacts that are wanted, and of those
// that these are made from.
func formatStages(wanted []string) []stage {
	var out []stage
	for _, f := range formats() {
		needed := slices.ContainsFunc(formats(), func(o format) bool { return o.from == f.name && slices.Contains(wanted, o.name) })
		if !needed && !slices.Contains(wanted, f.name) {
			continue
		}
		out = append(out, stage{
			name:  f.name,
			key:   func(s *state) (string, error) { return formatKey(s, f) },
			run:   func(ctx context.Context, s *state) error { return writeFormat(ctx, s, f) },
			files: func(s *state) []string { return []string{s.artefact(f.ext)} },
		})
	}
	return out
}

// artefact is the name of the raw image with another ending.
func (s *state) artefact(ext string) string { return strings.TrimSuffix(s.config.Out, ".raw") + ext }

// formatKey: the raw image is what its parts make it, so that it need not be
// read to see that nothing changed.
func formatKey(s *state, f format) (string, error) {
	disk, err := diskKey(s)
	return keyOf(f.name, disk, filepath.Base(s.artefact(f.ext)), s.source.Version, s.epoch()), err
}

func writeFormat(ctx context.Context, s *state, f format) error {
	source := s.config.Out
	for _, other := range formats() {
		if other.name == f.from {
			source = s.artefact(other.ext)
		}
	}
	from, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("open what it is made from: %w", err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return fmt.Errorf("open what it is made from: %w", err)
	}
	return replace(s.artefact(f.ext), func(to *os.File) error { return f.write(ctx, s, to, from, info.Size()) })
}
