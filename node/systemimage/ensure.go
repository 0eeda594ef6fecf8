package systemimage

import (
	"bytes"
	"context"
	"fmt"
	"maps"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Namespace is containerd's namespace of the CRI (containerd internal/cri/constants).
const Namespace = "k8s.io"

// Labels of an image record. The first two are the CRI's (containerd internal/cri/labels): an image it may use as its
// own, and one that kubelet never garbage-collects. The third marks the records that Ensure made and may drop.
const (
	labelManaged, managed = "io.cri-containerd.image", "managed"
	labelPinned, pinned   = "io.cri-containerd.pinned", "pinned"
	labelSystem, system   = "keelson.internal/system-image", "true"
)

// Labels by which containerd's garbage collector finds what an image needs (containerd docs/garbage-collection.md).
const (
	labelRefConfig   = "containerd.io/gc.ref.content.config"
	labelRefSnapshot = "containerd.io/gc.ref.snapshot."
)

// Stores are the parts of containerd that hold what an image is. A client of a running containerd has them, and so
// does containerd's own metadata database.
type Stores struct {
	Images      images.Store
	Content     content.Store
	Leases      leases.Manager
	Snapshots   snapshots.Snapshotter
	Snapshotter string // the name Snapshots has in containerd
}

// Ensure makes every image of the layout usable by the CRI, and drops the records of system images that the layout
// does not have, which are those of an older operating system. It only reads when nothing is to be done.
func Ensure(ctx context.Context, stores Stores, layout *Layout) (err error) {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	if stale, err := stores.stale(ctx, layout); err != nil || !stale {
		return err
	}
	// Until an image record points at them, blobs and snapshots are kept by a lease.
	lease, err := stores.Leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return fmt.Errorf("lease system images: %w", err)
	}
	leased := leases.WithLease(ctx, lease.ID)
	defer func() {
		if e := stores.Leases.Delete(ctx, lease); e != nil && err == nil {
			err = fmt.Errorf("release system images: %w", e)
		}
	}()
	for _, image := range layout.Images {
		if err := stores.ensureImage(leased, image); err != nil {
			return fmt.Errorf("ensure system image %s: %w", image.Name, err)
		}
	}
	return stores.dropOthers(ctx, layout)
}

func (s Stores) ensureImage(ctx context.Context, image Image) error {
	for _, layer := range image.Layers {
		if err := s.ensureLayer(ctx, layer); err != nil {
			return err
		}
	}
	if err := s.ensureBlob(ctx, image.Config, image.config, s.configLabels(image)); err != nil {
		return err
	}
	if err := s.ensureBlob(ctx, image.Manifest, image.manifest, manifestLabels(image)); err != nil {
		return err
	}
	record := images.Image{Name: image.Name, Target: image.Manifest, Labels: imageLabels()}
	if _, err := s.Images.Create(ctx, record); err == nil || !errdefs.IsAlreadyExists(err) {
		return err
	}
	_, err := s.Images.Update(ctx, record)
	return err
}

// ensureLayer asks the snapshotter for the layer as an unpacker does that knows the result's name. One that has it
// answers "already exists", and containerd's database then knows the snapshot too.
func (s Stores) ensureLayer(ctx context.Context, layer Layer) error {
	chain, parent := layer.ChainID.String(), layer.Parent.String()
	if _, err := s.Snapshots.Stat(ctx, chain); err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	key := "system-" + chain
	_, err := s.Snapshots.Prepare(ctx, key, parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: chain}))
	if err == nil {
		_ = s.Snapshots.Remove(ctx, key)
		return fmt.Errorf("snapshotter %s does not have layer %s", s.Snapshotter, layer.DiffID)
	}
	if !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("layer %s: %w", layer.DiffID, err)
	}
	if _, err := s.Snapshots.Stat(ctx, chain); err != nil {
		return fmt.Errorf("layer %s: snapshot: %w", layer.DiffID, err)
	}
	return nil
}

func (s Stores) ensureBlob(ctx context.Context, descriptor ocispec.Descriptor, blob []byte, labels map[string]string) error {
	err := content.WriteBlob(ctx, s.Content, "system-"+descriptor.Digest.String(), bytes.NewReader(blob), descriptor, content.WithLabels(labels))
	if err != nil {
		return fmt.Errorf("blob %s: %w", descriptor.Digest, err)
	}
	// A blob that was there before keeps the labels it had.
	info, err := s.Content.Info(ctx, descriptor.Digest)
	if err != nil {
		return fmt.Errorf("blob %s: %w", descriptor.Digest, err)
	}
	if contains(info.Labels, labels) {
		return nil
	}
	paths := make([]string, 0, len(labels))
	for key := range labels {
		paths = append(paths, "labels."+key)
	}
	if _, err := s.Content.Update(ctx, content.Info{Digest: descriptor.Digest, Labels: labels}, paths...); err != nil {
		return fmt.Errorf("blob %s: labels: %w", descriptor.Digest, err)
	}
	return nil
}

// dropOthers removes the records of system images that are not of this layout. Their blobs and snapshots go with
// containerd's next garbage collection.
func (s Stores) dropOthers(ctx context.Context, layout *Layout) error {
	others, err := s.others(ctx, layout)
	if err != nil {
		return err
	}
	for _, name := range others {
		if err := s.Images.Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("drop old system image %s: %w", name, err)
		}
	}
	return nil
}

func (s Stores) others(ctx context.Context, layout *Layout) ([]string, error) {
	known, err := s.Images.List(ctx, fmt.Sprintf("labels.%q==%s", labelSystem, system))
	if err != nil {
		return nil, fmt.Errorf("list system images: %w", err)
	}
	wanted := map[string]bool{}
	for _, image := range layout.Images {
		wanted[image.Name] = true
	}
	var names []string
	for _, image := range known {
		if !wanted[image.Name] {
			names = append(names, image.Name)
		}
	}
	return names, nil
}

func imageLabels() map[string]string {
	return map[string]string{labelManaged: managed, labelPinned: pinned, labelSystem: system}
}

func manifestLabels(image Image) map[string]string {
	return map[string]string{labelRefConfig: image.Config.Digest.String()}
}

func (s Stores) configLabels(image Image) map[string]string {
	return map[string]string{labelRefSnapshot + s.Snapshotter: image.ChainID().String()}
}

// contains says whether all has every entry of some.
func contains(all, some map[string]string) bool {
	merged := maps.Clone(all)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, some)
	return maps.Equal(merged, all)
}
