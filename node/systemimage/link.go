package systemimage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Link puts the layout's manifests and configurations into the directory of containerd's content store as symbolic
// links to the verified root, where the store has no file of its own. Ensure then finds every blob there and only
// records it: a blob that is written costs three waits for the disk (containerd plugins/content/local/writer.go), a
// link none. The links are put right at every start, so that a power cut or a new operating system leaves no wrong
// one; the store removes those that nothing refers to any more.
func Link(store string, layout *Layout) error {
	for _, image := range layout.Images {
		for _, blob := range []ocispec.Descriptor{image.Manifest, image.Config} {
			if err := linkBlob(store, layout.Dir, blob); err != nil {
				return fmt.Errorf("link blob %s of %s: %w", blob.Digest, image.Name, err)
			}
		}
	}
	return nil
}

func linkBlob(store, layout string, blob ocispec.Descriptor) error {
	name := filepath.Join(ocispec.ImageBlobsDir, blob.Digest.Algorithm().String(), blob.Digest.Encoded())
	source, path := filepath.Join(layout, name), filepath.Join(store, name)
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		if info.Mode().IsRegular() && info.Size() == blob.Size {
			return nil
		}
		if target, err := os.Readlink(path); err == nil && target == source {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Made outside of the blobs' directory, where every name is taken for a digest.
	fresh := filepath.Join(store, "system-image-link")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(source, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
