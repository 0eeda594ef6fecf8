package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"keelson/node/containerd"
	"keelson/node/diagnosis"
	"keelson/node/gate"
	"keelson/node/status"
	"keelson/node/worker"
)

// openGate lets local clients of kube-apiserver begin to wait for it.
func (s *Server) openGate(context.Context) error {
	c := gate.Config{Listen: gateAddress, Target: apiAddress, Ready: s.ready, Log: s.log}
	if pods, err := os.ReadDir(filepath.Join(s.places.kubelet, "pods")); err == nil && len(pods) > 0 {
		c.Patient = s.patient
	}
	g, err := gate.New(c)
	if err != nil {
		return err
	}
	s.gate = g
	s.tellGate(g)
	s.background("gate", g.Run)
	return nil
}

// worker is this machine's part that every node has. It keeps nothing, so it is made when it is needed.
func (s *Server) worker() (*worker.Worker, error) {
	return worker.New(worker.Config{
		Settings: s.cfg.Settings, Images: s.images, Environ: s.cfg.Environ, Log: s.log,
		Background: s.background, Milestone: s.milestone,
	})
}

func (s *Server) startContainerd(ctx context.Context) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	if err := w.StartContainerd(ctx); err != nil {
		return err
	}
	s.live.Add(tellRuntime)
	return nil
}

// tellRuntime has shown what the container runtime lacks.
func tellRuntime(ctx context.Context, r *status.Report) {
	r.Reasons = append(r.Reasons, diagnosis.Runtime(ctx, "unix://"+containerd.Socket)...)
}

func (s *Server) startKubelet(ctx context.Context) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	k, err := w.StartKubelet(ctx, s.settings)
	if err != nil {
		return err
	}
	s.others = k.Others
	return nil
}

// startRegistry begins to share images with the cluster's other nodes.
func (s *Server) startRegistry(context.Context) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	m, err := w.Registry(s.settings, s.client, supervisorPort, s.nodeTLS)
	if err != nil {
		return err
	}
	s.registry.Store(m)
	return s.install()
}

// applyRegistries turns registries.yaml into containerd's files, as the start of containerd does.
func (s *Server) applyRegistries() error { return worker.ApplyRegistries(s.cfg.Settings) }

// environment is what a child inherits.
func (s *Server) environment(prefix string) []string {
	return worker.Environment(s.cfg.Environ, prefix)
}

func texts[T fmt.Stringer](all []T) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = v.String()
	}
	return out
}
