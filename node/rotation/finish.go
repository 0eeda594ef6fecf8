package rotation

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keelson/node/bootstrapdata"
	"keelson/node/token"
)

// Why an overlap is not ended before its time.
var (
	ErrNoRotation = errors.New("no token but the present one is honoured: there is nothing to finish")
	ErrLagging    = errors.New("not every server has taken the new token over")
)

// Finish ends the overlap now: the token before is honoured no more. shown is the server token of who asks, who must have
// the new one. Servers that have not taken the new one over could not learn of it any more, so that each must have told
// that it has. A server that has told so and hears nothing of etcd goes on honouring both until the overlap's own end.
func (r *Rotator) Finish(ctx context.Context, shown token.Secret) error {
	r.work.Lock()
	defer r.work.Unlock()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rotation, ok, err := bootstrapdata.Rotating(limited, r.cfg.Store)
	if err != nil {
		return err
	}
	if !ok {
		return ErrNoRotation
	}
	if err := r.take(limited, rotation); err != nil {
		return err
	}
	if !same(r.Passwords().Server, shown) {
		return ErrNotCurrent
	}
	servers, err := r.cfg.Servers(limited)
	if err != nil {
		return fmt.Errorf("list the cluster's servers: %w", err)
	}
	late, err := bootstrapdata.Lagging(limited, r.cfg.Store, rotation, servers)
	if err != nil {
		return err
	}
	if len(late) > 0 {
		return fmt.Errorf("%w: %s; start it, or delete its Node if it will not come back. Until then both tokens are honoured", ErrLagging, strings.Join(late, ", "))
	}
	if err := bootstrapdata.EndRotation(limited, r.cfg.Store, rotation); err != nil {
		return err
	}
	if err := r.cut("finished"); err != nil {
		return err
	}
	if _, err := r.follow(ctx); err != nil {
		return fmt.Errorf("the token before the rotation is honoured no more, and this server will follow: %w", err)
	}
	r.cfg.Log.Info("the token before the rotation is honoured no more", "asked", true)
	return nil
}

// take brings this server in line with a rotation, and tells that it is.
func (r *Rotator) take(ctx context.Context, rotation bootstrapdata.Rotation) error {
	if err := r.adopt(rotation); err != nil {
		return err
	}
	if r.cfg.Name == "" {
		return nil
	}
	return bootstrapdata.Followed(ctx, r.cfg.Store, rotation, r.cfg.Name)
}
