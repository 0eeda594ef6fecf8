package turn

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"keelson/node/etcdsnapshot/etcdtest"
)

// One server at a time does what is held; the next begins when it stops, when its lease is lost, and when it dies.
func TestHold(t *testing.T) {
	members := etcdtest.Start(t, 3, nil)
	var inside atomic.Int32
	type stay struct {
		member int
		ctx    context.Context
	}
	began := make(chan stay)
	stops := make([]context.CancelFunc, len(members))
	ended := make(chan error, len(members))
	for i, m := range members {
		var ctx context.Context
		ctx, stops[i] = context.WithCancel(t.Context())
		go func() {
			ended <- Hold(ctx, config(m.Client), func(ctx context.Context) error {
				if inside.Add(1) > 1 {
					t.Error("two hold the turn")
				}
				began <- stay{i, ctx}
				<-ctx.Done()
				inside.Add(-1)
				return ctx.Err()
			})
		}()
	}
	first := <-began
	stops[first.member]()
	if err := <-ended; err != nil {
		t.Errorf("stopped: got %v", err)
	}
	second := <-began
	if second.member == first.member {
		t.Fatal("who has stopped holds the turn again")
	}
	// The lease is taken away, as it is when its server was gone for too long.
	client := members[second.member].Client
	leases, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		keys, err := client.TimeToLive(t.Context(), lease.ID)
		if err != nil {
			t.Fatal(err)
		}
		// All of them: who waits has one as well, and waits anew.
		if _, err := client.Revoke(t.Context(), keys.ID); err != nil {
			t.Fatal(err)
		}
	}
	<-second.ctx.Done()
	if cause := context.Cause(second.ctx); cause != ErrLost {
		t.Errorf("lost: got the cause %v", cause)
	}
	third := <-began
	for _, stop := range stops {
		stop()
	}
	<-third.ctx.Done()
	for range len(members) - 1 {
		if err := <-ended; err != nil {
			t.Errorf("stopped: got %v", err)
		}
	}
}

func TestHoldEndsWithItsWork(t *testing.T) {
	members := etcdtest.Start(t, 1, nil)
	problem := errors.New("it cannot be done")
	for _, want := range []error{problem, nil} {
		if err := Hold(t.Context(), config(members[0].Client), func(context.Context) error { return want }); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	back, err := Take(t.Context(), config(members[0].Client)) // the turn was given back
	if err != nil {
		t.Fatal(err)
	}
	back()
	if err := Hold(t.Context(), Config{}, nil); err == nil {
		t.Error("a turn without a client was held")
	}
}
