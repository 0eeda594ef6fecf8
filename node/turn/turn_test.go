package turn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcdsnapshot/etcdtest"
)

func config(client *clientv3.Client) Config {
	return Config{Client: client, Name: "pods", TTL: 2 * time.Second, Log: slog.New(slog.DiscardHandler)}
}

func TestTurns(t *testing.T) {
	members := etcdtest.Start(t, 3, nil)

	t.Run("one at a time", func(t *testing.T) {
		var inside, most atomic.Int32
		var all sync.WaitGroup
		for _, m := range members {
			all.Go(func() {
				for range 3 {
					back, err := Take(t.Context(), config(m.Client))
					if err != nil {
						t.Error(err)
						return
					}
					if n := inside.Add(1); n > most.Load() {
						most.Store(n)
					}
					if _, err := m.Client.Put(t.Context(), "while/inside", "x"); err != nil {
						t.Error(err)
					}
					inside.Add(-1)
					back()
				}
			})
		}
		all.Wait()
		if got := most.Load(); got != 1 {
			t.Errorf("got %d servers inside at once, want 1", got)
		}
	})

	t.Run("others do not matter", func(t *testing.T) {
		back, err := Take(t.Context(), config(members[0].Client))
		if err != nil {
			t.Fatal(err)
		}
		defer back()
		c := config(members[1].Client)
		c.Name = "another"
		other, err := Take(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		other()
	})

	t.Run("patience ends", func(t *testing.T) {
		back, err := Take(t.Context(), config(members[0].Client))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := Take(ctx, config(members[1].Client)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		back()
		// Nobody is left in the queue.
		back, err = Take(t.Context(), config(members[2].Client))
		if err != nil {
			t.Fatal(err)
		}
		back()
	})

	t.Run("a holder's etcd goes and comes back", func(t *testing.T) {
		back, err := Take(t.Context(), config(members[0].Client))
		if err != nil {
			t.Fatal(err)
		}
		// Its server dies: nothing keeps the lease alive any more, and nobody gives the turn back.
		members[0].Stop()
		began := time.Now()
		next, err := Take(t.Context(), config(members[1].Client))
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > 30*time.Second {
			t.Errorf("the turn of a dead server was given on after %s", waited)
		}
		next()
		back() // says so, and returns
	})
}

func TestTakeNeeds(t *testing.T) {
	if _, err := Take(t.Context(), Config{}); err == nil {
		t.Error("a turn without a client was taken")
	}
}
