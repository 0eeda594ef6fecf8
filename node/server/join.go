package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"keelson/node/agreement"
	"keelson/node/bootstrapdata"
	"keelson/node/supervisorclient"
	"keelson/node/token"
	"keelson/node/trust"
)

// How long a server waits before it asks the join server again: at first next to nothing, since servers of a new
// cluster start together, and never so rarely that somebody who watches the console would take it for dead.
const (
	firstAsk = 200 * time.Millisecond
	lastAsk  = 5 * time.Second
)

// joinCluster obtains what a server needs of the cluster it joins: its authorities, password file and encryption keys.
// A server that begins a cluster has nothing to obtain, and one that has etcd data has it already: it goes on with
// what it has even if the join server is gone for good (k3s issues 2281, 2316).
func (s *Server) joinCluster(ctx context.Context) error {
	if s.settings.Server == "" {
		return nil
	}
	exists, err := s.clusterExists()
	if err != nil || exists {
		return err
	}
	client, err := s.awaitJoinServer(ctx)
	if err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	document, err := client.Config(ctx)
	if err != nil {
		return fmt.Errorf("join the cluster: read its settings: %w", err)
	}
	if err := agreement.Check(agreement.Of(s.settings), document); err != nil {
		return fmt.Errorf("join the cluster at %s: %w", s.settings.Server, err)
	}
	plain, err := client.ServerBootstrap(ctx)
	if err != nil {
		return fmt.Errorf("join the cluster: read its bootstrap data: %w", err)
	}
	record, err := bootstrapdata.Decode(plain)
	if err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	written, err := bootstrapdata.Reconcile(s.server(), record)
	if err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	s.milestone("cluster found")
	s.log.Info("joining", "server", s.settings.Server, "generation", record.Generation(), "written", len(written))
	return nil
}

// awaitJoinServer asks the join server until it answers. What waiting cannot mend is an error at once; what it can is
// told on the console, each reason once.
func (s *Server) awaitJoinServer(ctx context.Context) (*supervisorclient.Client, error) {
	var said string
	for pause := firstAsk; ; pause = min(2*pause, lastAsk) {
		client, err := s.askJoinServer(ctx)
		if err == nil {
			return client, nil
		}
		if !errors.Is(err, trust.ErrUnreachable) && !errors.Is(err, trust.ErrNotReady) {
			return nil, err
		}
		if text := err.Error(); text != said {
			said = text
			s.console("waiting for the cluster: " + text)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// askJoinServer trusts the join server by the token, or, once this server has them, by the cluster's authorities.
func (s *Server) askJoinServer(ctx context.Context) (*supervisorclient.Client, error) {
	known, err := os.ReadFile(s.server("tls", "server-ca.crt"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read server CA: %w", err)
	}
	access, err := trust.Validate(ctx, trust.Config{
		Server: s.settings.Server, Token: token.Secret(s.settings.Token), User: token.UserServer, CA: known,
		PinFile: s.server("etc", "trusted-ca-hash"), RequireHash: s.settings.RequireTokenCAHash, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	if access.TrustedOnFirstUse {
		s.mu.Lock()
		s.firstUsed = access.CAHash
		s.mu.Unlock()
		s.console("the cluster's authority " + access.CAHash + " is trusted because it was the first one seen; a token with its hash would leave nothing to chance")
	}
	return supervisorclient.New(access, nil), nil
}

// etcdMembers asks the join server for the client URLs of the members that vote.
func (s *Server) etcdMembers(ctx context.Context) ([]string, error) {
	client, err := s.askJoinServer(ctx)
	if err != nil {
		return nil, err
	}
	members, err := client.DBInfo(ctx)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, m := range members {
		if !m.IsLearner {
			urls = append(urls, m.ClientURLs...)
		}
	}
	return urls, nil
}
