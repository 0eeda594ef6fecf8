package rotation

import (
	"context"

	"keelson/node/bootstrapdata"
	"keelson/node/file"
	"keelson/node/token"
)

// Follow brings this server in line with what etcd tells of the token, now.
func (r *Rotator) Follow(ctx context.Context) error {
	r.work.Lock()
	defer r.work.Unlock()
	_, err := r.follow(ctx)
	return err
}

// takeRecovery takes over the token of a recovery, which another server made without the one before (package recovery).
// The one before is honoured no more: it was lost, and nobody knows to whom. Its hash stays, so that settings which
// have it do no harm. The caller holds work.
func (r *Rotator) takeRecovery(ctx context.Context) error {
	last, ok, err := bootstrapdata.LastRecovery(ctx, r.cfg.Store)
	old := r.Passwords().Server
	if err != nil || !ok || last.To == bootstrapdata.Key(old) {
		return err
	}
	next, err := last.Open(r.cfg.ServerDir)
	if err != nil {
		return err
	}
	hash, err := token.Hash(old)
	if err != nil {
		return err
	}
	previous := token.Previous{Hash: hash, Expires: r.cfg.Now()}
	if err := token.SavePrevious(r.cfg.ServerDir, previous); err != nil {
		return err
	}
	if err := r.cut("previous"); err != nil {
		return err
	}
	users := token.WithServer(r.users, next)
	data, err := token.RenderPasswd(users)
	if err != nil {
		return err
	}
	if _, err := file.Ensure(r.passwdPath(), data, 0o600); err != nil {
		return err
	}
	r.pending = true
	r.set(users, previous)
	if err := r.cut("passwd"); err != nil {
		return err
	}
	if err := r.writeTokens(); err != nil {
		return err
	}
	r.cfg.Log.Info("the cluster's token was recovered, and is this server's now; the one before is honoured no more")
	return r.tell()
}
