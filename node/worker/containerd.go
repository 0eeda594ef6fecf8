package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"keelson/node/config"
	"keelson/node/containerd"
	"keelson/node/file"
	"keelson/node/mirror"
	"keelson/node/process"
)

func defaultPrograms() programs {
	return programs{
		containerd: containerdPath, ctr: ctrPath, archives: archivesPath, kubelet: kubeletPath, socket: containerd.Socket,
		networkDir: containerd.NetworkDir, networkFile: containerd.NetworkFile, resolvConf: "/etc/resolv.conf",
	}
}

// StartContainerd writes containerd's configuration, starts it, and returns when its socket answers and it has the images
// that the machine's own image ships.
func (w *Worker) StartContainerd(ctx context.Context) error {
	if err := w.configureContainerd(); err != nil {
		return err
	}
	p, err := process.New(process.Config{
		Name:    "containerd",
		Path:    w.programs.containerd,
		Args:    []string{"--config", containerd.ConfigPath(w.cfg.Settings.DataDir)},
		Env:     Environment(w.cfg.Environ, "CONTAINERD_"),
		LogFile: w.agent("containerd", "containerd.log"),
		Log:     w.cfg.Log,
	})
	if err != nil {
		return err
	}
	w.cfg.Background("containerd", p.Run)
	if err := containerd.Wait(ctx, w.programs.socket); err != nil {
		return err
	}
	w.cfg.Milestone("containerd ready")
	w.importArchives(ctx)
	return nil
}

// configureContainerd writes what containerd reads when it starts.
func (w *Worker) configureContainerd() error {
	pause, err := w.cfg.Images.Reference("pause")
	if err != nil {
		return err
	}
	rendered, err := containerd.Render(containerd.Params{
		DataDir:      w.cfg.Settings.DataDir,
		SandboxImage: pause,
		NetworkBin:   networkPlugins,
		Runc:         runcPath,
		Platform:     "linux/" + runtime.GOARCH,
		Debug:        w.cfg.Settings.Debug,
	})
	if err != nil {
		return err
	}
	path := containerd.ConfigPath(w.cfg.Settings.DataDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make folder of containerd: %w", err)
	}
	if _, err := file.Ensure(path, rendered, 0o600); err != nil {
		return err
	}
	if err := ApplyRegistries(w.cfg.Settings); err != nil {
		return err
	}
	if err := os.MkdirAll(w.programs.networkDir, 0o755); err != nil {
		return fmt.Errorf("make folder of pod networks: %w", err)
	}
	// With `cni: none` the user brings a network and its file. What an agent is told of that by its cluster comes
	// later, and then takes its effect with ApplyNetwork.
	if w.cfg.Settings.CNI != config.CNIFlannel {
		return nil
	}
	return w.ApplyNetwork()
}

// ApplyNetwork tells the CRI of flannel, which may happen while containerd runs: it watches the folder.
func (w *Worker) ApplyNetwork() error {
	_, err := file.Ensure(w.programs.networkFile, containerd.RenderNetwork(), 0o600)
	return err
}

// Registries reads registries.yaml. Without the file there are no mirrors.
func Registries(settings config.Config) (containerd.Registries, error) {
	path := settings.PrivateRegistry
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return containerd.Registries{}, fmt.Errorf("read registries: %w", err)
	}
	return containerd.LoadRegistries(path, content)
}

// ApplyRegistries turns registries.yaml into containerd's files, which it reads at each pull: an agent learns after the
// start of containerd that its cluster has the embedded registry.
func ApplyRegistries(settings config.Config) error {
	registries, err := Registries(settings)
	if err != nil {
		return err
	}
	if settings.EmbeddedRegistry {
		shared := registries.Shared()
		registries = registries.Embedded(settings.DataDir, func(registry string) bool { return mirror.Shares(shared, registry) })
	}
	hosts := containerd.RenderHosts(registries, settings.DisableDefaultRegistryEndpoint)
	return containerd.ApplyHosts(containerd.RegistryDir(settings.DataDir), hosts, func(path string, content []byte) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make folder of registry: %w", err)
		}
		_, err := file.Ensure(path, content, 0o600)
		return err
	})
}
