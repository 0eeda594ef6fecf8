// Package systemimage knows the container images that are part of the operating system, and makes containerd know
// them without importing or unpacking anything.
//
// Its input is the OCI image layout that the image builder leaves in the verified root: manifests and configurations,
// but no layer blobs, because the layers are directories of the same root (layers.json says which). Load reads it;
// Ensure writes the records that containerd's CRI needs. It never pulls, never unpacks and never touches an image
// that it did not make. The snapshotter (node/snapshot) and containerd's plugin use both; node reads the names.
package systemimage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DefaultDir is where the image builder puts the layout.
const DefaultDir = "/usr/lib/keelson/images"

// nameAnnotation is containerd's annotation for the full reference of an image in a layout's index
// (containerd core/images/annotations.go).
const nameAnnotation = "io.containerd.image.name"

// layersFile maps a layer's uncompressed digest to its directory.
const layersFile = "layers.json"

// Layout is what the operating system carries.
type Layout struct {
	Dir    string // where it was loaded from
	Images []Image
}

// Image is one system image.
type Image struct {
	Name     string             // full reference, such as registry.keelson.internal/etcd:v3.7.3
	Manifest ocispec.Descriptor // as in the index, without annotations
	Config   ocispec.Descriptor
	Layers   []Layer // from the lowest up

	manifest, config []byte
}

// Layer is one layer of an image: a directory of the root.
type Layer struct {
	DiffID  digest.Digest
	ChainID digest.Digest // of this layer on those below it (OCI image specification, config.md, "Layer ChainID")
	Parent  digest.Digest // chain ID of the layer below, empty for the lowest
	Dir     string
}

// ChainID names the image's whole stack of layers.
func (i Image) ChainID() digest.Digest { return i.Layers[len(i.Layers)-1].ChainID }

// Load reads the layout in dir and checks it against itself.
func Load(dir string) (*Layout, error) {
	layout, err := load(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("load system images %s: %w", dir, err)
	}
	layout.Dir = dir
	return layout, nil
}

// Reference finds the full reference of the image with this short name ("etcd", "pause").
func (l *Layout) Reference(short string) (string, error) {
	for _, image := range l.Images {
		name := path.Base(image.Name)
		if at := strings.IndexAny(name, ":@"); at >= 0 {
			name = name[:at]
		}
		if name == short {
			return image.Name, nil
		}
	}
	return "", fmt.Errorf("find system image %q: the operating system has none of that name", short)
}

func load(root fs.FS) (*Layout, error) {
	var index ocispec.Index
	if err := readJSON(root, ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	dirs := map[digest.Digest]string{}
	if err := readJSON(root, layersFile, &dirs); err != nil {
		return nil, err
	}
	layout := &Layout{}
	seen := map[string]bool{}
	for _, descriptor := range index.Manifests {
		name := descriptor.Annotations[nameAnnotation]
		if name == "" {
			return nil, fmt.Errorf("%s: manifest %s has no annotation %s", ocispec.ImageIndexFile, descriptor.Digest, nameAnnotation)
		}
		if seen[name] {
			return nil, fmt.Errorf("%s: image %s is listed twice", ocispec.ImageIndexFile, name)
		}
		seen[name] = true
		image, err := loadImage(root, name, descriptor, dirs)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		layout.Images = append(layout.Images, image)
	}
	sort.Slice(layout.Images, func(a, b int) bool { return layout.Images[a].Name < layout.Images[b].Name })
	return layout, nil
}

func loadImage(root fs.FS, name string, descriptor ocispec.Descriptor, dirs map[digest.Digest]string) (Image, error) {
	image := Image{Name: name, Manifest: descriptor}
	image.Manifest.Annotations = nil
	var err error
	if image.manifest, err = readBlob(root, descriptor); err != nil {
		return Image{}, fmt.Errorf("manifest: %w", err)
	}
	manifest := struct {
		specs.Versioned
		Config ocispec.Descriptor   `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
	}{}
	if err := json.Unmarshal(image.manifest, &manifest); err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", descriptor.Digest, err)
	}
	image.Config = manifest.Config
	if image.config, err = readBlob(root, manifest.Config); err != nil {
		return Image{}, fmt.Errorf("config: %w", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(image.config, &config); err != nil {
		return Image{}, fmt.Errorf("config %s: %w", manifest.Config.Digest, err)
	}
	diffs := config.RootFS.DiffIDs
	if len(diffs) == 0 || len(diffs) != len(manifest.Layers) {
		return Image{}, fmt.Errorf("config names %d layers, manifest %d; both must name the same, at least one", len(diffs), len(manifest.Layers))
	}
	for i, diff := range diffs {
		dir, ok := dirs[diff]
		if !ok {
			return Image{}, fmt.Errorf("layer %d (%s) is not in %s", i, diff, layersFile)
		}
		if !filepath.IsAbs(dir) {
			return Image{}, fmt.Errorf("layer %d: directory %q in %s is not absolute", i, dir, layersFile)
		}
		layer := Layer{DiffID: diff, ChainID: identity.ChainID(diffs[:i+1]), Dir: filepath.Clean(dir)}
		if i > 0 {
			layer.Parent = image.Layers[i-1].ChainID
		}
		image.Layers = append(image.Layers, layer)
	}
	return image, nil
}

func readBlob(root fs.FS, descriptor ocispec.Descriptor) ([]byte, error) {
	if err := descriptor.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", descriptor.Digest, err)
	}
	blob, err := fs.ReadFile(root, path.Join(ocispec.ImageBlobsDir, descriptor.Digest.Algorithm().String(), descriptor.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	if int64(len(blob)) != descriptor.Size {
		return nil, fmt.Errorf("blob %s has %d bytes, its descriptor says %d", descriptor.Digest, len(blob), descriptor.Size)
	}
	if got := descriptor.Digest.Algorithm().FromBytes(blob); got != descriptor.Digest {
		return nil, fmt.Errorf("blob %s has the digest %s", descriptor.Digest, got)
	}
	return blob, nil
}

func readJSON(root fs.FS, name string, into any) error {
	data, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
	}
	return nil
}
