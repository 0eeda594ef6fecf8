package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"keelson/node/containerd"
	"keelson/node/file"
	"keelson/node/gate"
	"keelson/node/kubelet"
	"keelson/node/process"
)

// openGate lets local clients of kube-apiserver begin to wait for it.
func (s *Server) openGate(context.Context) error {
	g, err := gate.New(gate.Config{Listen: gateAddress, Target: apiAddress, Ready: s.ready, Log: s.log})
	if err != nil {
		return err
	}
	s.background("gate", g.Run)
	return nil
}

// startContainerd writes containerd's configuration, starts it, and returns when its socket answers.
func (s *Server) startContainerd(ctx context.Context) error {
	pause, err := s.images.Reference("pause")
	if err != nil {
		return err
	}
	config, err := containerd.Render(containerd.Params{
		DataDir:      s.cfg.Settings.DataDir,
		SandboxImage: pause,
		NetworkBin:   networkPlugins,
		Runc:         runcPath,
		Platform:     "linux/" + runtime.GOARCH,
		Debug:        s.cfg.Settings.Debug,
	})
	if err != nil {
		return err
	}
	if _, err := file.Ensure(containerd.ConfigPath(s.cfg.Settings.DataDir), config, 0o600); err != nil {
		return err
	}
	if err := s.applyRegistries(); err != nil {
		return err
	}
	if err := s.applyNetwork(); err != nil {
		return err
	}
	p, err := process.New(process.Config{
		Name:    "containerd",
		Path:    containerdPath,
		Args:    []string{"--config", containerd.ConfigPath(s.cfg.Settings.DataDir)},
		Env:     s.environment("CONTAINERD_"),
		LogFile: s.agent("containerd", "containerd.log"),
		Log:     s.log,
	})
	if err != nil {
		return err
	}
	s.background("containerd", p.Run)
	if err := containerd.Wait(ctx, containerd.Socket); err != nil {
		return err
	}
	s.milestone("containerd ready")
	return nil
}

// applyRegistries turns registries.yaml into containerd's files. Without the file there are no mirrors.
func (s *Server) applyRegistries() error {
	path := s.cfg.Settings.PrivateRegistry
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read registries: %w", err)
	}
	registries, err := containerd.LoadRegistries(path, content)
	if err != nil {
		return err
	}
	hosts := containerd.RenderHosts(registries, s.cfg.Settings.DisableDefaultRegistryEndpoint)
	return containerd.ApplyHosts(containerd.RegistryDir(s.cfg.Settings.DataDir), hosts, func(path string, content []byte) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make folder of registry: %w", err)
		}
		_, err := file.Ensure(path, content, 0o600)
		return err
	})
}

// applyNetwork tells the CRI of flannel; with `cni: none` the user brings a network and its file.
func (s *Server) applyNetwork() error {
	if err := os.MkdirAll(containerd.NetworkDir, 0o755); err != nil {
		return fmt.Errorf("make folder of pod networks: %w", err)
	}
	if !s.hasFlannel() {
		return nil
	}
	_, err := file.Ensure(containerd.NetworkFile, containerd.RenderNetwork(), 0o600)
	return err
}

// startKubelet writes the kubelet's configuration and starts it.
func (s *Server) startKubelet(ctx context.Context) error {
	own, others, err := kubelet.Labels(s.settings.NodeLabels)
	if err != nil {
		return err
	}
	s.others = others
	resolv, err := s.resolvConf()
	if err != nil {
		return err
	}
	rendered, err := kubelet.Render(kubelet.Params{
		DataDir:        s.settings.DataDir,
		NodeName:       s.settings.NodeName,
		NodeIPs:        texts(s.settings.NodeIP),
		ClusterDNS:     texts(s.settings.ClusterDNS),
		ClusterDomain:  s.settings.ClusterDomain,
		Kubeconfig:     s.agent("kubelet.kubeconfig"),
		ClientCA:       s.agent("client-ca.crt"),
		ServingCert:    s.agent("serving-kubelet.crt"),
		ServingKey:     s.agent("serving-kubelet.key"),
		ResolvConf:     resolv,
		RuntimeSocket:  containerd.Socket,
		PodManifests:   s.agent("pod-manifests"),
		CloudProvider:  !s.settings.DisableCloudController,
		ProtectKernel:  s.settings.ProtectKernelDefaults,
		Labels:         own,
		Taints:         s.settings.NodeTaints,
		ExtraArguments: s.settings.KubeletArgs,
		Files:          os.DirFS("/"),
	})
	if err != nil {
		return err
	}
	if err := s.applyKubelet(rendered); err != nil {
		return err
	}
	p, err := process.New(process.Config{
		Name:    "kubelet",
		Path:    kubeletPath,
		Args:    rendered.Args,
		Env:     s.environment(""),
		LogFile: s.agent("logs", "kubelet.log"),
		Log:     s.log,
	})
	if err != nil {
		return err
	}
	s.background("kubelet", p.Run)
	s.milestone("kubelet started")
	return nil
}

// applyKubelet makes the drop-in folder hold exactly what was rendered.
func (s *Server) applyKubelet(r kubelet.Rendered) error {
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
func (s *Server) resolvConf() (string, error) {
	const system = "/etc/resolv.conf"
	if s.settings.ResolvConf != "" {
		return s.settings.ResolvConf, nil
	}
	content, err := os.ReadFile(system)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read resolv.conf: %w", err)
	}
	if kubelet.UsableResolvConf(content) {
		return system, nil
	}
	path := s.agent("etc", "resolv.conf")
	if _, err := file.Ensure(path, kubelet.NoResolvConf(), 0o644); err != nil {
		return "", err
	}
	return path, nil
}

// environment is what a child inherits: the search path, proxy settings, and variables of ours with the prefix,
// without it (RKE2's way to set a variable for containerd alone).
func (s *Server) environment(prefix string) []string {
	env := []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/root"}
	for _, e := range s.cfg.Environ {
		name, value, _ := strings.Cut(e, "=")
		if strings.Contains(strings.ToLower(name), "proxy") && !strings.HasPrefix(name, "CONTAINERD_") {
			env = append(env, e)
		}
		if rest, ok := strings.CutPrefix(name, prefix); ok && prefix != "" {
			env = append(env, rest+"="+value)
		}
	}
	return env
}

func texts[T fmt.Stringer](all []T) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = v.String()
	}
	return out
}
