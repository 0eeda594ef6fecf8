package server

import (
	"context"
	"encoding/json"
	"fmt"

	"keelson/node/agreement"
	"keelson/node/supervisorclient"
)

// document is what /v1-rke2/config answers: the settings that servers must agree on, and what an agent needs to know
// of ports. RKE2 serves its whole settings there, the pre-shared key and every argument among them; nobody asks for
// those (k3s pkg/daemons/config/types.go, Control).
type document struct {
	agreement.Critical
	AdvertisePort    int
	HTTPSPort        int
	SupervisorPort   int
	APIServerPort    int
	DisableKubeProxy bool
	ServerNodeName   string
	// KubernetesVersion is ours alone: servers that join hold their own against it.
	KubernetesVersion string `json:",omitempty"`

	// What this server leaves out. Servers need not agree on it.
	DisableETCD              bool
	DisableAPIServer         bool
	DisableControllerManager bool
	DisableScheduler         bool
}

func (s *Server) clusterConfig(context.Context) ([]byte, error) {
	kubernetes, err := s.kubernetesVersion()
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(document{
		Critical: agreement.Of(s.settings), AdvertisePort: 6443, HTTPSPort: 6443, SupervisorPort: 9345, APIServerPort: 6443,
		DisableKubeProxy: s.settings.DisableKubeProxy, ServerNodeName: s.settings.NodeName,
		KubernetesVersion: kubernetes,
		DisableETCD:       s.settings.DisableEtcd, DisableAPIServer: s.settings.DisableAPIServer,
		DisableControllerManager: s.settings.DisableControllerManager, DisableScheduler: s.settings.DisableScheduler,
	})
	if err != nil {
		return nil, fmt.Errorf("render the cluster's settings: %w", err)
	}
	return out, nil
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
