package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"keelson/node/supervisorclient"
	"keelson/node/telemetry"
)

func (s *Server) clusterConfig(context.Context) ([]byte, error) {
	kubernetes, err := s.kubernetesVersion()
	if err != nil {
		return nil, err
	}
	d := documentOf(s.settings, kubernetes)
	if d.EmbeddedRegistry {
		if d.IPSECPSK, err = s.preSharedKey(); err != nil {
			return nil, err
		}
	}
	out, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("render the cluster's settings: %w", err)
	}
	return out, nil
}

// preSharedKey is what agents of RKE2 need to start where there is the embedded registry: 32 bytes that all servers say
// alike (k3s pkg/agent/config). Their libp2p shuts out whoever does not know it; Keelson's nodes never look at it. It is
// derived of an authority's key, of which it tells nothing.
func (s *Server) preSharedKey() (string, error) {
	key, err := os.ReadFile(s.server("tls", "client-ca.key"))
	if err != nil {
		return "", fmt.Errorf("derive a pre-shared key: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("embedded registry, pre-shared key"))
	return hex.EncodeToString(mac.Sum(nil)), nil
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
