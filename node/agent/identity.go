package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keelson/node/config"
	"keelson/node/containerd"
	"keelson/node/diagnosis"
	"keelson/node/file"
	"keelson/node/host"
	"keelson/node/nodepassword"
	"keelson/node/staticpod"
	"keelson/node/status"
	"keelson/node/systemimage"
	"keelson/node/worker"
)

// lookAtHost waits until the machine has an address, and settles the node's name. The rest of the settings is resolved
// when the cluster's networks are known.
func (a *Agent) lookAtHost(ctx context.Context) error {
	any := func(h config.Host) bool { return len(h.Addresses) > 0 }
	h, err := host.Wait(ctx, host.Patience, any)
	if err != nil {
		return fmt.Errorf("look at the machine: %w", err)
	}
	a.host, a.settings = h, a.cfg.Settings
	if a.settings.NodeName == "" {
		a.settings.NodeName = strings.ToLower(h.Name)
	}
	name := a.settings.NodeName
	a.live.Add(func(_ context.Context, r *status.Report) { r.Node = name })
	return nil
}

// makeFolders makes RKE2's tree with its modes, removes what a cut-off write left, and, if the machine has just
// started, kube-proxy's pod: the kubelet would begin with it, before the cluster is known to serve.
func (a *Agent) makeFolders(context.Context) error {
	for _, dir := range []string{
		a.agent(), a.agent("etc"), a.agent("logs"), a.agent("images"), a.agent("pod-manifests"), a.agent("etc", "containerd"),
		a.agent("etc", "kubelet.conf.d"), filepath.Dir(a.places.password),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folders: %w", err)
		}
		if err := file.Sweep(dir); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	if _, err := os.Stat(a.places.started); err == nil {
		return nil
	}
	stale := staticpod.Server{DataDir: a.cfg.Settings.DataDir}.ManifestPath(staticpod.KubeProxy)
	if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove static pod: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(a.places.started), 0o755); err != nil {
		return fmt.Errorf("mark the start: %w", err)
	}
	return file.Write(a.places.started, nil, 0o600)
}

func (a *Agent) loadImages(context.Context) (err error) {
	if a.images, err = systemimage.Load(a.places.images); err != nil {
		return err
	}
	a.worker, err = worker.New(worker.Config{
		Settings: a.cfg.Settings, Images: a.images, Environ: a.cfg.Environ, Log: a.log,
		Background: a.background, Milestone: a.milestone,
	})
	return err
}

func (a *Agent) startContainerd(ctx context.Context) error {
	if err := a.worker.StartContainerd(ctx); err != nil {
		return err
	}
	a.live.Add(func(ctx context.Context, r *status.Report) {
		r.Reasons = append(r.Reasons, diagnosis.Runtime(ctx, "unix://"+containerd.Socket)...)
	})
	return nil
}

// ensurePassword makes the node's password at its first start: 16 random bytes as hex, as k3s's agents do
// (pkg/agent/config). Servers remember its hash, so that no other machine can take the node's name.
func (a *Agent) ensurePassword(context.Context) error {
	var err error
	a.password, err = nodepassword.EnsureFile(a.places.password)
	return err
}
