package systemimage_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"keelson/node/snapshot"
	"keelson/node/systemimage"
	"keelson/node/systemimage/layouttest"
)

const (
	etcdName  = "registry.keelson.internal/etcd:v3.7.3"
	pauseName = "registry.keelson.internal/pause:3.10"
)

// database is containerd's own, on a disk of the test.
type database struct {
	*metadata.DB
	bolt   *bolt.DB
	snaps  *snapshot.Snapshotter
	stores systemimage.Stores
}

func layoutOf(t *testing.T, bundle string, images ...layouttest.Image) *systemimage.Layout {
	t.Helper()
	layers := map[string]layouttest.Layer{"base": {"etc/passwd": "root"}, "bundle": {"bin/bundle": bundle}, "pause": {"bin/pause": "elf"}}
	layout, err := systemimage.Load(layouttest.Write(t, t.TempDir(), layers, images...))
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

func both() []layouttest.Image {
	return []layouttest.Image{{Name: etcdName, Layers: []string{"base", "bundle"}}, {Name: pauseName, Layers: []string{"pause"}}}
}

func openDatabase(t *testing.T, root string, layout *systemimage.Layout) *database {
	t.Helper()
	blobs, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	snapshotter, err := snapshot.New(snapshot.Config{Root: filepath.Join(root, "snapshots"), Layout: layout, Overlay: []overlay.Opt{overlay.AsynchronousRemove}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{snapshot.Name: snapshotter})
	if err := db.Init(context.Background()); err != nil {
		t.Fatal(err)
	}
	d := &database{DB: db, bolt: file, snaps: snapshotter, stores: systemimage.Stores{
		Images: metadata.NewImageStore(db), Content: db.ContentStore(), Leases: metadata.NewLeaseManager(db),
		Snapshots: db.Snapshotter(snapshot.Name), Snapshotter: snapshot.Name,
	}}
	t.Cleanup(func() { d.close() })
	return d
}

func (d *database) close() {
	d.DB.Close()
	d.bolt.Close()
	d.snaps.Close()
}

func (d *database) ensure(t *testing.T, layout *systemimage.Layout) {
	t.Helper()
	if err := systemimage.Ensure(context.Background(), d.stores, layout); err != nil {
		t.Fatal(err)
	}
}

// requireUsable checks what the CRI needs of each image, after containerd's garbage collector has had its way.
func (d *database) requireUsable(t *testing.T, layout *systemimage.Layout) {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), systemimage.Namespace)
	if _, err := d.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range layout.Images {
		image, err := d.stores.Images.Get(ctx, want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if image.Labels["io.cri-containerd.image"] != "managed" || image.Labels["io.cri-containerd.pinned"] != "pinned" {
			t.Errorf("%s: labels %v, want managed and pinned", want.Name, image.Labels)
		}
		ready, _, _, missing, err := images.Check(ctx, d.stores.Content, image.Target, nil)
		if err != nil || !ready {
			t.Errorf("%s: check: got %v, %v, want ready", want.Name, ready, err)
		}
		if len(missing) != len(want.Layers) {
			t.Errorf("%s: missing content %v, want the %d layers and nothing else", want.Name, missing, len(want.Layers))
		}
		info, err := d.stores.Snapshots.Stat(ctx, want.ChainID().String())
		if err != nil || info.Kind != snapshots.KindCommitted {
			t.Errorf("%s: snapshot: got %v, %v, want committed", want.Name, info.Kind, err)
		}
	}
	if left, err := d.stores.Leases.List(ctx); err != nil || len(left) != 0 {
		t.Errorf("leases: got %v, %v, want none", left, err)
	}
}

func TestEnsure(t *testing.T) {
	layout := layoutOf(t, "elf", both()...)
	d := openDatabase(t, t.TempDir(), layout)
	d.ensure(t, layout)
	d.requireUsable(t, layout)
	stale, err := systemimage.Stale(context.Background(), d.stores, layout)
	if err != nil || stale {
		t.Errorf("after: got stale %v, %v, want nothing to do", stale, err)
	}
	before := d.bolt.Stats().TxStats.Write
	d.ensure(t, layout)
	if after := d.bolt.Stats().TxStats.Write; after != before {
		t.Errorf("the second time wrote %d pages, want none", after-before)
	}
}

// TestEnsureInOneTransaction is how containerd's plugin calls it.
func TestEnsureInOneTransaction(t *testing.T) {
	layout := layoutOf(t, "elf", both()...)
	d := openDatabase(t, t.TempDir(), layout)
	err := d.Update(func(tx *bolt.Tx) error {
		return systemimage.Ensure(boltutil.WithTransaction(context.Background(), tx), d.stores, layout)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.requireUsable(t, layout)
}

func TestEnsureRepairs(t *testing.T) {
	ctx := namespaces.WithNamespace(context.Background(), systemimage.Namespace)
	cases := []struct {
		name   string
		damage func(*testing.T, *database, *systemimage.Layout)
	}{
		{"image deleted", func(t *testing.T, d *database, _ *systemimage.Layout) {
			if err := d.stores.Images.Delete(ctx, etcdName); err != nil {
				t.Fatal(err)
			}
		}},
		{"image deleted and collected", func(t *testing.T, d *database, _ *systemimage.Layout) {
			if err := d.stores.Images.Delete(ctx, etcdName); err != nil {
				t.Fatal(err)
			}
			if _, err := d.GarbageCollect(ctx); err != nil {
				t.Fatal(err)
			}
		}},
		{"label lost", func(t *testing.T, d *database, l *systemimage.Layout) {
			if _, err := d.stores.Images.Update(ctx, images.Image{Name: etcdName, Target: l.Images[0].Manifest, Labels: map[string]string{}}, "labels"); err != nil {
				t.Fatal(err)
			}
		}},
		{"config deleted", func(t *testing.T, d *database, l *systemimage.Layout) {
			if err := d.stores.Content.Delete(ctx, l.Images[0].Config.Digest); err != nil {
				t.Fatal(err)
			}
		}},
		{"blob labels lost", func(t *testing.T, d *database, l *systemimage.Layout) {
			info, err := d.stores.Content.Info(ctx, l.Images[0].Config.Digest)
			if err != nil {
				t.Fatal(err)
			}
			info.Labels = nil
			if _, err := d.stores.Content.Update(ctx, info, "labels"); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			layout := layoutOf(t, "elf", both()...)
			d := openDatabase(t, t.TempDir(), layout)
			d.ensure(t, layout)
			c.damage(t, d, layout)
			if stale, err := systemimage.Stale(ctx, d.stores, layout); err != nil || !stale {
				t.Errorf("got stale %v, %v, want the damage seen", stale, err)
			}
			d.ensure(t, layout)
			d.requireUsable(t, layout)
		})
	}
}

func TestEnsureAfterUpdate(t *testing.T) {
	ctx := namespaces.WithNamespace(context.Background(), systemimage.Namespace)
	root := t.TempDir()
	old := layoutOf(t, "elf", append(both(), layouttest.Image{Name: "registry.keelson.internal/gone:v1", Layers: []string{"base"}})...)
	d := openDatabase(t, root, old)
	d.ensure(t, old)
	foreign := images.Image{Name: "docker.io/library/app:1", Target: old.Images[0].Manifest}
	if _, err := d.stores.Images.Create(ctx, foreign); err != nil {
		t.Fatal(err)
	}
	d.close()

	next := layoutOf(t, "elf of the next version", both()...) // same names, another bundle
	d = openDatabase(t, root, next)
	d.ensure(t, next)
	d.requireUsable(t, next)
	if _, err := d.stores.Images.Get(ctx, "registry.keelson.internal/gone:v1"); !errdefs.IsNotFound(err) {
		t.Errorf("an image that the operating system no longer has: got %v, want it gone", err)
	}
	if _, err := d.stores.Images.Get(ctx, foreign.Name); err != nil {
		t.Errorf("somebody else's image: got %v, want it kept", err)
	}
	if err := d.stores.Images.Delete(ctx, foreign.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := d.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := d.stores.Snapshots.Stat(ctx, old.Images[0].ChainID().String()); !errdefs.IsNotFound(err) {
		t.Errorf("the old bundle's snapshot: got %v, want it collected", err)
	}
	if _, err := os.Stat(filepath.Join(old.Images[0].Layers[1].Dir, "bin/bundle")); err != nil {
		t.Errorf("collecting a snapshot touched its layer: %v", err)
	}
}

func TestEnsureWithoutTheSnapshotter(t *testing.T) {
	layout := layoutOf(t, "elf", both()...)
	d := openDatabase(t, t.TempDir(), nil) // an overlay that knows no system layers
	err := systemimage.Ensure(context.Background(), d.stores, layout)
	if err == nil || !strings.Contains(err.Error(), "does not have layer") {
		t.Errorf("got %v, want an error that names the layer", err)
	}
	ctx := namespaces.WithNamespace(context.Background(), systemimage.Namespace)
	if left, err := d.stores.Images.List(ctx); err != nil || len(left) != 0 {
		t.Errorf("images: got %v, %v, want none: none would start", left, err)
	}
	if left, err := d.stores.Leases.List(ctx); err != nil || len(left) != 0 {
		t.Errorf("leases: got %v, %v, want none", left, err)
	}
}
