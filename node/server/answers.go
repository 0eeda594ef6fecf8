package server

import (
	"context"
	"encoding/json"
	"fmt"

	"keelson/node/supervisorclient"
	"keelson/node/telemetry"
)

func (s *Server) clusterConfig(context.Context) ([]byte, error) {
	kubernetes, err := s.kubernetesVersion()
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(documentOf(s.settings, kubernetes))
	if err != nil {
		return nil, fmt.Errorf("render the cluster's settings: %w", err)
	}
	return out, nil
}

// startTelemetry serves the supervisor's metrics and profiles, where the settings ask for them.
func (s *Server) startTelemetry(context.Context) error {
	if !s.settings.SupervisorMetrics && !s.settings.EnablePprof {
		return nil
	}
	t, err := telemetry.New(telemetry.Config{
		Client: s.client, ClientCA: s.server("tls", "client-ca.crt"), DataDir: s.settings.DataDir, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.background("telemetry", t.Run)
	s.telemetry.Store(t)
	return s.install()
}

// etcdMemberList answers /db/info.
func (s *Server) etcdMemberList(ctx context.Context) (any, error) {
	list, err := s.etcd.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list etcd members: %w", err)
	}
	all := []supervisorclient.Member{}
	for _, m := range list.Members {
		all = append(all, supervisorclient.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	}
	return all, nil
}
