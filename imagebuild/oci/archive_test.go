package oci

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"
)

// archive is a tar of name, content, name, content …
func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	named  = `{"schemaVersion":2,"manifests":[{"annotations":{"io.containerd.image.name":"registry.example/b:2","org.opencontainers.image.ref.name":"2"}},{"annotations":{"org.opencontainers.image.ref.name":"registry.example/a:1"}},{}]}`
	docker = `[{"RepoTags":["registry.example:5000/c/d:3"]},{"RepoTags":null}]`
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"OCI", []string{"blobs/sha256/x", "x", "./index.json", named}, "registry.example/a:1 registry.example/b:2"},
		{"docker", []string{"manifest.json", docker}, "registry.example:5000/c/d:3"},
		{"both", []string{"manifest.json", docker, "index.json", named}, "registry.example/a:1 registry.example/b:2 registry.example:5000/c/d:3"},
	} {
		got, err := Names(bytes.NewReader(archive(t, c.files...)))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, %v, want %s", c.name, got, err, c.want)
		}
	}
}

func TestNamesRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"compressed", "not compressed", append([]byte{0x1f, 0x8b}, make([]byte, 1000)...)},
		{"something else", "neither index.json", archive(t, "etc/passwd", "x")},
		{"broken", "index.json: ", archive(t, "index.json", "{")},
		{"no name", "no image in it has a name", archive(t, "index.json", `{"manifests":[{}]}`)},
		{"a tag alone", `"latest": want a full name`, archive(t, "index.json", `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`)},
		{"no registry", `"app:1": want a full name`, archive(t, "manifest.json", `[{"RepoTags":["app:1"]}]`)},
		{"too long", "more than", archive(t, "index.json", strings.Repeat(" ", maxIndex+1))},
	} {
		if _, err := Names(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add([]byte(named), []byte(docker))
	f.Fuzz(func(t *testing.T, index, manifest []byte) {
		names, err := Names(bytes.NewReader(archive(t, "index.json", string(index), "manifest.json", string(manifest))))
		if err != nil {
			return
		}
		if len(names) == 0 || !slices.IsSorted(names) {
			t.Errorf("Names: got %q", names)
		}
		for _, n := range names {
			if !strings.Contains(n, "/") || !strings.Contains(n, ":") || strings.Contains(n, "\n") {
				t.Errorf("Names: %q is no full name", n)
			}
		}
	})
}
