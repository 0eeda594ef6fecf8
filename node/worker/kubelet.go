package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keelson/node/config"
	"keelson/node/file"
	"keelson/node/kubelet"
	"keelson/node/process"
)

// Kubelet is the kubelet that runs.
type Kubelet struct {
	// Others are the labels of the settings that a kubelet may not put on its own Node.
	Others  map[string]string
	process *process.Process
}

// Restart ends the kubelet, which is started again at once. Pods go on running.
func (k *Kubelet) Restart() error { return k.process.Signal(syscall.SIGTERM) }

// StartKubelet writes the kubelet's configuration and starts it. settings are resolved.
func (w *Worker) StartKubelet(_ context.Context, settings config.Config) (*Kubelet, error) {
	rendered, others, err := w.renderKubelet(settings)
	if err != nil {
		return nil, err
	}
	if err := applyKubelet(rendered); err != nil {
		return nil, err
	}
	p, err := process.New(process.Config{
		Name:    "kubelet",
		Path:    w.programs.kubelet,
		Args:    rendered.Args,
		Env:     Environment(w.cfg.Environ, ""),
		LogFile: w.agent("logs", "kubelet.log"),
		Log:     w.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	w.cfg.Background("kubelet", p.Run)
	w.cfg.Milestone("kubelet started")
	return &Kubelet{Others: others, process: p}, nil
}

func (w *Worker) renderKubelet(settings config.Config) (kubelet.Rendered, map[string]string, error) {
	own, others, err := kubelet.Labels(settings.NodeLabels)
	if err != nil {
		return kubelet.Rendered{}, nil, err
	}
	resolv, err := w.resolvConf(settings.ResolvConf)
	if err != nil {
		return kubelet.Rendered{}, nil, err
	}
	rendered, err := kubelet.Render(kubelet.Params{
		DataDir:        settings.DataDir,
		NodeName:       settings.NodeName,
		NodeIPs:        texts(settings.NodeIP),
		ListenAddress:  settings.EveryAddress(),
		ClusterDNS:     texts(settings.ClusterDNS),
		ClusterDomain:  settings.ClusterDomain,
		Kubeconfig:     w.agent("kubelet.kubeconfig"),
		ClientCA:       w.agent("client-ca.crt"),
		ServingCert:    w.agent("serving-kubelet.crt"),
		ServingKey:     w.agent("serving-kubelet.key"),
		ResolvConf:     resolv,
		RuntimeSocket:  w.programs.socket,
		PodManifests:   w.agent("pod-manifests"),
		CloudProvider:  !settings.DisableCloudController,
		ProtectKernel:  settings.ProtectKernelDefaults,
		Labels:         own,
		Taints:         settings.NodeTaints,
		ExtraArguments: settings.KubeletArgs,
		Files:          os.DirFS("/"),
	})
	return rendered, others, err
}

// applyKubelet makes the drop-in folder hold exactly what was rendered.
func applyKubelet(r kubelet.Rendered) error {
	wanted := map[string]bool{}
	for _, f := range r.Files {
		wanted[f.Path] = true
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
			return fmt.Errorf("make folder of kubelet configuration: %w", err)
		}
		if _, err := file.Ensure(f.Path, f.Content, 0o600); err != nil {
			return err
		}
	}
	err := filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || wanted[path] {
			return err
		}
		return os.Remove(path)
	})
	if err != nil {
		return fmt.Errorf("remove old kubelet configuration: %w", err)
	}
	return nil
}

// resolvConf is what pods that ask for the host's DNS get: the machine's file where pods can use it.
func (w *Worker) resolvConf(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	system := w.programs.resolvConf
	content, err := os.ReadFile(system)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read resolv.conf: %w", err)
	}
	if kubelet.UsableResolvConf(content) {
		return system, nil
	}
	path := w.agent("etc", "resolv.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make folder of resolv.conf: %w", err)
	}
	if _, err := file.Ensure(path, kubelet.NoResolvConf(), 0o644); err != nil {
		return "", err
	}
	return path, nil
}
