package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/sbom"
	"keelson/init/layout"
)

// putSBOM makes the bills of materials and puts them into the root.
func putSBOM(s *state) error {
	suite, err := packageSuite(s.config)
	if err != nil {
		return err
	}
	doc := sbom.Document{Name: s.config.Definition.Name + "-" + s.config.Arch, Version: s.source.Version, Suite: suite, Time: s.source.Epoch}
	for _, p := range s.packages {
		c, err := sbom.ReadDebian(sbom.Component{Kind: sbom.Debian, Name: p.Name, Version: p.Version, Arch: s.config.Arch, SHA256: p.SHA256}, p.Dir)
		if err != nil {
			return err
		}
		doc.Components = append(doc.Components, c)
	}
	for _, name := range gobuild.Names(s.programs) {
		sum, err := s.memo.File(s.programs[name])
		if err != nil {
			return err
		}
		more, err := sbom.ReadProgram(name, s.source.Version, s.programs[name], sum)
		if err != nil {
			return err
		}
		doc.Components = append(doc.Components, more...)
	}
	s.bill = doc
	if s.spdx, err = doc.SPDX(); err != nil {
		return err
	}
	if s.cyclonedx, err = doc.CycloneDX(); err != nil {
		return err
	}
	dir := path.Dir(layout.Manifest)
	if err := s.root.Bytes(dir+"/sbom.spdx.json", 0o644, s.spdx); err != nil {
		return err
	}
	return s.root.Bytes(dir+"/sbom.cdx.json", 0o644, s.cyclonedx)
}

// packageSuite is the release of Debian that the packages of every image come from.
func packageSuite(config Config) (string, error) {
	file := filepath.Join("configs", "packages", config.Arch+".list")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read package list: %w", err)
	}
	list, err := input.LoadList(file, text)
	return list.Suite, err
}

// writeSBOM writes the same bills beside the image.
func writeSBOM(_ context.Context, s *state) error {
	for ending, text := range map[string][]byte{".spdx.json": s.spdx, ".cdx.json": s.cyclonedx} {
		if err := replace(s.artefact(ending), func(f *os.File) error { _, err := f.Write(text); return err }); err != nil {
			return fmt.Errorf("bill of materials: %w", err)
		}
	}
	return nil
}
