package turn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// ErrLost says that a turn has ended before what was done in it: this server's lease did.
var ErrLost = errors.New("the turn is lost")

// againAfter is how long nothing is tried after etcd has given no turn.
const againAfter = 2 * time.Second

// Hold has run called on one server at a time, for as long as ctx lasts: it waits for the turn, and waits for it anew when it
// is lost. The context that run gets ends when the turn does, and then with the cause ErrLost. It returns when run does of its
// own accord, and nil when ctx ends.
//
// The wait costs etcd nothing, and holding it no write: a lease is kept alive in its leader's memory.
func Hold(ctx context.Context, c Config, run func(context.Context) error) error {
	if c.Client == nil || c.Name == "" || c.Log == nil || run == nil {
		return errors.New("hold turn: a client, a name, a log and what to do are needed")
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	for ctx.Err() == nil {
		err := holdOnce(ctx, c, run)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrLost):
			c.Log.Warn("turn", "turn", c.Name, "error", err)
		case errors.Is(err, errNotTaken):
			c.Log.Warn("turn", "turn", c.Name, "error", err)
			timer := time.NewTimer(againAfter)
			select {
			case <-ctx.Done():
				timer.Stop()
			case <-timer.C:
			}
		default:
			return err
		}
	}
	return nil
}

// errNotTaken says that etcd has given no turn.
var errNotTaken = errors.New("the turn is not taken")

func holdOnce(ctx context.Context, c Config, run func(context.Context) error) error {
	lease, err := c.Client.Grant(ctx, int64(c.TTL/time.Second))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotTaken, err)
	}
	session, err := concurrency.NewSession(c.Client, concurrency.WithLease(lease.ID), concurrency.WithContext(c.Client.Ctx()))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotTaken, err)
	}
	defer func() {
		if err := end(session); err != nil {
			c.Log.Warn("the turn ends with its lease", "turn", c.Name, "error", err)
		}
	}()
	if err := concurrency.NewMutex(session, Prefix+c.Name).Lock(ctx); err != nil {
		return fmt.Errorf("%w: %w", errNotTaken, err)
	}
	c.Log.Info("turn taken", "turn", c.Name)
	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-session.Done():
			cancel(ErrLost)
		case <-held.Done():
		}
	}()
	if err = run(held); context.Cause(held) == ErrLost {
		return ErrLost
	}
	return err
}
