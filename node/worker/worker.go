// Package worker is what every node runs, server or agent: containerd, the kubelet, and kube-proxy's static pod.
//
// It writes their configuration and keeps the two programs running; what they are told comes from the settings, which
// node/config has read, and from files that its caller has made (certificates, kubeconfigs). It asks no API server anything
// but which nodes share images, and decides no order: node/server and node/agent do, each with a list of steps of its own.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/node/config"
	"keelson/node/file"
	"keelson/node/staticpod"
	"keelson/node/systemimage"
)

// Programs and folders of the machine.
const (
	networkPlugins = "/usr/lib/keelson/cni/bin"
	runcPath       = "/usr/bin/runc"
	containerdPath = "/usr/bin/containerd"
	ctrPath        = "/usr/bin/ctr"
	kubeletPath    = "/usr/bin/kubelet"
)

// Config is what a worker needs. Its functions must be set.
type Config struct {
	Settings config.Config       // as loaded: what containerd needs is known before the machine has an address
	Images   *systemimage.Layout // the machine's system images
	Environ  []string            // the process's environment, for what children inherit
	Log      *slog.Logger
	// Background keeps something running for as long as the caller does; its failure ends the caller.
	Background func(name string, run func(context.Context) error)
	// Milestone is told what has been reached.
	Milestone func(what string)
}

// Worker is this machine as a node.
type Worker struct {
	cfg      Config
	programs programs
}

// programs are files of the machine. Only tests have others than these.
type programs struct {
	containerd, ctr, kubelet, socket, networkDir, networkFile, resolvConf, archives string
}

// New checks the configuration; nothing is started.
func New(cfg Config) (*Worker, error) {
	if cfg.Log == nil || cfg.Background == nil || cfg.Milestone == nil || cfg.Images == nil {
		return nil, errors.New("worker: a log, the system images, and the functions are needed")
	}
	return &Worker{cfg: cfg, programs: defaultPrograms()}, nil
}

func (w *Worker) agent(parts ...string) string {
	return filepath.Join(append([]string{w.cfg.Settings.DataDir, "agent"}, parts...)...)
}

// ProxyPod writes kube-proxy's static pod, or takes it away when it is switched off. settings are resolved. It tells
// whether the kubelet has something to do.
func (w *Worker) ProxyPod(settings config.Config) (changed bool, err error) {
	pods := staticpod.Server{DataDir: settings.DataDir}
	path := pods.ManifestPath(staticpod.KubeProxy)
	if settings.DisableKubeProxy {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("remove static pod: %w", err)
		}
		return err == nil, nil
	}
	image, err := w.cfg.Images.Reference(staticpod.KubeProxy)
	if err != nil {
		return false, err
	}
	pods.NodeName = settings.NodeName
	pods.Images = map[string]string{staticpod.KubeProxy: image}
	pods.ClusterCIDR = strings.Join(texts(settings.ClusterCIDR), ",")
	pods.Components = map[string]config.Component{staticpod.KubeProxy: settings.KubeProxy}
	pods.Requests, pods.Limits = settings.ControlPlaneResourceRequests, settings.ControlPlaneResourceLimits
	pods.Probes = settings.ControlPlaneProbes
	pods.ProxyEnv = ProxyEnvironment(w.cfg.Environ)
	pods.Files = os.DirFS("/")
	manifest, err := pods.Render(staticpod.KubeProxy)
	if err != nil {
		return false, err
	}
	return file.Ensure(path, manifest, 0o600)
}

// Environment is what a child inherits: the search path, proxy settings, and variables of ours with the prefix,
// without it (RKE2's way to set a variable for containerd alone).
func Environment(environ []string, prefix string) []string {
	env := []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/root"}
	for _, e := range environ {
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

// ProxyEnvironment lists the supervisor's own proxy settings, which RKE2 hands to every static pod.
func ProxyEnvironment(environ []string) []string {
	return slices.DeleteFunc(Environment(environ, ""), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return !strings.Contains(strings.ToLower(name), "proxy")
	})
}

func texts[T fmt.Stringer](all []T) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = v.String()
	}
	return out
}
