package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keelson/node/encryption"
	"keelson/node/etcd"
	"keelson/node/file"
	"keelson/node/host"
	"keelson/node/pki"
	"keelson/node/status"
	"keelson/node/systemimage"
	"keelson/node/token"
)

// resolve fills what the settings leave to the machine, once it has an address.
func (s *Server) resolve(ctx context.Context) error {
	settings, err := s.recallNetworks(s.cfg.Settings)
	if err != nil {
		return err
	}
	h, err := host.Wait(ctx, host.Patience, settings.Enough)
	if err != nil {
		return fmt.Errorf("look at the machine: %w", err)
	}
	if s.settings, err = settings.Resolve(h); err != nil {
		return fmt.Errorf("resolve settings: %w", err)
	}
	s.log.Info("node", "name", s.settings.NodeName, "addresses", s.settings.NodeIP)
	name := s.settings.NodeName
	s.live.Add(func(_ context.Context, r *status.Report) { r.Node = name })
	return nil
}

// makeFolders makes RKE2's tree with its modes, and removes what a cut-off write left.
func (s *Server) makeFolders(context.Context) error {
	for _, dir := range []string{
		s.server("cred"), s.server("etc"), s.server("logs"), s.server("manifests"), s.server("tls"), s.server("db"),
		s.agent("etc"), s.agent("logs"), s.agent("images"), s.agent("pod-manifests"), s.agent("etc", "containerd"),
		s.agent("etc", "kubelet.conf.d"),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folders: %w", err)
		}
	}
	return s.sweep()
}

// sweep removes what a write left that a power cut ended. Only the start does it: later, files are being written.
func (s *Server) sweep() error {
	folders := append(pki.Folders(s.server(), s.agent()),
		s.server("etc"), s.server("manifests"), s.agent("etc"), s.agent("pod-manifests"), s.agent("etc", "containerd"),
		s.agent("etc", "kubelet.conf.d"), etcd.Dir(s.cfg.Settings.DataDir), filepath.Dir(s.cfg.Settings.WriteKubeconfig))
	for _, dir := range folders {
		if err := file.Sweep(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

func (s *Server) loadImages(context.Context) (err error) {
	s.images, err = systemimage.Load(s.places.images)
	return err
}

// ensureSecrets settles the token, and makes what kube-apiserver encrypts Secrets with: made once, kept ever after.
func (s *Server) ensureSecrets(context.Context) error {
	exists, err := s.clusterExists()
	if err != nil {
		return err
	}
	if s.recovers(exists) {
		s.passwords, err = s.provisionalPasswords()
	} else {
		s.passwords, err = token.EnsurePasswd(s.server(), token.Secret(s.settings.Token), token.Secret(s.settings.AgentToken), exists)
	}
	if errors.Is(err, token.ErrTokenChanged) { // while this server was away, perhaps: the record tells (settleToken)
		s.console("the token of the settings is not the one on this disk; which of them is the cluster's shows once etcd serves")
		s.passwords, err = token.EnsurePasswd(s.server(), "", token.Secret(s.settings.AgentToken), exists)
	}
	if err != nil {
		return fmt.Errorf("settle the token: %w", err)
	}
	if path := s.server("cred", "encryption-config.json"); exists {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is gone, and the cluster's Secrets can be read with its key only: restore the file", path)
		}
	}
	_, err = encryption.Ensure(s.server(), s.settings.SecretsEncryptionProvider)
	return err
}

// clusterExists tells whether this server's etcd has data: whatever its secrets are by then must stay.
func (s *Server) clusterExists() (bool, error) {
	if !s.settings.DisableEtcd {
		return etcd.HasData(s.settings.DataDir)
	}
	_, err := os.Stat(s.etcdList()) // a server without etcd has joined when it knows whose it uses
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (s *Server) ensureCertificates(context.Context) error {
	exists, err := s.clusterExists()
	if err != nil {
		return err
	}
	s.pki = pki.Params{
		ServerDir:      s.server(),
		AgentDir:       s.agent(),
		NodeName:       s.settings.NodeName,
		Addresses:      append(slices.Concat(s.settings.NodeIP, s.settings.NodeExternalIP), s.settings.AdvertiseAddress),
		SANs:           s.settings.TLSSAN,
		ServiceIPs:     s.settings.ServiceIPs(),
		ClusterDomain:  s.settings.ClusterDomain,
		LocalAPIServer: "https://" + gateAddress,
		Kubeconfig:     s.settings.WriteKubeconfig,
		KubeconfigMode: s.settings.WriteKubeconfigMode,
		ClusterExists:  exists,
		Now:            time.Now(),
	}
	if s.settings.DisableAPIServer {
		s.pki.LocalAPIServer = "" // the load balancer has kube-apiserver's own port
	}
	r, err := pki.Ensure(s.pki)
	if err != nil {
		return err
	}
	s.log.Info("certificates", "written", len(r.Written), "renew", r.Renew)
	return nil
}

func (s *Server) writeTokens(context.Context) error {
	exists, err := s.clusterExists()
	if err != nil || s.recovers(exists) { // which may need what the files say
		return err
	}
	bundle, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w", err)
	}
	return token.EnsureFiles(s.server(), bundle, s.passwords)
}
