package member

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// acknowledged is one compare-and-swap that a client was told has happened.
type acknowledged struct {
	from, to string
	revision int64
}

// history kills the leader under writers and holds what they were told against what there is.
func history(ctx context.Context, t *testing.T, l *lan, all []*machine) {
	const key = "register"
	if _, err := l.client(t, all...).Put(ctx, key, "0"); err != nil {
		t.Fatal(err)
	}
	writing, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	var lock sync.Mutex
	var acks []acknowledged
	for w := range 3 {
		client := l.client(t, all...)
		done.Go(func() {
			for n := 0; writing.Err() == nil; n++ {
				if a, ok := swap(writing, client, key, fmt.Sprintf("%d-%d", w, n)); ok {
					lock.Lock()
					acks = append(acks, a)
					lock.Unlock()
				}
			}
		})
	}
	count := func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(acks)
	}
	eventually(ctx, t, "writes before", func() bool { return count() >= 50 })
	killed, rest := leader(ctx, t, all...)
	killed.kill()
	begun, before := time.Now(), count()
	leader(ctx, t, rest...)
	eventually(ctx, t, "writes after", func() bool { return count() >= before+50 })
	t.Logf("50 writes more %v after the leader was killed", time.Since(begun).Round(time.Millisecond))
	stop()
	done.Wait()

	// Start finds itself in the list that the others give, and adds nobody.
	if err := killed.serve(ctx); err != nil {
		t.Fatal(err)
	}
	back := l.client(t, killed)
	if _, err := back.Get(ctx, key); err != nil { // linearizable: it has caught up
		t.Fatal(err)
	}
	from := map[string]string{}
	for _, a := range acks {
		if other, twice := from[a.from]; twice {
			t.Fatalf("both %s and %s replaced %s", other, a.to, a.from)
		}
		from[a.from] = a.to
		got, err := back.Get(ctx, key, clientv3.WithRev(a.revision), clientv3.WithSerializable())
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Kvs[0].Value) != a.to || got.Kvs[0].ModRevision != a.revision {
			t.Fatalf("acknowledged %s at revision %d; there is %s of %d", a.to, a.revision, got.Kvs[0].Value, got.Kvs[0].ModRevision)
		}
	}
	if len(acks) < 100 {
		t.Errorf("only %d writes", len(acks))
	}
}

// swap replaces what is there, and tells whether it was told so.
func swap(ctx context.Context, client *clientv3.Client, key, to string) (acknowledged, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	have, err := client.Get(ctx, key)
	if err != nil || len(have.Kvs) == 0 {
		return acknowledged{}, false
	}
	from := string(have.Kvs[0].Value)
	done, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", from)).Then(clientv3.OpPut(key, to)).Commit()
	if err != nil || !done.Succeeded {
		return acknowledged{}, false
	}
	return acknowledged{from: from, to: to, revision: done.Header.Revision}, true
}
