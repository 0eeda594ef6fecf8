package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"keelson/node/systemimage"
	"keelson/node/systemimage/layouttest"
)

const name = "registry.keelson.internal/etcd:v3.7.3"

func testLayout(t *testing.T) *systemimage.Layout {
	t.Helper()
	layout, err := systemimage.Load(layouttest.Write(t, t.TempDir(),
		map[string]layouttest.Layer{"base": {"etc/passwd": "root", "both": "base"}, "bundle": {"bin/bundle": "elf", "both": "bundle"}},
		layouttest.Image{Name: name, Layers: []string{"base", "bundle"}}))
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

func open(t *testing.T, root string, layout *systemimage.Layout) *Snapshotter {
	t.Helper()
	s, err := New(Config{Root: root, Layout: layout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// prepareLayer asks for a layer as an unpacker does.
func prepareLayer(s *Snapshotter, layer systemimage.Layer) error {
	_, err := s.Prepare(context.Background(), "extract "+layer.ChainID.String(), backendName(layer.Parent),
		snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: layer.ChainID.String()}))
	return err
}

func prepareAll(t *testing.T, s *Snapshotter, layout *systemimage.Layout) {
	t.Helper()
	for _, image := range layout.Images {
		for _, layer := range image.Layers {
			if err := prepareLayer(s, layer); !errdefs.IsAlreadyExists(err) {
				t.Fatalf("prepare %s: got %v, want already exists", layer.Dir, err)
			}
		}
	}
}

func TestSystemLayerIsThere(t *testing.T) {
	layout := testLayout(t)
	s := open(t, t.TempDir(), layout)
	prepareAll(t, s, layout)
	prepareAll(t, s, layout) // a second namespace or a second start
	var found []string
	err := s.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		found = append(found, info.Labels[snapshots.LabelSnapshotRef])
		if info.Kind != snapshots.KindCommitted {
			t.Errorf("%s is %s, want committed", info.Name, info.Kind)
		}
		return nil
	}, `labels."containerd.io/snapshot.ref"==`+layout.Images[0].ChainID().String())
	if err != nil || len(found) != 1 {
		t.Errorf("got %v, %v, want the one snapshot that containerd looks for", found, err)
	}
	usage, err := s.Usage(context.Background(), backendName(layout.Images[0].ChainID()))
	if err != nil || usage.Size != 0 {
		t.Errorf("usage: got %+v, %v, want none: the layer is not on this disk", usage, err)
	}
}

func TestOrdinaryLayers(t *testing.T) {
	layout := testLayout(t)
	base, bundle := layout.Images[0].Layers[0], layout.Images[0].Layers[1]
	cases := []struct{ name, ref, parent string }{
		{"no reference", "", ""},
		{"a chain that is not the system's", "sha256:1111", ""},
		{"upper layer without its parent", bundle.ChainID.String(), ""},
		{"lowest layer on a parent", base.ChainID.String(), "ordinary"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, s := context.Background(), open(t, t.TempDir(), layout)
			if _, err := s.Prepare(ctx, "first", ""); err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(ctx, "ordinary", "first"); err != nil {
				t.Fatal(err)
			}
			mounts, err := s.Prepare(ctx, "key", c.parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: c.ref}))
			if err != nil || len(mounts) == 0 {
				t.Errorf("got %v, %v, want mounts to unpack into", mounts, err)
			}
		})
	}
}

func TestMountSystemLayers(t *testing.T) {
	requireOverlay(t)
	ctx, layout := context.Background(), testLayout(t)
	s := open(t, t.TempDir(), layout)
	prepareAll(t, s, layout)
	mounts, err := s.Prepare(ctx, "container", backendName(layout.Images[0].ChainID()))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := mount.All(mounts, root); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mount.UnmountAll(root, 0); err != nil {
			t.Error(err)
		}
	}()
	for file, want := range map[string]string{"etc/passwd": "root", "bin/bundle": "elf", "both": "bundle"} {
		if got, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
	// What a container writes stays above the layer.
	if err := os.WriteFile(filepath.Join(root, "both"), []byte("container"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "bin/bundle")); err != nil {
		t.Fatal(err)
	}
	requireIntact(t, layout)
}

func TestViewSystemLayer(t *testing.T) {
	requireOverlay(t)
	layout := testLayout(t)
	s := open(t, t.TempDir(), layout)
	prepareAll(t, s, layout)
	mounts, err := s.View(context.Background(), "view", backendName(layout.Images[0].Layers[0].ChainID))
	if err != nil {
		t.Fatal(err)
	}
	err = mount.WithReadonlyTempMount(context.Background(), mounts, func(root string) error {
		got, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
		if string(got) != "root" {
			t.Errorf("got %q, want the layer's file", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func requireIntact(t *testing.T, layout *systemimage.Layout) {
	t.Helper()
	for _, layer := range layout.Images[0].Layers {
		want := filepath.Base(layer.Dir)
		if got, err := os.ReadFile(filepath.Join(layer.Dir, "both")); err != nil || string(got) != want {
			t.Errorf("layer %s: got %q, %v, want it untouched", want, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(layout.Images[0].Layers[1].Dir, "bin/bundle")); err != nil {
		t.Error(err)
	}
}

func TestRemoveLeavesTheLayer(t *testing.T) {
	ctx, layout, root := context.Background(), testLayout(t), t.TempDir()
	s := open(t, root, layout)
	prepareAll(t, s, layout)
	if err := s.Remove(ctx, backendName(layout.Images[0].Layers[0].ChainID)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove a parent: got %v, want failed precondition", err)
	}
	for _, layer := range []systemimage.Layer{layout.Images[0].Layers[1], layout.Images[0].Layers[0]} {
		if err := s.Remove(ctx, backendName(layer.ChainID)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(root, "snapshots"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the snapshot directory: %v, %v, want nothing", left, err)
	}
	requireIntact(t, layout)
	prepareAll(t, s, layout) // and it can come back
}

func TestNewOperatingSystem(t *testing.T) {
	ctx, root, old := context.Background(), t.TempDir(), testLayout(t)
	s := open(t, root, old)
	prepareAll(t, s, old)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The new one has the same base in another place, and another bundle.
	next, err := systemimage.Load(layouttest.Write(t, t.TempDir(),
		map[string]layouttest.Layer{"base": {"etc/passwd": "root", "both": "base"}, "bundle": {"bin/bundle": "elf 2", "both": "bundle"}},
		layouttest.Image{Name: name, Layers: []string{"base", "bundle"}}))
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, root, next)
	if err := prepareLayer(s, old.Images[0].Layers[1]); errdefs.IsAlreadyExists(err) {
		t.Error("the old bundle is still answered for")
	}
	_, err = s.Prepare(ctx, "old container", backendName(old.Images[0].ChainID()))
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a container of the old image: got %v, want it refused", err)
	}
	prepareAll(t, s, next)
	if _, err := s.Prepare(ctx, "new container", backendName(next.Images[0].ChainID())); err != nil {
		t.Error(err)
	}
	links, err := filepath.Glob(filepath.Join(root, "snapshots", "*", "fs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(target, filepath.Dir(old.Images[0].Layers[0].Dir)) {
			t.Errorf("%s still points into the old root: %s", link, target)
		}
	}
	if err := s.Remove(ctx, backendName(old.Images[0].ChainID())); err != nil {
		t.Errorf("remove the old chain: %v", err)
	}
	requireIntact(t, old)
	requireIntact(t, next)
}

// TestLinkLostInPowerCut: the database is on the disk before the link is.
func TestLinkLostInPowerCut(t *testing.T) {
	layout, root := testLayout(t), t.TempDir()
	s := open(t, root, layout)
	prepareAll(t, s, layout)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "snapshots")); err != nil {
		t.Fatal(err)
	}
	s = open(t, root, layout)
	if _, err := s.Prepare(context.Background(), "container", backendName(layout.Images[0].ChainID())); err != nil {
		t.Error(err)
	}
}
