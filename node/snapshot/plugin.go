package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	bolt "go.etcd.io/bbolt"

	"keelson/node/systemimage"
)

// ImagesPlugin is the ID of the plugin that tells containerd of the system images. Its full name is
// io.containerd.service.v1.keelson-system-images, for containerd's required_plugins.
const ImagesPlugin = "keelson-system-images"

// exportLayout is the key under which containerd's list of plugins shows where the system images come from.
const exportLayout = "layout"

// PluginConfig is the table [plugins.'io.containerd.snapshotter.v1.keelson'] of containerd's configuration.
type PluginConfig struct {
	// Root is where snapshots are; empty for containerd's usual place.
	Root string `toml:"root_path"`
	// Layout is the directory of the system images; empty for a machine without any.
	Layout string `toml:"layout"`
	// MountOptions are added to every overlay mount.
	MountOptions []string `toml:"mount_options"`
}

// Register adds the snapshotter, and the plugin that records the system images, to containerd's registry. containerd
// knows its plugins by registration before it starts; upstream's do so when they are imported, ours when the bundle
// calls this.
func Register() {
	registry.Register(&plugin.Registration{
		Type:   plugins.SnapshotPlugin,
		ID:     Name,
		Config: &PluginConfig{Layout: systemimage.DefaultDir},
		InitFn: newPlugin,
	})
	registry.Register(&plugin.Registration{
		// The CRI's image service requires every plugin of this type, so that the images are recorded before it
		// reads the list.
		Type:     plugins.ServicePlugin,
		ID:       ImagesPlugin,
		Requires: []plugin.Type{plugins.ContentPlugin, plugins.MetadataPlugin, plugins.LeasePlugin, plugins.SnapshotPlugin},
		InitFn:   ensureImages,
	})
}

func newPlugin(ic *plugin.InitContext) (any, error) {
	config, ok := ic.Config.(*PluginConfig)
	if !ok {
		return nil, fmt.Errorf("configure snapshotter %s: unexpected type %T", Name, ic.Config)
	}
	root := ic.Properties[plugins.PropertyRootDir]
	if config.Root != "" {
		root = config.Root
	}
	var layout *systemimage.Layout
	if config.Layout != "" {
		var err error
		if layout, err = systemimage.Load(config.Layout); err != nil {
			return nil, err
		}
	}
	// The same choices and announcements as containerd's overlay plugin makes by default
	// (plugins/snapshots/overlay/plugin): removal in the background, ID-mapped mounts where the kernel has them.
	opts := []overlay.Opt{overlay.AsynchronousRemove}
	if len(config.MountOptions) > 0 {
		opts = append(opts, overlay.WithMountOptions(config.MountOptions))
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	ic.Meta.Capabilities = append(ic.Meta.Capabilities, "only-remap-ids", snapshots.RebaseCap)
	if mapped, err := overlayutils.SupportsIDMappedMounts(); err == nil && mapped {
		opts = append(opts, overlay.WithRemapIDs)
		ic.Meta.Capabilities = append(ic.Meta.Capabilities, "remap-ids")
	}
	ic.Meta.Exports[plugins.SnapshotterRootDir] = root
	ic.Meta.Exports[exportLayout] = config.Layout
	return New(Config{Root: root, Layout: layout, Overlay: opts})
}

// ensureImages records the system images in containerd's metadata, in one transaction of its database.
func ensureImages(ic *plugin.InitContext) (any, error) {
	raw, err := ic.GetByID(plugins.SnapshotPlugin, Name)
	if err != nil {
		return nil, err
	}
	layout := raw.(*Snapshotter).Layout()
	if layout == nil {
		return nil, fmt.Errorf("no system images are configured: %w", plugin.ErrSkipPlugin)
	}
	database, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, err
	}
	manager, err := ic.GetSingle(plugins.LeasePlugin)
	if err != nil {
		return nil, err
	}
	blobs := ic.Plugins().Get(plugins.ContentPlugin, "content")
	if blobs == nil || blobs.Meta.Exports["root"] == "" {
		return nil, errors.New("record system images: containerd's content store does not say where it is")
	}
	start := time.Now()
	if err := systemimage.Link(blobs.Meta.Exports["root"], layout); err != nil {
		return nil, err
	}
	if err := record(ic.Context, database.(*metadata.DB), manager.(leases.Manager), layout); err != nil {
		return nil, err
	}
	log.G(ic.Context).WithField("images", len(layout.Images)).WithField("took", time.Since(start).String()).Info("system images recorded")
	return struct{}{}, nil
}

func record(ctx context.Context, db *metadata.DB, manager leases.Manager, layout *systemimage.Layout) error {
	snapshotter := db.Snapshotter(Name)
	if snapshotter == nil {
		return errors.New("record system images: containerd has no snapshotter " + Name)
	}
	stores := systemimage.Stores{
		Images:      metadata.NewImageStore(db),
		Content:     db.ContentStore(),
		Leases:      manager,
		Snapshots:   snapshotter,
		Snapshotter: Name,
	}
	if stale, err := systemimage.Stale(ctx, stores, layout); err != nil || !stale {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		return systemimage.Ensure(boltutil.WithTransaction(ctx, tx), stores, layout)
	})
}
