// Package turn lets a cluster's servers do one after the other what would hurt if they did it together, such as starting
// etcd and kube-apiserver anew. The turn is a lock in etcd (clientv3/concurrency) under a lease, so that a server that
// dies with it gives it back.
//
// It orders what servers do of their own accord and protects no data: who cannot have the turn in time goes on without
// it where waiting would be worse. node/server is its user.
package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Prefix is where the turns of a cluster are kept in etcd.
const Prefix = "keelson/turn/"

// DefaultTTL is how long a turn outlives its server, and how long a holder's own etcd may be away.
const DefaultTTL = 2 * time.Minute

// releaseWithin bounds how long giving a turn back is tried; its lease ends it otherwise.
const releaseWithin = 10 * time.Second

// Config is what a turn needs.
type Config struct {
	Client *clientv3.Client
	Name   string        // of what is done in turns
	TTL    time.Duration // 0: DefaultTTL; whole seconds
	Log    *slog.Logger
}

// Take waits for the turn, and returns the function that gives it back, which may be called with any state of etcd. The
// error says who has the turn, if that is known.
func Take(ctx context.Context, c Config) (back func(), err error) {
	if c.Client == nil || c.Name == "" || c.Log == nil {
		return nil, errors.New("take turn: a client, a name and a log are needed")
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	lease, err := c.Client.Grant(ctx, int64(c.TTL/time.Second))
	if err != nil {
		return nil, fmt.Errorf("take turn %s: %w", c.Name, errors.Join(context.Cause(ctx), err))
	}
	// The session outlives ctx, which is the wait's.
	session, err := concurrency.NewSession(c.Client, concurrency.WithLease(lease.ID), concurrency.WithContext(c.Client.Ctx()))
	if err != nil {
		return nil, fmt.Errorf("take turn %s: %w", c.Name, err)
	}
	mutex := concurrency.NewMutex(session, Prefix+c.Name)
	began := time.Now()
	if err := mutex.Lock(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("take turn %s: waited %s: %w", c.Name, time.Since(began).Round(time.Second), errors.Join(context.Cause(ctx), err)), end(session))
	}
	c.Log.Info("turn taken", "turn", c.Name, "waited", time.Since(began).Round(time.Millisecond))
	return func() {
		held := time.Since(began).Round(time.Millisecond)
		if err := end(session); err != nil {
			c.Log.Warn("the turn ends with its lease", "turn", c.Name, "error", err)
			return
		}
		c.Log.Info("turn given back", "turn", c.Name, "dur", held)
	}, nil
}

// end revokes the lease, and with it all that was locked. What cannot be revoked ends by itself.
func end(session *concurrency.Session) error {
	session.Orphan() // keeps the lease alive no longer
	ctx, cancel := context.WithTimeout(context.WithoutCancel(session.Client().Ctx()), releaseWithin)
	defer cancel()
	if _, err := session.Client().Revoke(ctx, session.Lease()); err != nil {
		return fmt.Errorf("give turn back: %w", err)
	}
	return nil
}
