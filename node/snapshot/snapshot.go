// Package snapshot is containerd's snapshotter "keelson": its overlay snapshotter, which also has the layers of the
// system images without unpacking them, because they are directories of the verified root.
//
// It answers for those layers as remote snapshotters do (containerd docs/remote-snapshotter.md): Prepare with the
// label containerd.io/snapshot.ref naming a system layer's chain commits a snapshot and returns "already exists". The
// committed snapshot is one of the overlay snapshotter's, except that its fs directory is a symbolic link to the
// layer's directory; mount(2) resolves it, nothing ever writes through it, and its removal removes the link.
// Everything else is the overlay snapshotter's business. containerd in the bundle uses it; systemimage tells it what
// the layers are.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"keelson/node/systemimage"
)

// Name is the snapshotter's name in containerd.
const Name = "keelson"

const (
	// namePrefix begins the names of committed system layers in the overlay snapshotter's database; the chain ID
	// follows. containerd's own names there begin with a namespace and a number.
	namePrefix = "keelson/system/"
	// labelLayer holds the digest of the layer a snapshot links to.
	labelLayer = "keelson.internal/layer"
	// metadataFile is where the overlay snapshotter keeps its database if it is left to open it itself.
	metadataFile = "metadata.db"
)

// Config says where snapshots are and what the system layers are.
type Config struct {
	Root    string              // directory of the snapshots; made if absent
	Layout  *systemimage.Layout // nil for none
	Overlay []overlay.Opt
}

// Snapshotter implements containerd's snapshots.Snapshotter and snapshots.Cleaner.
type Snapshotter struct {
	snapshots.Snapshotter
	store  *storage.MetaStore
	root   string
	layout *systemimage.Layout
	chains map[string]systemimage.Layer
}

// New opens the snapshots below the root and puts the links of system layers right.
func New(config Config) (*Snapshotter, error) {
	if err := os.MkdirAll(config.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make snapshot root: %w", err)
	}
	store, err := storage.NewMetaStore(filepath.Join(config.Root, metadataFile))
	if err != nil {
		return nil, fmt.Errorf("open snapshot database: %w", err)
	}
	inner, err := overlay.NewSnapshotter(config.Root, append(config.Overlay, overlay.WithMetaStore(store))...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open overlay snapshots: %w", err), store.Close())
	}
	s := &Snapshotter{
		Snapshotter: inner, store: store, root: config.Root,
		layout: config.Layout, chains: map[string]systemimage.Layer{},
	}
	if config.Layout != nil {
		for _, image := range config.Layout.Images {
			for _, layer := range image.Layers {
				s.chains[layer.ChainID.String()] = layer
			}
		}
	}
	if err := s.relink(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("relink system layers: %w", err), s.Close())
	}
	if err := s.seed(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("commit system layers: %w", err), s.Close())
	}
	return s, nil
}

// Layout is the system images whose layers the snapshotter has.
func (s *Snapshotter) Layout() *systemimage.Layout { return s.layout }

// Prepare makes an active snapshot, or says "already exists" when it is asked for a system layer by name.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	chain := info.Labels[snapshots.LabelSnapshotRef]
	layer, ok := s.chains[chain]
	// A layer on a parent that was unpacked the ordinary way is unpacked too: the chain's names would not match.
	if !ok || parent != backendName(layer.Parent) {
		return s.Snapshotter.Prepare(ctx, key, parent, opts...)
	}
	if err := s.ensure(ctx, layer); err != nil {
		return nil, fmt.Errorf("commit system layer %s: %w", layer.DiffID, err)
	}
	return nil, fmt.Errorf("system layer %s: %w", chain, errdefs.ErrAlreadyExists)
}

// Cleanup removes the directories of snapshots that are gone.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	return s.Snapshotter.(snapshots.Cleaner).Cleanup(ctx)
}

// seed commits every system layer at once when the first is missing: a commit waits for the disk, and on a first
// boot there would be one for each.
func (s *Snapshotter) seed(ctx context.Context) error {
	if s.layout == nil {
		return nil
	}
	var layers []systemimage.Layer
	for _, image := range s.layout.Images {
		layers = append(layers, image.Layers...)
	}
	return s.ensure(ctx, layers...)
}

// ensure makes the committed snapshots of those system layers that have none; a parent comes before its children.
func (s *Snapshotter) ensure(ctx context.Context, layers ...systemimage.Layer) (err error) {
	missing, err := s.missing(ctx, layers)
	if err != nil || len(missing) == 0 {
		return err
	}
	var dirs []string
	defer func() {
		if err != nil {
			for _, dir := range dirs {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}
	}()
	return s.store.WithTransaction(ctx, true, func(ctx context.Context) error {
		for _, layer := range missing {
			if there, err := committed(ctx, layer); err != nil || there {
				if err != nil {
					return err
				}
				continue // another image's too, or another call was faster
			}
			dir, err := s.commit(ctx, layer)
			dirs = append(dirs, dir)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// missing returns the layers that have no snapshot, without writing.
func (s *Snapshotter) missing(ctx context.Context, layers []systemimage.Layer) (missing []systemimage.Layer, err error) {
	err = s.store.WithTransaction(ctx, false, func(ctx context.Context) error {
		for _, layer := range layers {
			there, err := committed(ctx, layer)
			if err != nil {
				return err
			}
			if !there {
				missing = append(missing, layer)
			}
		}
		return nil
	})
	return missing, err
}

func committed(ctx context.Context, layer systemimage.Layer) (bool, error) {
	_, _, _, err := storage.GetInfo(ctx, backendName(layer.ChainID))
	return err == nil, ignoreNotFound(err)
}

// commit makes one committed snapshot inside a transaction and returns its directory.
func (s *Snapshotter) commit(ctx context.Context, layer systemimage.Layer) (dir string, err error) {
	name := backendName(layer.ChainID)
	labels := snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotRef: layer.ChainID.String(),
		labelLayer:                 layer.DiffID.String(),
	})
	active, err := storage.CreateSnapshot(ctx, snapshots.KindActive, name+" active", backendName(layer.Parent), labels)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(s.root, "snapshots", active.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return dir, err
	}
	if err := os.Symlink(layer.Dir, filepath.Join(dir, "fs")); err != nil {
		return dir, err
	}
	_, err = storage.CommitActive(ctx, name+" active", name, snapshots.Usage{}, labels)
	return dir, err
}

// relink points every system layer's link at the directory the layer has now. After an update of the operating
// system a layer may have moved, and the directory of a layer that is gone may hold another one's files: its link is
// left pointing nowhere, so that a container of the old image cannot start from files that are not its own.
func (s *Snapshotter) relink(ctx context.Context) error {
	dirs := map[string]string{}
	for _, layer := range s.chains {
		dirs[layer.DiffID.String()] = layer.Dir
	}
	return s.store.WithTransaction(ctx, false, func(ctx context.Context) error {
		ids, err := storage.IDMap(ctx)
		if err != nil {
			// The database has no bucket before the first snapshot.
			return ignoreNotFound(err)
		}
		for id, name := range ids {
			if !strings.HasPrefix(name, namePrefix) {
				continue
			}
			_, info, _, err := storage.GetInfo(ctx, name)
			if err != nil {
				return err
			}
			digest := info.Labels[labelLayer]
			target, ok := dirs[digest]
			if !ok {
				target = filepath.Join(s.root, "gone", digest)
			}
			if err := ensureLink(target, filepath.Join(s.root, "snapshots", id, "fs")); err != nil {
				return err
			}
		}
		return nil
	})
}

// ensureLink makes path a symbolic link to target, replacing another link in one step.
func ensureLink(target, path string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// backendName is the name of a committed system layer in the overlay snapshotter's database.
func backendName(chain digest.Digest) string {
	if chain == "" {
		return ""
	}
	return namePrefix + chain.String()
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
