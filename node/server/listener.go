package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	helmv1 "github.com/k3s-io/helm-controller/pkg/apis/helm.cattle.io/v1"

	"keelson/node/addons"
	"keelson/node/config"
	"keelson/node/file"
	"keelson/node/manifests"
	"keelson/node/pki"
	"keelson/node/supervisorapi"
)

// startListener opens :9345. Until there is something to answer with, it answers "starting".
func (s *Server) startListener(context.Context) error {
	serving, err := pki.NewServing(s.pki, nil)
	if err != nil {
		return err
	}
	clientCA, err := os.ReadFile(s.server("tls", "client-ca.crt"))
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	s.api, err = supervisorapi.New(supervisorapi.Config{
		Address: s.places.listen, Certificate: serving.Certificate, ClientCA: clientCA, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.background("listener", s.api.Run)
	return nil
}

// openListener lets the listener answer, as soon as there is a record for joining servers.
func (s *Server) openListener(context.Context) error { return s.install() }

// writeManifests puts the image's add-ons where users put theirs.
func (s *Server) writeManifests(context.Context) error {
	rendered, err := manifests.Render(os.DirFS(s.places.templates), s.manifestParams())
	if err != nil {
		return err
	}
	for name, content := range rendered {
		if _, err := file.Ensure(filepath.Join(s.server("manifests"), name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) manifestParams() manifests.Params {
	images := map[string]string{}
	for _, name := range []string{"flannel", "coredns", "network-policy", "metrics-server", "local-path"} {
		// An image that is not there is told of by the template that wants it, with its line.
		if reference, err := s.images.Reference(name); err == nil {
			images[name] = reference
		}
	}
	return manifests.Params{
		ClusterCIDR:    s.settings.ClusterCIDR,
		ServiceCIDR:    s.settings.ServiceCIDR,
		ClusterDNS:     s.settings.ClusterDNS,
		NodePorts:      s.settings.ServiceNodePortRange,
		ClusterDomain:  s.settings.ClusterDomain,
		Images:         images,
		CNI:            s.settings.CNI,
		FlannelBackend: s.settings.FlannelBackend,
		Disable:        s.settings.Disable,
	}
}

func (s *Server) hasFlannel() bool { return s.cfg.Settings.CNI == config.CNIFlannel }

// startAddons applies the manifests, and goes on doing so whenever one changes. It returns when the rights of the
// cluster's own components have been applied.
func (s *Server) startAddons(ctx context.Context) error {
	rest, err := s.restConfig()
	if err != nil {
		return err
	}
	const rights = "rke2-roles"
	applied := make(chan struct{})
	var once sync.Once
	c := addons.Config{
		Dir:     s.server("manifests"),
		Disable: s.manifestParams().Disabled(),
		Node:    s.settings.NodeName,
		Log:     s.log,
		Coming:  map[string]<-chan struct{}{helmv1.SchemeGroupVersion.Group: s.chartKinds},
		Observe: func(e addons.Event) {
			if e.Addon == rights && e.Err == nil {
				once.Do(func() { close(applied) })
			}
		},
	}
	if err := c.Connect(rest); err != nil {
		return err
	}
	controller, err := addons.New(c)
	if err != nil {
		return err
	}
	s.background("add-ons", controller.Run)
	select {
	case <-applied:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
