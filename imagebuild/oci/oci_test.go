package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/imagebuild/tree"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	var tr tree.Tree
	for _, err := range []error{
		tr.Bytes("/layers/base/etc/passwd", 0o644, []byte("root\n")),
		tr.Dir("/layers/base/tmp", fs.ModeSticky|0o777),
		tr.Bytes("/layers/bundle/bin/bundle", 0o755, []byte("program")),
		tr.Link("/layers/bundle/bin/etcd", "bundle"),
		tr.Bytes("/layers/bundle-too/x", 0o644, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &tr
}

func TestWriteLayer(t *testing.T) {
	var b bytes.Buffer
	if err := WriteLayer(&b, sample(t), "/layers/bundle"); err != nil {
		t.Fatal(err)
	}
	size, sum := int64(b.Len()), digest.FromBytes(b.Bytes())
	got, err := HashLayer(sample(t), "/layers/bundle")
	if err != nil || got.DiffID != sum || got.Size != size {
		t.Errorf("HashLayer: got %+v, %v, want %s of %d bytes", got, err, sum, size)
	}
	var names []string
	in := tar.NewReader(&b)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		names = append(names, h.Name+h.Linkname)
	}
	if got := strings.Join(names, " "); got != "bin/ bin/bundle bin/etcdbundle" {
		t.Errorf("tar: got %s", got)
	}
	b.Reset()
	if err := WriteLayer(&b, sample(t), "/layers/base"); err != nil {
		t.Fatal(err)
	}
	in = tar.NewReader(&b)
	for {
		h, err := in.Next()
		if err != nil {
			t.Fatalf("no tmp in the layer: %v", err)
		}
		if h.Name == "tmp/" {
			if h.Mode != 0o1777 {
				t.Errorf("tmp: got mode %o", h.Mode)
			}
			return
		}
	}
}

// put writes the layout of two images to a folder.
func put(t *testing.T) (string, map[string]Layer) {
	t.Helper()
	tr := sample(t)
	layers := map[string]Layer{}
	for _, name := range []string{"base", "bundle"} {
		layer, err := HashLayer(tr, "/layers/"+name)
		if err != nil {
			t.Fatal(err)
		}
		layers[name] = layer
	}
	var out tree.Tree
	err := Put(&out, Config{Arch: "amd64", Dir: "/images", LayersDir: "/layers", Layers: layers, Images: []Image{
		{Name: "registry.test/etcd:v3", Layers: []string{"base", "bundle"}, Entrypoint: []string{"etcd"}},
		{Name: "registry.test:5000/pause:3.10", Layers: []string{"base"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	entries, err := out.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Path)
		if e.Mode.IsDir() {
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		in, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "images"), layers
}

// TestReadBack reads the layout with another implementation.
func TestReadBack(t *testing.T) {
	dir, layers := put(t)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 2 {
		t.Fatalf("index: got %d images, want 2", len(manifest.Manifests))
	}
	first := manifest.Manifests[0]
	if first.Annotations[AnnotationName] != "registry.test/etcd:v3" || first.Annotations[ocispec.AnnotationRefName] != "v3" || first.Platform.Architecture != "amd64" {
		t.Errorf("descriptor: got %v, %v", first.Annotations, first.Platform)
	}
	image, err := index.Image(first.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile() // checks the config's digest on the way
	if err != nil {
		t.Fatal(err)
	}
	if len(config.RootFS.DiffIDs) != 2 || config.RootFS.DiffIDs[1].String() != layers["bundle"].DiffID.String() {
		t.Errorf("diff ids: got %v", config.RootFS.DiffIDs)
	}
	if config.Config.Entrypoint[0] != "etcd" || config.OS != "linux" || !strings.HasPrefix(config.Config.Env[0], "PATH=/usr/local/bin:") {
		t.Errorf("config: got %+v", config.Config)
	}
	m, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"base", "bundle"} {
		got := m.Layers[i]
		if got.Digest.String() != layers[name].DiffID.String() || got.Size != layers[name].Size || got.MediaType != types.OCIUncompressedLayer {
			t.Errorf("layer %s: got %+v, want %+v", name, got, layers[name])
		}
	}
}

func TestLayersFile(t *testing.T) {
	dir, layers := put(t)
	text, err := os.ReadFile(filepath.Join(dir, "layers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for name, layer := range layers {
		if got[layer.DiffID.String()] != "/layers/"+name {
			t.Errorf("layers.json: got %v, want %s at /layers/%s", got, layer.DiffID, name)
		}
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil || len(blobs) != 4 {
		t.Errorf("blobs: got %d, %v, want two manifests and two configs, no layer", len(blobs), err)
	}
}

func TestPutRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		image Image
		want  string
	}{
		{"no tag", Image{Name: "registry.test/etcd"}, "no tag"},
		{"port is no tag", Image{Name: "registry.test:5000/etcd"}, "no tag"},
		{"no layer", Image{Name: "registry.test/etcd:v3", Layers: []string{"absent"}}, "no layer absent"},
	} {
		if err := Put(&tree.Tree{}, Config{Dir: "/images", Images: []Image{c.image}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}
