package clusterreset

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/token"
)

// TestResetOfOldData: the data of an old k3s, whose record is under the key of the whole token, is reset with that token.
func TestResetOfOldData(t *testing.T) {
	segment := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = 1 << 20
	t.Cleanup(func() { wal.SegmentSizeBytes = segment })
	const full = "K10::server:" + password
	dir := t.TempDir()
	put(t, filepath.Join(dir, "server/tls/server-ca.crt"), "the cluster's CA")
	put(t, filepath.Join(dir, "server/db/etcd/name"), "m1")
	members := etcdtest.Start(t, 1, func(_ int, c *embed.Config) { c.Dir = etcd.Dir(dir) })
	plain, err := bootstrapdata.Data{"ServerCA": {Content: []byte("the cluster's CA")}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	value, err := bootstrapdata.Encrypt(full, plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := members[0].Client.Put(t.Context(), bootstrapdata.Key(full), value); err != nil {
		t.Fatal(err)
	}
	members[0].Stop()
	p := Params{DataDir: dir, NodeName: "cp-1", Address: "127.0.0.1", Password: password, Now: time.Unix(1_800_000_000, 0), Log: slog.New(slog.DiscardHandler)}
	if _, err := Run(t.Context(), p); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Fatalf("by the password alone: got %v", err)
	}
	// Where nobody has the token, the hook may give the new data another; what it cannot do ends the reset.
	refused := errors.New("refused")
	p.Recover = func(ctx context.Context, store bootstrapdata.Transactor) error {
		if all, err := store.List(ctx, bootstrapdata.Prefix); err != nil || len(all) != 1 {
			t.Errorf("the hook sees %v, %v", all, err)
		}
		return refused
	}
	if _, err := Run(t.Context(), p); !errors.Is(err, refused) {
		t.Fatalf("a recovery that is refused: got %v", err)
	}
	p.Texts = []token.Secret{"", full}
	if outcome, err := Run(t.Context(), p); err != nil || outcome != Done {
		t.Fatalf("got %v, %v", outcome, err)
	}
	err = serve(t.Context(), etcd.Dir(dir), false, func(ctx context.Context, c *clientv3.Client) error {
		store := etcdstore.New(c)
		if _, err := bootstrapdata.Load(ctx, store, password); err != nil {
			t.Errorf("the record of the new cluster: %v", err)
		}
		if all, err := store.List(ctx, bootstrapdata.Prefix); err != nil || len(all) != 1 {
			t.Errorf("got %v, %v", all, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
