package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

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
