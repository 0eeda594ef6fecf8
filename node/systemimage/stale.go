package systemimage

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// leaseTime bounds what a crash between the first blob and the last record leaves behind.
const leaseTime = 10 * time.Minute

// Stale says whether containerd's records differ from the layout. It only reads: on every boot but the first of an
// operating system the answer is no, and nothing is written.
func Stale(ctx context.Context, stores Stores, layout *Layout) (bool, error) {
	return stores.stale(namespaces.WithNamespace(ctx, Namespace), layout)
}

func (s Stores) stale(ctx context.Context, layout *Layout) (bool, error) {
	for _, image := range layout.Images {
		current, err := s.current(ctx, image)
		if err != nil {
			return false, fmt.Errorf("check system image %s: %w", image.Name, err)
		}
		if !current {
			return true, nil
		}
	}
	others, err := s.others(ctx, layout)
	return len(others) > 0, err
}

func (s Stores) current(ctx context.Context, image Image) (bool, error) {
	record, err := s.Images.Get(ctx, image.Name)
	if err != nil {
		return false, unlessNotFound(err)
	}
	if record.Target.Digest != image.Manifest.Digest || !contains(record.Labels, imageLabels()) {
		return false, nil
	}
	manifest, err := s.Content.Info(ctx, image.Manifest.Digest)
	if err != nil || !contains(manifest.Labels, manifestLabels(image)) {
		return false, unlessNotFound(err)
	}
	config, err := s.Content.Info(ctx, image.Config.Digest)
	if err != nil || !contains(config.Labels, s.configLabels(image)) {
		return false, unlessNotFound(err)
	}
	// A snapshot is there only with all its parents.
	if _, err := s.Snapshots.Stat(ctx, image.ChainID().String()); err != nil {
		return false, unlessNotFound(err)
	}
	return true, nil
}

func unlessNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
