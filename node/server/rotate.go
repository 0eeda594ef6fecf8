package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/bootstrapdata"
	"keelson/node/etcd"
	"keelson/node/nodeobject"
	"keelson/node/pki"
	"keelson/node/rotation"
	"keelson/node/succession"
	"keelson/node/supervisorapi"
	"keelson/node/token"
)

// startRotation settles which token is the cluster's, as soon as etcd tells, and follows its rotations from then on.
func (s *Server) startRotation(ctx context.Context) error {
	if err := s.settleToken(ctx); err != nil {
		return err
	}
	s.background("token rotation", s.rotator.Run)
	s.tellRotation(s.rotator.Overlap)
	return nil
}

func (s *Server) settleToken(ctx context.Context) error {
	if err := s.migrateRecord(ctx); err != nil {
		return err
	}
	if err := s.recoverToken(ctx); err != nil {
		return err
	}
	var err error
	if s.rotator, err = rotation.New(s.rotationConfig()); err != nil {
		return err
	}
	s.passwords, err = s.rotator.Settle(ctx, token.Secret(s.settings.Token))
	if errors.Is(err, token.ErrTokenChanged) {
		return fmt.Errorf("the token of the settings is not the one this cluster was made with; put the first one back, or remove it (the cluster keeps its own): %w", err)
	}
	if err != nil {
		return fmt.Errorf("settle the token: %w", err)
	}
	return nil
}

func (s *Server) rotationConfig() rotation.Config {
	return rotation.Config{
		Store: s.store, ServerDir: s.server(), Name: s.settings.NodeName, Servers: s.clusterServers, Log: s.log,
		Changed: func([]token.User) error { return s.install() },
	}
}

// migrateRecord takes over what an old k3s or RKE2 has left in this server's etcd data. Nothing is left of it where the
// cluster's record is in its place.
func (s *Server) migrateRecord(ctx context.Context) error {
	passwords, err := s.knownPasswords()
	if err != nil {
		return err
	}
	texts, err := s.tokenTexts()
	if err != nil {
		return err
	}
	for _, p := range passwords {
		moved, err := bootstrapdata.Migrate(ctx, s.store, p, texts...)
		if err != nil {
			return err
		}
		if moved {
			s.log.Info("the cluster's record was an old version's, and is now under the key of the token's password")
		}
	}
	return nil
}

// rotateToken answers PUT /v1-rke2/token.
func (s *Server) rotateToken(ctx context.Context, next token.Secret) error {
	_, err := s.rotator.Rotate(ctx, s.rotator.Passwords().Server, next)
	return refusal(err, rotation.ErrNewToken, rotation.ErrNotCurrent, bootstrapdata.ErrRotating)
}

// finishRotation answers DELETE /v1-rke2/token.
func (s *Server) finishRotation(ctx context.Context, shown token.Secret) error {
	err := s.rotator.Finish(ctx, shown)
	return refusal(err, rotation.ErrNoRotation, rotation.ErrLagging, rotation.ErrNotCurrent)
}

// clusterServers names the servers that have to follow the cluster's token: all that have a Node, and etcd's members,
// which may not have one yet.
func (s *Server) clusterServers(ctx context.Context) ([]string, error) {
	if !s.isReady() {
		return nil, notYet()
	}
	// s.client was set before s.ready was closed, which isReady has seen.
	nodes, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	members, err := s.memberNames(ctx)
	if err != nil {
		return nil, err
	}
	return serversOf(nodes.Items, members), nil
}

func serversOf(nodes []corev1.Node, members []string) []string {
	var names []string
	for _, n := range nodes {
		if n.Labels[nodeobject.LabelEtcd] == "true" || n.Labels[nodeobject.LabelControlPlane] == "true" {
			names = append(names, n.Name)
		}
	}
	for _, m := range members {
		name := etcd.NodeOf(m)
		if m == "" { // it was added, and has never started
			name = "a member of etcd that has not started"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// rotateCA answers PUT /v1-rke2/cert/cacerts: the cluster's record changes, and every server follows it, this one too.
func (s *Server) rotateCA(ctx context.Context, plain []byte, force bool) error {
	record, err := succession.Apply(ctx, s.store, s.rotator.Passwords().Server, plain, time.Now(), force)
	if err != nil {
		return refusal(err, err)
	}
	s.log.Info("authorities replaced", "generation", record.Generation(), "force", force)
	return nil
}

// refusal shows an error to who asked if it is one of those that they can mend.
func refusal(err error, theirs ...error) error {
	for _, e := range theirs {
		if err != nil && errors.Is(err, e) {
			return &supervisorapi.Refusal{Code: http.StatusBadRequest, Message: err.Error()}
		}
	}
	return err
}

// followRecord takes over what changes in the cluster's record while this server runs: another server's rotation of
// the authorities, or this one's.
func (s *Server) followRecord(context.Context) error {
	s.background("bootstrap record", func(ctx context.Context) error {
		for range s.store.Changes(ctx, bootstrapdata.Prefix) {
			if err := s.takeRecord(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the cluster's record is not followed", "error", err)
				if s.settings.DisableEtcd && errors.Is(err, bootstrapdata.ErrOlder) {
					return err // the next start takes the record of a cluster that was reset
				}
			}
		}
		return nil
	})
	return nil
}

func (s *Server) takeRecord(ctx context.Context) error {
	written, err := bootstrapdata.Sync(ctx, s.store, s.rotator.Passwords().Server, s.server())
	if errors.Is(err, bootstrapdata.ErrOtherToken) { // a recovery that this server is about to hear of
		if err := s.rotator.Follow(ctx); err != nil {
			return err
		}
		written, err = bootstrapdata.Sync(ctx, s.store, s.rotator.Passwords().Server, s.server())
	}
	if err != nil || len(written) == 0 {
		return err
	}
	s.tellRecord()
	s.log.Info("the cluster's record has changed", "written", len(written))
	s.renewSurely(ctx)
	return nil
}

// renewSurely renews until that has been done, and tells when the next certificate becomes due.
func (s *Server) renewSurely(ctx context.Context) time.Time {
	for {
		due, err := s.renew(ctx)
		if err == nil || ctx.Err() != nil {
			return due
		}
		s.log.Error("certificates are not renewed everywhere; this is tried again", "error", err)
		if wait(ctx, leastRenewal) != nil {
			return due
		}
	}
}

// renew brings certificates up to date, and has the pods that use them start anew (replacePods). It tells when the first
// certificate becomes due.
func (s *Server) renew(ctx context.Context) (time.Time, error) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	p := s.pki
	p.Now, p.ClusterExists = time.Now(), true
	r, err := pki.Ensure(p)
	if err != nil {
		return r.Renew, err
	}
	if len(r.Written) > 0 {
		s.log.Info("certificates renewed", "written", len(r.Written))
		if err := s.writeTokenFiles(); err != nil {
			return r.Renew, err
		}
		if err := s.install(); err != nil {
			return r.Renew, err
		}
	}
	return r.Renew, s.replacePods(ctx)
}

// writeTokenFiles writes the tokens that people copy: they name the present authority.
func (s *Server) writeTokenFiles() error {
	bundle, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w", err)
	}
	return token.EnsureFiles(s.server(), bundle, s.rotator.Passwords())
}

// install gives the listener its answers; a second time where users or authorities have changed.
func (s *Server) install() error {
	s.installed.Lock()
	defer s.installed.Unlock()
	caCerts, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w", err)
	}
	clientCA, err := os.ReadFile(s.server("tls", "client-ca.crt"))
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	h := supervisorapi.Handlers{
		CACerts:        caCerts,
		ClientCA:       clientCA,
		Users:          s.rotator.Users(),
		Ready:          s.isReady,
		APIServers:     s.apiServers,
		Bootstrap:      s.bootstrap,
		Config:         s.clusterConfig,
		Members:        s.etcdMemberList,
		Cluster:        s.describe,
		BootstrapToken: s.bootstrapToken,
		NodePassword:   s.nodes.Check,
		NodeQuick:      s.nodes.Quick,
		Sign:           s.signer.Sign,
		Connect:        s.tunnels.ServeNode,
		Egress:         s.tunnels.Egress(),
		RotateToken:    s.rotateToken,
		FinishRotation: s.finishRotation,
		RotateCA:       s.rotateCA,
		EncryptStatus:  s.encryptStatus,
		EncryptConfig:  s.encryptConfig,
	}
	if h.NoEtcd, h.NoAPI = s.settings.DisableEtcd, s.settings.DisableAPIServer; h.NoEtcd {
		h.Members, h.Cluster = nil, nil
	}
	if t := s.telemetry.Load(); t != nil {
		if s.settings.SupervisorMetrics {
			h.Metrics = t.Metrics()
		}
		if s.settings.EnablePprof {
			h.Profiles = t.Profiles()
		}
	}
	if m := s.registry.Load(); m != nil {
		h.Registry = m
	}
	if m := s.snapshots.Load(); m != nil {
		h.Snapshot = m.Handler()
	}
	return s.api.Install(h)
}
