package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/recovery"
	"keelson/node/rotation"
	"keelson/node/token"
)

// recovers tells whether this start is to give a cluster that exists the settings' token in the place of a lost one.
func (s *Server) recovers(exists bool) bool { return exists && s.settings.TokenRecover }

// provisionalPasswords are what the start goes on with until etcd serves: this machine's, or, where they are lost, those
// that the cluster is to have. Nothing is written before they are the cluster's.
func (s *Server) provisionalPasswords() (token.Passwords, error) {
	users, err := token.LoadPasswd(s.server("cred", "passwd"))
	if err != nil {
		return token.Passwords{}, err
	}
	if p := token.PasswordsOf(users); p.Server != "" {
		return p, nil
	}
	next, err := token.ServerPassword(token.Secret(s.settings.Token))
	return token.Passwords{Server: next, Agent: next}, err
}

// recoverToken makes the settings' token the cluster's where the settings ask for that, as soon as etcd serves.
func (s *Server) recoverToken(ctx context.Context) error {
	if !s.settings.TokenRecover {
		return nil
	}
	p, err := s.recoveryParams(s.store)
	if err != nil {
		return err
	}
	result, err := recovery.Run(ctx, p)
	if errors.Is(err, bootstrapdata.ErrNone) { // a new cluster: the settings' token is its first
		return nil
	}
	if err != nil {
		return fmt.Errorf("token-recover: %w", err)
	}
	switch result.Outcome {
	case recovery.Present:
		s.console("the cluster has the token of the settings; take token-recover out of them")
	case recovery.Rotated:
		s.console("the cluster's token was still on this disk, and is replaced by the one of the settings; the one before holds for a while. Take token-recover out of the settings")
	default:
		s.console("the cluster's token was lost, and is the one of the settings now. Running servers take it over by themselves; give it to machines that are to join, and take token-recover out of the settings")
		s.log.Warn("token recovered", "records_before", result.Kept)
	}
	return nil
}

// recoverReset does so for the data of a reset, before it is this server's: the disk's tokens stay until then.
func (s *Server) recoverReset(ctx context.Context, store bootstrapdata.Transactor) error {
	p, err := s.recoveryParams(store)
	if err != nil {
		return err
	}
	p.StoreOnly = true
	result, err := recovery.Run(ctx, p)
	if err == nil && result.Kept != "" {
		s.log.Warn("token of the data to reset recovered", "records_before", result.Kept)
	}
	return err
}

func (s *Server) recoveryParams(store bootstrapdata.Transactor) (recovery.Params, error) {
	next, err := token.ServerPassword(token.Secret(s.settings.Token))
	if err != nil {
		return recovery.Params{}, fmt.Errorf("token: %w", err)
	}
	p := recovery.Params{
		Store: store, ServerDir: s.server(), Next: next, Unsealed: s.settings.TokenRecoverUnsealed,
		Overlap: rotation.DefaultOverlap, Now: time.Now(),
	}
	if s.settings.AgentToken != "" {
		if p.Agent, err = token.ServerPassword(token.Secret(s.settings.AgentToken)); err != nil {
			return recovery.Params{}, fmt.Errorf("agent-token: %w", err)
		}
	}
	return p, nil
}
