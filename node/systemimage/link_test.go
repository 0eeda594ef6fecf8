package systemimage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"keelson/node/systemimage"
)

func TestLink(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), systemimage.Namespace)
	layout, root := layoutOf(t, "elf", both()...), t.TempDir()
	store := filepath.Join(root, "content")
	if err := systemimage.Link(store, layout); err != nil {
		t.Fatal(err)
	}
	d := openDatabase(t, root, layout)
	d.ensure(t, layout)
	d.requireUsable(t, layout)
	blob := filepath.Join(store, "blobs/sha256", layout.Images[0].Config.Digest.Encoded())
	if target, err := os.Readlink(blob); err != nil || filepath.Dir(filepath.Dir(filepath.Dir(target))) != layout.Dir {
		t.Errorf("got %q, %v, want a link into the layout", target, err)
	}
	got, err := content.ReadBlob(ctx, d.stores.Content, layout.Images[0].Config)
	if err != nil || int64(len(got)) != layout.Images[0].Config.Size {
		t.Errorf("read: got %d bytes, %v", len(got), err)
	}
}

func TestLinkIsPutRight(t *testing.T) {
	layout := layoutOf(t, "elf", both()...)
	want, err := os.ReadFile(filepath.Join(layout.Dir, "blobs/sha256", layout.Images[0].Config.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name     string
		before   func(path string) error
		wantLink bool
	}{
		{"nothing there", func(string) error { return nil }, true},
		{"link to nowhere", func(path string) error { return os.Symlink("/nowhere", path) }, true},
		{"file lost in a power cut", func(path string) error { return os.WriteFile(path, nil, 0o644) }, true},
		{"the store's own file", func(path string) error { return os.WriteFile(path, want, 0o644) }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			store := t.TempDir()
			path := filepath.Join(store, "blobs/sha256", layout.Images[0].Config.Digest.Encoded())
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.before(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := systemimage.Link(store, layout); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
				t.Errorf("got %q, %v, want the blob", got, err)
			}
			if _, err := os.Readlink(path); (err == nil) != c.wantLink {
				t.Errorf("link: got %v, want a link: %v", err, c.wantLink)
			}
		})
	}
}

// TestCollectedLinkLeavesTheRoot: garbage collection removes links, not what they point to.
func TestCollectedLinkLeavesTheRoot(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), systemimage.Namespace)
	layout, root := layoutOf(t, "elf", both()...), t.TempDir()
	store := filepath.Join(root, "content")
	if err := systemimage.Link(store, layout); err != nil {
		t.Fatal(err)
	}
	d := openDatabase(t, root, layout)
	d.ensure(t, layout)
	if err := d.stores.Images.Delete(ctx, etcdName); err != nil {
		t.Fatal(err)
	}
	if _, err := d.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("blobs/sha256", layout.Images[0].Config.Digest.Encoded())
	if _, err := os.Lstat(filepath.Join(store, name)); !os.IsNotExist(err) {
		t.Errorf("the link: got %v, want it collected", err)
	}
	if _, err := os.Stat(filepath.Join(layout.Dir, name)); err != nil {
		t.Errorf("the root's blob: %v", err)
	}
}
