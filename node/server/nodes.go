package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/config"
	"keelson/node/jointoken"
	"keelson/node/nodeobject"
	"keelson/node/nodepassword"
	"keelson/node/signing"
	"keelson/node/supervisorapi"
	"keelson/node/token"
	"keelson/node/tunnel"
)

// prepareNodes makes what the listener needs to take in the cluster's nodes: the check of their names, the signer of
// their certificates, and the tunnels that they keep to this server.
func (s *Server) prepareNodes(context.Context) error {
	var err error
	if s.password, err = nodepassword.EnsureFile(s.places.password); err != nil {
		return err
	}
	s.nodes, err = nodepassword.New(nodepassword.Config{Node: s.settings.NodeName, File: s.places.password, Log: s.log})
	if err != nil {
		return err
	}
	s.signer = signing.Signer{ServerDir: s.server(), ServiceNetworks: s.settings.ServiceCIDR, ClusterDomain: s.settings.ClusterDomain}
	tunnel.AdoptLogrus(s.log)
	s.tunnels, err = tunnel.NewServer(tunnel.ServerConfig{
		Mode: s.settings.EgressSelectorMode, Self: s.settings.NodeName, Log: s.log,
		NodeOf: func(host string) (string, bool) {
			if d := s.directory.Load(); d != nil {
				return d.NodeOf(host)
			}
			return "", false
		},
	})
	return err
}

// followCluster begins what needs kube-apiserver: nodes are known by their addresses, their names are held to their
// machines, this one's first of all.
func (s *Server) followCluster(ctx context.Context) error {
	directory := nodeobject.NewDirectory(s.client)
	s.directory.Store(directory)
	s.background("node directory", directory.Run)
	s.nodes.Use(s.client)
	s.background("node passwords", s.nodes.Run)
	s.background("bootstrap tokens", jointoken.Cleaner{Secrets: s.client.CoreV1().Secrets(metav1.NamespaceSystem), Log: s.log}.Run)
	err := s.persist(ctx, func(ctx context.Context) error { return s.nodes.Check(ctx, s.settings.NodeName, s.password, false) })
	if errors.Is(err, nodepassword.ErrRejected) {
		// The server's own kubelet has its certificate from the authorities that it holds; nobody else gets one by
		// the name. What is wrong is told, and does not keep a control plane from running.
		s.console(fmt.Sprintf("the name %s belongs to another machine in this cluster; if that one is gone, delete its Node (kubectl delete node %[1]s) and restart this machine", s.settings.NodeName))
		return nil
	}
	return err
}

// bootstrapToken tells whom a bootstrap token stands for.
func (s *Server) bootstrapToken(ctx context.Context, id string, secret token.Secret) (string, []string, error) {
	if !s.isReady() {
		return "", nil, errors.New("bootstrap tokens cannot be checked before kube-apiserver serves")
	}
	// s.client was set before s.ready was closed, which isReady has seen.
	client := jointoken.Client{Secrets: s.client.CoreV1().Secrets(metav1.NamespaceSystem)}
	user, err := jointoken.Verifier{Get: client.Getter()}.Verify(ctx, id, secret)
	switch {
	case errors.Is(err, jointoken.ErrUnknown):
		return "", nil, fmt.Errorf("%w: %w", supervisorapi.ErrCredentials, err)
	case errors.Is(err, jointoken.ErrExpired), errors.Is(err, jointoken.ErrUsage):
		// Verifier says so only to who has shown the right secret.
		return "", nil, fmt.Errorf("%w: %w", supervisorapi.ErrCredentials, &supervisorapi.Refusal{Code: http.StatusUnauthorized, Message: err.Error()})
	}
	return user.Name, user.Groups, err
}

// egressPath is kube-apiserver's egress selector; empty where it dials by itself.
func (s *Server) egressPath() string {
	if s.settings.EgressSelectorMode != config.EgressAgent {
		return ""
	}
	return s.server("etc", "egress-selector-config.yaml")
}

func (s *Server) egressConfig() []byte {
	return tunnel.EgressConfig(s.server("tls", "client-kube-apiserver.crt"), s.server("tls", "client-kube-apiserver.key"), s.server("tls", "server-ca.crt"))
}
