package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"keelson/node/agreement"
	"keelson/node/member"
	"keelson/node/status"
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
	members, err := member.ToJoin(s.settings.DataDir)
	if err != nil || s.settings.Server == "" && len(members) == 0 {
		return err
	}
	exists, err := s.clusterExists()
	if exists && s.settings.DisableEtcd {
		return s.rejoinCluster(ctx)
	}
	if err != nil || exists {
		return err
	}
	client, err := s.awaitJoinServer(ctx, s.supervisors(members))
	if err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	document, err := persistently(ctx, s, client.Config)
	if err != nil {
		return fmt.Errorf("join the cluster: read its settings: %w", err)
	}
	if err := agreement.Check(agreement.Of(s.settings), document); err != nil {
		return fmt.Errorf("join the cluster at %s: %w", s.settings.Server, err)
	}
	if err := s.checkVersion(document); err != nil {
		return fmt.Errorf("join the cluster at %s: %w", s.settings.Server, err)
	}
	if err := s.takeCluster(ctx, client, len(members) > 0); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	s.milestone("cluster found")
	return nil
}

// awaitJoinServer asks the join servers in turn until one answers. What waiting cannot mend is an error at once; what
// it can is told on the console, each reason once.
func (s *Server) awaitJoinServer(ctx context.Context, servers []string) (*supervisorclient.Client, error) {
	var said string
	for pause, turn := firstAsk, 0; ; pause, turn = min(2*pause, lastAsk), turn+1 {
		client, err := s.askServer(ctx, servers[turn%len(servers)])
		if err == nil {
			return client, nil
		}
		if !errors.Is(err, trust.ErrUnreachable) && !errors.Is(err, trust.ErrNotReady) {
			return nil, err
		}
		status.Reason(ctx, err)
		if text := err.Error(); text != said {
			said = text
			s.console("waiting for the cluster: " + text)
		}
		if cause := wait(ctx, pause/2+rand.N(pause)); cause != nil {
			return nil, errors.Join(cause, err)
		}
	}
}

// askServer trusts a server of the cluster by the token, or, once this server has them, by the cluster's authorities.
// A server without a token in its settings knows the one that it once made.
func (s *Server) askServer(ctx context.Context, server string) (*supervisorclient.Client, error) {
	known, err := s.knownCA()
	if err != nil {
		return nil, err
	}
	secret := token.Secret(s.settings.Token)
	if secret == "" {
		if secret, err = s.ownPassword(); err != nil {
			return nil, err
		}
	}
	access, err := trust.Validate(ctx, trust.Config{
		Server: server, Token: secret, User: token.UserServer, CA: known,
		PinFile: s.server("etc", trust.PinName), RequireHash: s.settings.RequireTokenCAHash, Log: s.log,
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

// askAnyServer asks the servers of the settings in turn, and gives the first that answers. Where none does the error is
// about the one to join by.
func (s *Server) askAnyServer(ctx context.Context) (*supervisorclient.Client, error) {
	var first error
	for _, server := range s.supervisors(nil) {
		client, err := s.askServer(ctx, server)
		if err == nil {
			return client, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, trust.ErrUnreachable) && !errors.Is(err, trust.ErrNotReady) {
			break // what waiting cannot mend is told in that one's name
		}
	}
	return nil, first
}

// etcdMembers asks the join server for the client URLs of the members that vote.
func (s *Server) etcdMembers(ctx context.Context) ([]string, error) {
	client, err := s.askAnyServer(ctx)
	if err != nil {
		return nil, err
	}
	exists, err := s.clusterExists()
	if err != nil {
		return nil, err
	}
	if exists { // its member may be what the others wait for
		members, err := client.DBInfo(ctx)
		return voting(members), err
	}
	members, err := persistently(ctx, s, client.DBInfo)
	return voting(members), err
}

// voting are the client URLs of the members that vote.
func voting(members []supervisorclient.Member) []string {
	var urls []string
	for _, m := range members {
		if !m.IsLearner {
			urls = append(urls, m.ClientURLs...)
		}
	}
	return urls
}
