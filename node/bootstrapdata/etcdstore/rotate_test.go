package etcdstore

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata/storetest"
)

func testRotation(t *testing.T, client *clientv3.Client) {
	s := New(client)
	storetest.RunTransactor(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	changes := s.Changes(ctx, "/t/watched")
	told := func(why string) {
		t.Helper()
		select {
		case _, ok := <-changes:
			if !ok {
				t.Fatalf("%s: closed", why)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not told", why)
		}
	}
	told("at once")
	if _, err := s.Put(ctx, "/t/watched", "1", 0); err != nil {
		t.Fatal(err)
	}
	told("a write")
	if _, err := client.Delete(ctx, "/t/watched"); err != nil {
		t.Fatal(err)
	}
	told("a removal")
	cancel()
	for range changes {
	}
}
