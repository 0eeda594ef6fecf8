package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/gobuild"
	"keelson/imagebuild/sbom"
	"keelson/init/layout"

	"golang.org/x/mod/module"
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
	linked, err := s.libraries()
	if err != nil {
		return err
	}
	where, err := goFolders()
	if err != nil {
		return err
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
		if err := where.licences(more); err != nil {
			return err
		}
		if name == gobuild.LinkedWithC {
			for _, l := range linked {
				more[0].Uses = append(more[0].Uses, l.ID())
			}
			more = append(more, linked...)
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

// libraries are those that programs in C are linked with. The sysroot has
// other packages beside them: headers, and what gcc only tries the linker with.
func (s *state) libraries() ([]sbom.Component, error) {
	var out []sbom.Component
	for _, p := range s.linked {
		archives, err := filepath.Glob(filepath.Join(p.Dir, "usr/lib", s.machine().triplet, "*.a"))
		if err != nil {
			return nil, err
		}
		builtin, err := filepath.Glob(filepath.Join(p.Dir, "usr/lib/gcc", s.machine().triplet, "*", "*.a"))
		if err != nil {
			return nil, err
		}
		if len(archives)+len(builtin) == 0 {
			continue
		}
		c, err := sbom.ReadDebian(sbom.Component{Kind: sbom.Library, Name: p.Name, Version: p.Version, Arch: s.config.Arch, SHA256: p.SHA256}, p.Dir)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// folders are where Go has its own library and modules.
type folders struct{ root, modules string }

func goFolders() (folders, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 2 {
		return folders{}, fmt.Errorf("ask go for its folders: %q, %w", out, err)
	}
	return folders{lines[0], lines[1]}, nil
}

// licences fills in what modules say of themselves. Their sources are there: the programs were compiled from them.
func (f folders) licences(components []sbom.Component) error {
	for i, c := range components {
		if c.Kind != sbom.Module {
			continue
		}
		dir := f.root
		if c.Name != sbom.Stdlib {
			name, err := module.EscapePath(c.Name)
			if err != nil {
				return fmt.Errorf("licence of %s: %w", c.Name, err)
			}
			version, err := module.EscapeVersion(c.Version)
			if err != nil {
				return fmt.Errorf("licence of %s: %w", c.Name, err)
			}
			dir = filepath.Join(f.modules, filepath.FromSlash(name)+"@"+version)
		}
		var err error
		if components[i].Licence, err = sbom.ModuleLicence(os.DirFS(dir)); err != nil {
			return fmt.Errorf("licence of %s: %w", c.Name, err)
		}
	}
	return nil
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
