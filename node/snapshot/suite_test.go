package snapshot

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"

	"keelson/node/systemimage"
	"keelson/node/systemimage/layouttest"
)

// requireOverlay skips where overlay filesystems cannot be mounted.
func requireOverlay(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting overlay filesystems needs root")
	}
	if err := overlayutils.Supported(t.TempDir()); err != nil {
		t.Skipf("overlay filesystems do not work here: %v", err)
	}
}

// TestContract runs containerd's own contract of a snapshotter, with and without system layers beside.
func TestContract(t *testing.T) {
	requireOverlay(t)
	layout, err := systemimage.Load(layouttest.Write(t, t.TempDir(),
		map[string]layouttest.Layer{"base": {"etc/passwd": "root"}},
		layouttest.Image{Name: "registry.keelson.internal/pause:3.10", Layers: []string{"base"}}))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		layout *systemimage.Layout
		opts   []overlay.Opt
	}{
		{"plain", nil, nil},
		{"system layers", layout, []overlay.Opt{overlay.AsynchronousRemove}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				s, err := New(Config{Root: root, Layout: c.layout, Overlay: c.opts})
				if err != nil {
					return nil, nil, err
				}
				return s, s.Close, nil
			})
		})
	}
}
