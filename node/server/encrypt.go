package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"keelson/node/reencryption"
	"keelson/node/supervisorapi"
	"keelson/node/token"
)

// startEncryption has this server say what its kube-apiserver encrypts Secrets with, and change it when asked.
func (s *Server) startEncryption(context.Context) error {
	config, err := s.restConfig()
	if err != nil {
		return err
	}
	announcer := reencryption.Announcer{
		ServerDir: s.server(), Node: s.settings.NodeName, Client: s.client, Changed: s.recordChanged, Log: s.log,
	}
	if !s.settings.DisableAPIServer {
		if announcer.Loaded, err = ownAPIServer(config); err != nil {
			return err
		}
	}
	config.QPS, config.Burst = reencryption.QPS, reencryption.Burst
	secrets, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	manager, err := reencryption.New(reencryption.Config{
		Record:  reencryption.Bootstrap{Store: s.store, Password: func() token.Secret { return s.rotator.Passwords().Server }},
		Nodes:   s.client,
		Secrets: secrets,
		Members: s.memberNames,
		Raw:     reencryption.RawSecrets(s.etcd),
		Now:     time.Now,
		Log:     s.log,
	})
	if err != nil {
		return err
	}
	s.background("encryption announcer", announcer.Run)
	s.background("encryption of Secrets", manager.Run)
	s.encryption.Store(manager)
	return nil
}

// ownAPIServer asks this machine's kube-apiserver, past the gate, which may lead to another's.
func ownAPIServer(config *rest.Config) (func(context.Context) (string, error), error) {
	own := rest.CopyConfig(config)
	own.Host = "https://" + apiAddress
	client, err := kubernetes.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return reencryption.LoadedOf(client.CoreV1().RESTClient()), nil
}

// memberNames lists etcd's members.
func (s *Server) memberNames(ctx context.Context) ([]string, error) {
	list, err := s.etcd.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range list.Members {
		names = append(names, m.Name)
	}
	return names, nil
}

// encryptStatus answers GET /v1-rke2/encrypt/status.
func (s *Server) encryptStatus(ctx context.Context) (any, error) {
	m := s.encryption.Load()
	if m == nil {
		return nil, notYet()
	}
	return m.Status(ctx)
}

// encryptConfig answers PUT /v1-rke2/encrypt/config.
func (s *Server) encryptConfig(ctx context.Context, body []byte) error {
	m := s.encryption.Load()
	if m == nil {
		return notYet()
	}
	r, err := reencryption.ParseRequest(body)
	if err == nil {
		err = m.Change(ctx, r)
	}
	return refusal(err, err)
}

func notYet() error {
	return &supervisorapi.Refusal{Code: http.StatusServiceUnavailable, Message: "runtime core not ready"}
}

// tellRecord lets the announcer look at the files, which may have changed.
func (s *Server) tellRecord() {
	select {
	case s.recordChanged <- struct{}{}:
	default:
	}
}

// needRestart leaves out of what was written the files that kube-apiserver loads again by itself.
func (s *Server) needRestart(written []string) []string {
	return slices.DeleteFunc(slices.Clone(written), func(path string) bool {
		return path == s.server("cred", "encryption-config.json") || path == s.server("cred", "encryption-state.json")
	})
}
