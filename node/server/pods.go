package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keelson/node/apiserver"
	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/file"
	"keelson/node/kubelet"
	"keelson/node/staticpod"
)

// removeStalePods takes away the manifests of pods that need a serving kube-apiserver, if the machine has just
// started: the kubelet would begin with them, and they would fail and back off until it serves. A supervisor that
// starts again under running pods leaves them alone.
func (s *Server) removeStalePods(context.Context) error {
	if _, err := os.Stat(s.places.started); err == nil {
		return nil
	}
	for _, name := range []string{staticpod.ControllerManager, staticpod.Scheduler, staticpod.CloudController, staticpod.KubeProxy} {
		if err := s.removePod(name); err != nil {
			return err
		}
	}
	if err := kubelet.RemoveStaleVolumes(s.places.kubelet); err != nil {
		s.log.Warn("the kubelet will wait for kube-apiserver before it starts it", "error", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.places.started), 0o755); err != nil {
		return fmt.Errorf("mark the start: %w", err)
	}
	return file.Write(s.places.started, nil, 0o600)
}

func (s *Server) removePod(component string) error {
	path := staticpod.Server{DataDir: s.cfg.Settings.DataDir}.ManifestPath(component)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove static pod: %w", err)
	}
	return nil
}

// writePod renders a component's manifest and writes it if it differs from the one the kubelet has.
func (s *Server) writePod(component string) error {
	p, err := s.podParams()
	if err != nil {
		return err
	}
	manifest, err := p.Render(component)
	if err != nil {
		return err
	}
	changed, err := file.Ensure(p.ManifestPath(component), manifest, 0o600)
	if err != nil {
		return err
	}
	s.log.Info("static pod", "component", component, "changed", changed)
	return nil
}

func (s *Server) podParams() (staticpod.Server, error) {
	images := map[string]string{}
	for _, name := range []string{
		staticpod.Etcd, staticpod.APIServer, staticpod.ControllerManager, staticpod.Scheduler, staticpod.CloudController, staticpod.KubeProxy,
	} {
		reference, err := s.images.Reference(name)
		if err != nil {
			return staticpod.Server{}, err
		}
		images[name] = reference
	}
	c := s.settings
	p := staticpod.Server{
		DataDir:              c.DataDir,
		NodeName:             c.NodeName,
		Images:               images,
		ClusterCIDR:          strings.Join(texts(c.ClusterCIDR), ","),
		ServiceCIDR:          strings.Join(texts(c.ServiceCIDR), ","),
		ListenAddress:        c.EveryAddress(),
		NodePortRange:        c.ServiceNodePortRange.String(),
		ClusterDomain:        c.ClusterDomain,
		AuthenticationConfig: s.server("etc", "authentication-config.yaml"),
		EncryptionConfig:     s.server("cred", "encryption-config.json"),
		AdmissionConfig:      c.PodSecurityAdmissionConfigFile,
		AuditPolicy:          c.AuditPolicyFile,
		EgressConfig:         s.egressPath(),
		CloudConfig:          s.server("etc", "cloud-config.yaml"),
		EtcdInitial: staticpod.EtcdInitial{
			AdvertisePeerURL: s.member.PeerURL(), Cluster: s.member.Initial.Cluster, State: s.member.Initial.State,
		},
		Components: map[string]config.Component{
			staticpod.APIServer:         c.APIServer,
			staticpod.ControllerManager: c.ControllerManager,
			staticpod.Scheduler:         c.Scheduler,
			staticpod.CloudController:   c.CloudController,
			staticpod.KubeProxy:         c.KubeProxy,
			staticpod.Etcd:              c.Etcd,
		},
		Requests: c.ControlPlaneResourceRequests,
		Limits:   c.ControlPlaneResourceLimits,
		Probes:   c.ControlPlaneProbes,
		ProxyEnv: s.proxyEnvironment(),
		Files:    os.DirFS("/"),
	}
	if c.AdvertiseAddress.IsValid() {
		p.AdvertiseAddress = c.AdvertiseAddress.String()
	}
	if p.AdmissionConfig == "" {
		p.AdmissionConfig = s.places.admission
	}
	return p, nil
}

// proxyEnvironment lists the supervisor's own proxy settings, which RKE2 hands to every control plane pod.
func (s *Server) proxyEnvironment() []string {
	return slices.DeleteFunc(s.environment(""), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return !strings.Contains(strings.ToLower(name), "proxy")
	})
}

func (s *Server) writeEtcd(context.Context) error {
	if s.settings.DisableEtcd {
		return nil
	}
	config, err := etcd.Render(s.member)
	if err != nil {
		return err
	}
	if _, err := file.Ensure(etcd.ConfigPath(s.settings.DataDir), config, 0o600); err != nil {
		return err
	}
	return s.writePod(staticpod.Etcd)
}

// writeFirstAPIServer lets kube-apiserver start beside etcd, for which it waits. A learner answers no reads, so the
// kube-apiserver of a server that joins would give up again and again: it starts when the member votes.
func (s *Server) writeFirstAPIServer(ctx context.Context) error {
	if s.learner {
		return nil
	}
	return s.writeAPIServer(ctx)
}

func (s *Server) writeJoinedAPIServer(ctx context.Context) error {
	if !s.learner {
		return nil
	}
	return s.writeAPIServer(ctx)
}

// writeAPIServer writes kube-apiserver's own files and then its pod.
func (s *Server) writeAPIServer(context.Context) error {
	if s.settings.DisableAPIServer {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.places.admission), 0o755); err != nil {
		return fmt.Errorf("make folder of admission configuration: %w", err)
	}
	for _, f := range []file.File{
		{Path: s.server("etc", "authentication-config.yaml"), Data: apiserver.Authentication(), Mode: 0o600},
		{Path: s.places.admission, Data: apiserver.Admission(), Mode: 0o600},
		{Path: s.server("etc", "cloud-config.yaml"), Data: apiserver.CloudConfig(), Mode: 0o600},
		{Path: s.server("etc", "egress-selector-config.yaml"), Data: s.egressConfig(), Mode: 0o600},
	} {
		if _, err := file.Ensure(f.Path, f.Data, f.Mode); err != nil {
			return err
		}
	}
	return s.writePod(staticpod.APIServer)
}

// writeControllers lets the pods start that have something to do once kube-apiserver serves.
func (s *Server) writeControllers(context.Context) error {
	for _, c := range []struct {
		name     string
		disabled bool
	}{
		{staticpod.KubeProxy, s.settings.DisableKubeProxy},
		{staticpod.ControllerManager, s.settings.DisableControllerManager},
		{staticpod.Scheduler, s.settings.DisableScheduler},
	} {
		if err := s.setPod(c.name, c.disabled); err != nil {
			return err
		}
	}
	return nil
}

// writeCloudController comes after the add-ons, among which are the rights it runs with.
func (s *Server) writeCloudController(context.Context) error {
	return s.setPod(staticpod.CloudController, s.settings.DisableCloudController || s.settings.DisableAPIServer)
}

func (s *Server) setPod(component string, disabled bool) error {
	if disabled {
		return s.removePod(component)
	}
	return s.writePod(component)
}
