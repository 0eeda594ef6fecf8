// Package layouttest writes small layouts of system images for tests: real manifests and configurations, and layer
// directories with the files a test asks for. Only tests use it.
package layouttest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is the content of one layer: file names and what they hold. All files are executable.
type Layer map[string]string

// Image is one image of a layout; Layers names its layers from the lowest up.
type Image struct {
	Name    string
	Layers  []string
	Command []string
}

// Write makes the layout in dir/images and the layers' directories in dir/layers, and returns the former.
func Write(t testing.TB, dir string, layers map[string]Layer, images ...Image) string {
	t.Helper()
	layout := filepath.Join(dir, "images")
	dirs, blobs := map[digest.Digest]string{}, map[string]ocispec.Descriptor{}
	for name, files := range layers {
		root := filepath.Join(dir, "layers", name)
		blob := tarOf(t, root, files)
		diff := digest.FromBytes(blob)
		dirs[diff] = root
		blobs[name] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diff, Size: int64(len(blob))}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, image := range images {
		config := ocispec.Image{Config: ocispec.ImageConfig{Entrypoint: image.Command}}
		config.OS, config.Architecture, config.RootFS.Type = "linux", runtime.GOARCH, "layers"
		manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		for _, name := range image.Layers {
			blob, ok := blobs[name]
			if !ok {
				t.Fatalf("image %s: no layer %s", image.Name, name)
			}
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, blob.Digest)
			manifest.Layers = append(manifest.Layers, blob)
		}
		manifest.Config = writeBlob(t, layout, ocispec.MediaTypeImageConfig, config)
		descriptor := writeBlob(t, layout, ocispec.MediaTypeImageManifest, manifest)
		descriptor.Annotations = map[string]string{"io.containerd.image.name": image.Name}
		index.Manifests = append(index.Manifests, descriptor)
	}
	write(t, filepath.Join(layout, ocispec.ImageIndexFile), marshal(t, index), 0o644)
	write(t, filepath.Join(layout, "layers.json"), marshal(t, dirs), 0o644)
	return layout
}

func tarOf(t testing.TB, root string, files Layer) []byte {
	t.Helper()
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var blob bytes.Buffer
	archive := tar.NewWriter(&blob)
	for _, name := range names {
		write(t, filepath.Join(root, name), []byte(files[name]), 0o755)
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return blob.Bytes()
}

func writeBlob(t testing.TB, layout, mediaType string, value any) ocispec.Descriptor {
	t.Helper()
	blob := marshal(t, value)
	sum := digest.FromBytes(blob)
	write(t, filepath.Join(layout, ocispec.ImageBlobsDir, "sha256", sum.Encoded()), blob, 0o644)
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(blob))}
}

func marshal(t testing.TB, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}
