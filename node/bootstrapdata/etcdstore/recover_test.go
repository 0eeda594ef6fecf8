package etcdstore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata"
	"keelson/node/token"
)

// testOldAndLost: a record under an old k3s's key is moved, and one whose token is lost is replaced, in real etcd.
func testOldAndLost(t *testing.T, client *clientv3.Client) {
	ctx, s, dir := t.Context(), New(client), t.TempDir()
	for _, e := range bootstrapdata.Entries() {
		path := filepath.Join(dir, e.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		content := e.Name
		if e.Name == "PasswdFile" {
			content = "pass,server,server,rke2:server\n"
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := bootstrapdata.Collect(dir)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := data.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const full = token.Secret("K10::server:pass")
	value, err := bootstrapdata.Encrypt(full, plain)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := s.Put(ctx, bootstrapdata.Key(full), value, 0); err != nil || !done {
		t.Fatal(done, err)
	}
	if moved, err := bootstrapdata.Migrate(ctx, s, "pass", full); err != nil || !moved {
		t.Fatalf("migrate: %v, %v", moved, err)
	}
	keys := func() []string {
		t.Helper()
		got, err := client.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, kv := range got.Kvs {
			if key := string(kv.Key); strings.HasPrefix(key, "/bootstrap") || strings.HasPrefix(key, "/keelson/") {
				all = append(all, key)
			}
		}
		return all
	}
	if want := []string{bootstrapdata.Key("pass"), bootstrapdata.SealKey}; !slices.Equal(keys(), want) {
		t.Errorf("migrated: got %v, want %v", keys(), want)
	}
	if _, err := bootstrapdata.Sync(ctx, s, "pass", dir); err != nil {
		t.Fatal(err)
	}
	generation, err := bootstrapdata.Recover(ctx, s, bootstrapdata.Recovery{
		ServerDir: dir, Next: "next", Keep: func([]bootstrapdata.Record) error { return nil },
		Users: []token.User{{Name: token.UserServer, Password: "next", Roles: []string{token.RoleServer}}},
	})
	if err != nil || generation != 2 {
		t.Fatalf("recover: %d, %v", generation, err)
	}
	if want := []string{bootstrapdata.Key("next"), bootstrapdata.SealKey, bootstrapdata.RecoveryKey}; !slices.Equal(keys(), want) {
		t.Errorf("recovered: got %v, want %v", keys(), want)
	}
	if _, err := bootstrapdata.Load(ctx, s, "next"); err != nil {
		t.Error(err)
	}
}
