package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keelson/imagebuild/input"
	"keelson/imagebuild/input/apt"
	"keelson/imagebuild/sbom"
)

// Modules lie in Go's cache under names with escapes.
func TestLicences(t *testing.T) {
	where := folders{root: t.TempDir(), modules: t.TempDir()}
	text, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{where.root, filepath.Join(where.modules, "example.test/!big/v2@v2.0.0-!r!c")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "LICENSE"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := []sbom.Component{
		{Kind: sbom.Program, Name: "node", Version: "1"}, {Kind: sbom.Module, Name: sbom.Stdlib, Version: "1.26"},
		{Kind: sbom.Module, Name: "example.test/Big/v2", Version: "v2.0.0-RC"},
	}
	if err := where.licences(list); err != nil {
		t.Fatal(err)
	}
	if list[0].Licence != "" || list[1].Licence != "Apache-2.0" || list[2].Licence != "Apache-2.0" {
		t.Errorf("got %+v", list)
	}
	list[2].Version = "v3.0.0"
	if err := where.licences(list); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that is not in the cache: got %v", err)
	}
	if found, err := goFolders(); err != nil || !filepath.IsAbs(found.root) || !filepath.IsAbs(found.modules) {
		t.Errorf("go's folders: got %+v, %v", found, err)
	}
}

// Of what the linker has before it, libraries are in the bill: they are in the
// program. Headers are not.
func TestLibraries(t *testing.T) {
	s, _ := newState(t)
	s.config.Arch = "arm64"
	for name, file := range map[string]string{
		"libseven-dev": "usr/lib/aarch64-linux-gnu/libseven.a", "libgcc-12-dev": "usr/lib/gcc/aarch64-linux-gnu/12/libgcc.a",
		"linux-libc-dev": "usr/include/linux/limits.h", "libeight-dev": "usr/lib/x86_64-linux-gnu/libeight.a",
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{file: "x", "usr/share/doc/" + name + "/copyright": "License: MIT\n"} {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.linked = append(s.linked, input.Package{Package: apt.Package{Name: name, Version: "1"}, Dir: dir})
	}
	got, err := s.libraries()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range got {
		if c.Kind != sbom.Library || c.Arch != "arm64" || c.Version != "1" {
			t.Errorf("got %+v", c)
		}
		names = append(names, c.Name)
	}
	slices.Sort(names)
	if want := []string{"libgcc-12-dev", "libseven-dev"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
