package rotation

import (
	"context"
	"errors"
	"fmt"

	"keelson/node/bootstrapdata"
	"keelson/node/file"
	"keelson/node/token"
)

// Settle finds this server's token as soon as etcd serves, before anything reads the bootstrap record. A server that
// was away during a rotation has the one before in its password file; settings may hold the one before, the new one,
// or none. What opens the cluster's record is right. settings is empty where none is set; if it opens nothing and is
// not the one before the last rotation, the error is token.ErrTokenChanged.
func (r *Rotator) Settle(ctx context.Context, settings token.Secret) (token.Passwords, error) {
	r.work.Lock()
	defer r.work.Unlock()
	if _, ok, err := bootstrapdata.Rotating(ctx, r.cfg.Store); err == nil && !ok {
		if err := r.takeRecovery(ctx); err != nil && !errors.Is(err, bootstrapdata.ErrRecovery) { // the settings may have it
			return token.Passwords{}, err
		}
	}
	if settings != "" {
		if err := r.settle(ctx, settings); err != nil {
			return token.Passwords{}, err
		}
	}
	if _, err := r.follow(ctx); err != nil {
		return token.Passwords{}, err
	}
	return r.Passwords(), nil
}

func (r *Rotator) settle(ctx context.Context, settings token.Secret) error {
	password, err := token.ServerPassword(settings)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	now := r.Passwords().Server
	if same(now, password) {
		return nil
	}
	if _, err := bootstrapdata.Load(ctx, r.cfg.Store, now); err == nil {
		// The password file is right. Settings that will follow, or have not followed yet, do no harm.
		rotation, ok, err := bootstrapdata.Rotating(ctx, r.cfg.Store)
		if err != nil {
			return err
		}
		if key := bootstrapdata.Key(password); ok && (key == rotation.From || key == rotation.To) {
			return nil
		}
		if r.previous.Hash != "" {
			if old, err := token.Verify(r.previous.Hash, password); err != nil || old {
				return err
			}
		}
		return token.ErrTokenChanged
	}
	if _, err := bootstrapdata.Load(ctx, r.cfg.Store, password); err != nil {
		return fmt.Errorf("neither the token of the settings nor the one of %s opens the cluster's bootstrap data: %w", r.passwdPath(), err)
	}
	users := token.WithServer(r.users, password)
	data, err := token.RenderPasswd(users)
	if err != nil {
		return err
	}
	if _, err := file.Ensure(r.passwdPath(), data, 0o600); err != nil {
		return err
	}
	r.pending = true
	r.set(users, r.previous)
	if err := r.writeTokens(); err != nil {
		return err
	}
	r.cfg.Log.Info("token of the settings taken over: the cluster's token was rotated while this server was away")
	return nil
}
