// Package oci describes the system images: real OCI images whose layers are
// directories of the verified root and not archives. It writes an image
// layout without layer blobs, and layers.json, which says for each layer's
// diff id which directory holds it. A layer's digest is that of the
// deterministic tar of its directory, uncompressed, so digest and diff id are
// the same and anyone can check them against the root.
//
// Formats: opencontainers/image-spec, config.md, manifest.md and
// image-layout.md. Nothing is fetched or pushed. The builder calls it; on the
// machine node and its snapshotter read what it wrote.
package oci

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"keelson/imagebuild/tree"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AnnotationName carries the full name of an image in index.json; containerd
// takes it from there (containerd core/images/annotations.go).
const AnnotationName = "io.containerd.image.name"

// Image is one system image.
type Image struct {
	Name       string   // full name with registry and tag
	Layers     []string // names of layers, lowest first
	Entrypoint []string
}

// Layer is a directory that serves as a layer.
type Layer struct {
	DiffID digest.Digest
	Size   int64 // of the tar
}

// HashLayer makes the tar of the directory at dir of t and returns its digest
// and size.
func HashLayer(t *tree.Tree, dir string) (Layer, error) {
	h := sha256.New()
	count := &counter{w: h}
	if err := WriteLayer(count, t, dir); err != nil {
		return Layer{}, fmt.Errorf("hash layer %s: %w", dir, err)
	}
	return Layer{DiffID: digest.NewDigest(digest.SHA256, h), Size: count.n}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// WriteLayer writes the tar: entries sorted, everything root's, all times
// zero, so that equal contents have equal digests whenever they are built.
func WriteLayer(w io.Writer, t *tree.Tree, dir string) error {
	entries, err := t.Entries()
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	buffer := make([]byte, 1<<20)
	for _, e := range entries {
		name, below := strings.CutPrefix(e.Path, dir+"/")
		if !below {
			continue
		}
		h := &tar.Header{Name: name, Mode: int64(e.Mode.Perm()), Uid: int(e.UID), Gid: int(e.GID), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if e.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		switch e.Mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, e.Size
		default:
			return fmt.Errorf("write layer: %s is of type %v", e.Path, e.Mode.Type())
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("write layer: %s: %w", e.Path, err)
		}
		if h.Size == 0 {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{f}, buffer)
		f.Close()
		if err != nil {
			return fmt.Errorf("write layer: %s: %w", e.Path, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

// Config is what Put needs.
type Config struct {
	Arch      string
	Dir       string           // where the layout goes in the tree
	LayersDir string           // directory of the layers in the tree
	Layers    map[string]Layer // by name
	Images    []Image
}

// Put adds the image layout to the tree.
func Put(t *tree.Tree, config Config) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, image := range config.Images {
		descriptor, err := putImage(t, config, image)
		if err != nil {
			return fmt.Errorf("put image %s: %w", image.Name, err)
		}
		index.Manifests = append(index.Manifests, descriptor)
	}
	paths := map[digest.Digest]string{}
	for name, layer := range config.Layers {
		paths[layer.DiffID] = path.Join(config.LayersDir, name)
	}
	for name, value := range map[string]any{
		"index.json":            index,
		"layers.json":           paths,
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
	} {
		text, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			return fmt.Errorf("render %s: %w", name, err)
		}
		if err := t.Bytes(path.Join(config.Dir, name), 0o644, append(text, '\n')); err != nil {
			return err
		}
	}
	return nil
}

func putImage(t *tree.Tree, config Config, image Image) (ocispec.Descriptor, error) {
	platform := ocispec.Platform{Architecture: config.Arch, OS: "linux"}
	about := ocispec.Image{
		Platform: platform,
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
			Entrypoint: image.Entrypoint,
			WorkingDir: "/",
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, name := range image.Layers {
		layer, ok := config.Layers[name]
		if !ok {
			return ocispec.Descriptor{}, fmt.Errorf("there is no layer %s", name)
		}
		about.RootFS.DiffIDs = append(about.RootFS.DiffIDs, layer.DiffID)
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: layer.DiffID, Size: layer.Size})
	}
	var err error
	if manifest.Config, err = putBlob(t, config.Dir, ocispec.MediaTypeImageConfig, about); err != nil {
		return ocispec.Descriptor{}, err
	}
	descriptor, err := putBlob(t, config.Dir, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tag := image.Name[strings.LastIndexByte(image.Name, ':')+1:]
	if tag == image.Name || strings.Contains(tag, "/") {
		return ocispec.Descriptor{}, fmt.Errorf("the name has no tag")
	}
	descriptor.Platform = &platform
	descriptor.Annotations = map[string]string{AnnotationName: image.Name, ocispec.AnnotationRefName: tag}
	return descriptor, nil
}

func putBlob(t *tree.Tree, dir, mediaType string, value any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("render %s: %w", mediaType, err)
	}
	sum := digest.FromBytes(text)
	if err := t.Bytes(path.Join(dir, ocispec.ImageBlobsDir, "sha256", sum.Encoded()), 0o644, text); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(text))}, nil
}
