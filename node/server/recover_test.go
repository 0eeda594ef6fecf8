package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/config"
	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/rotation"
	"keelson/node/token"
)

// withEtcd prepares a server up to where etcd serves.
func withEtcd(t *testing.T, change func(*config.Config)) (*Server, *clientv3.Client) {
	t.Helper()
	s := newServer(t, change)
	prepare(t, s)
	client := etcdtest.Start(t, 1, nil)[0].Client
	s.etcd, s.store = client, etcdstore.New(client)
	return s, client
}

// TestServerTakesOldRecordsOver: of an old k3s, by the token as the settings write it.
func TestServerTakesOldRecordsOver(t *testing.T) {
	const full = "K10::server:" + clusterToken
	for name, text := range map[string]token.Secret{"no token": "", "the whole token": full} {
		t.Run(name, func(t *testing.T) {
			s, client := withEtcd(t, func(c *config.Config) { c.Token = full })
			data, err := bootstrapdata.Collect(s.server())
			if err != nil {
				t.Fatal(err)
			}
			plain, err := data.Encode()
			if err != nil {
				t.Fatal(err)
			}
			value, err := bootstrapdata.Encrypt(text, plain)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Put(t.Context(), bootstrapdata.Key(text), value); err != nil {
				t.Fatal(err)
			}
			if err := s.settleToken(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.saveBootstrap(t.Context()); err != nil {
				t.Fatal(err)
			}
			if all, err := s.store.List(t.Context(), bootstrapdata.Prefix); err != nil || len(all) != 1 || all[0].Key != bootstrapdata.Key(clusterToken) {
				t.Errorf("got %v, %v", all, err)
			}
			if got, err := os.ReadFile(s.server("tls/server-ca.key")); err != nil || string(got) != string(data["ServerCAKey"].Content) {
				t.Errorf("the disk's files have changed: %v", err)
			}
		})
	}
}

// dead is a server of a cluster that exists, in etcd and on its disk, and is to start with other settings.
func dead(t *testing.T, change func(*config.Config)) *Server {
	t.Helper()
	first, client := withEtcd(t, func(c *config.Config) { c.Token = clusterToken })
	for _, step := range []func(context.Context) error{first.settleToken, first.saveBootstrap} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(etcd.Dir(first.settings.DataDir), "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etcd.Dir(first.settings.DataDir), "member", "wal", "0.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, func(c *config.Config) {
		c.DataDir = first.settings.DataDir
		change(c)
	})
	if exists, err := s.clusterExists(); err != nil || !exists {
		t.Fatalf("the cluster exists: %v, %v", exists, err)
	}
	s.etcd, s.store = client, etcdstore.New(client)
	return s
}

func lose(t *testing.T, s *Server) {
	t.Helper()
	for _, path := range []string{"cred/passwd", "token", "node-token", "agent-token"} {
		if err := os.Remove(s.server(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// startToken is what of a start has to do with the token.
func startToken(t *testing.T, s *Server) error {
	t.Helper()
	for _, step := range []func(context.Context) error{s.ensureSecrets, s.ensureCertificates, s.writeTokens, s.settleToken, s.saveBootstrap} {
		if err := step(t.Context()); err != nil {
			return err
		}
	}
	return nil
}

// TestStartWithoutToken names what helps.
func TestStartWithoutToken(t *testing.T) {
	for name, c := range map[string]struct {
		passwd, settings string
		want             error
	}{
		"nobody knows one":                  {"", "", token.ErrTokenLost},
		"the password file is another's":    {"wrong,server,server,rke2:server\n", "", bootstrapdata.ErrOtherToken},
		"so it is, and so are the settings": {"wrong,server,server,rke2:server\n", "wrong", bootstrapdata.ErrOtherToken},
		"the settings' one is wrong":        {"", "wrong", bootstrapdata.ErrOtherToken},
	} {
		t.Run(name, func(t *testing.T) {
			s := dead(t, func(settings *config.Config) { settings.Token = config.Secret(c.settings) })
			lose(t, s)
			if c.passwd != "" {
				if err := os.WriteFile(s.server("cred/passwd"), []byte(c.passwd), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := startToken(t, s); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "node token recover") || !strings.Contains(err.Error(), "token-recover") {
				t.Errorf("got %v, want %v, with what helps", err, c.want)
			}
		})
	}
}

// TestStartRecoversTheToken where the settings ask for it, and leaves everything alone where it cannot.
func TestStartRecoversTheToken(t *testing.T) {
	const next = "fedcba9876543210fedcba9876543210"
	s := dead(t, func(c *config.Config) { c.Token, c.TokenRecover = next, true })
	lose(t, s)
	if err := startToken(t, s); err != nil {
		t.Fatal(err)
	}
	if s.passwords.Server != next || s.passwords.Agent != next {
		t.Error("the server goes on with another token")
	}
	for _, path := range []string{"cred/passwd", "token"} {
		if text, err := os.ReadFile(s.server(path)); err != nil || !strings.Contains(string(text), next) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if !strings.Contains(said(s), "take token-recover out of the settings") || strings.Contains(said(s), next) {
		t.Errorf("said %q", said(s))
	}
	if _, err := bootstrapdata.Load(t.Context(), s.store, next); err != nil {
		t.Error(err)
	}
	// The setting is still there at the next start.
	if err := startToken(t, s); err != nil || !strings.Contains(said(s), "the cluster has the token of the settings") {
		t.Errorf("again: %v, said %q", err, said(s))
	}

	behind := dead(t, func(c *config.Config) { c.Token, c.TokenRecover = next, true })
	lose(t, behind)
	if _, err := bootstrapdata.Replace(t.Context(), behind.store, clusterToken, func(d bootstrapdata.Data) (bootstrapdata.Data, error) {
		d["EncryptionConfig"] = bootstrapdata.File{Content: []byte("newer")}
		return d, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := startToken(t, behind); !errors.Is(err, bootstrapdata.ErrNoProof) {
		t.Errorf("a disk that is behind: got %v", err)
	}
	for _, path := range []string{"cred/passwd", "token"} {
		if _, err := os.Stat(behind.server(path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was written: %v", path, err)
		}
	}
	if _, err := bootstrapdata.Load(t.Context(), behind.store, clusterToken); err != nil {
		t.Errorf("the record: %v", err)
	}
}

// TestNewClusterWithTokenRecover has nothing to recover.
func TestNewClusterWithTokenRecover(t *testing.T) {
	s, _ := withEtcd(t, func(c *config.Config) { c.Token, c.TokenRecover = clusterToken, true })
	for _, step := range []func(context.Context) error{s.settleToken, s.saveBootstrap} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bootstrapdata.Load(t.Context(), s.store, clusterToken); err != nil {
		t.Error(err)
	}
}

// TestResetRecoversTheToken of data whose token nobody has: a restore is not lost with it.
func TestResetRecoversTheToken(t *testing.T) {
	const next = "fedcba9876543210fedcba9876543210"
	first := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, first)
	withData(t, first)
	lose(t, first)
	s := newServer(t, func(c *config.Config) {
		c.DataDir, c.Token, c.ClusterReset = first.settings.DataDir, next, true
	})
	if err := s.reset(t.Context()); !errors.Is(err, bootstrapdata.ErrOtherToken) || !strings.Contains(err.Error(), "token-recover") {
		t.Errorf("without being asked: got %v", err)
	}
	s.settings.TokenRecover = true
	if err := s.reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept, err := filepath.Glob(s.server("db/bootstrap-before-recovery-*")); err != nil || len(kept) != 1 {
		t.Errorf("kept %v, %v", kept, err)
	}
	if _, err := os.Stat(s.server("cred/passwd")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk's token was written before the data was the disk's: %v", err)
	}
}

// TestAnotherTokenForACluster in the settings than the disk and the record have.
func TestAnotherTokenForACluster(t *testing.T) {
	s := newServer(t, func(c *config.Config) { c.Token = "first" })
	prepare(t, s)
	if err := os.MkdirAll(s.server("db", "etcd", "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.settings.Token = "second"
	if err := s.ensureSecrets(context.Background()); err != nil || s.passwords.Server != "first" {
		t.Errorf("before etcd serves nobody knows which is right: got %v", err)
	}
	s.store = etcdstore.New(etcdtest.Start(t, 1, nil)[0].Client)
	if _, err := bootstrapdata.Sync(t.Context(), s.store, "first", s.server()); err != nil {
		t.Fatal(err)
	}
	err := s.settleToken(t.Context())
	if !errors.Is(err, token.ErrTokenChanged) || !strings.Contains(err.Error(), "put the first one back") {
		t.Errorf("got %v, want ErrTokenChanged with what to do", err)
	}
	if text := said(s) + fmt.Sprint(err); strings.Contains(text, "first\"") || strings.Contains(text, "second") {
		t.Errorf("a token is shown: %s", text)
	}
	if passwd, err := os.ReadFile(s.server("cred", "passwd")); err != nil || strings.Contains(string(passwd), "second") {
		t.Errorf("the disk has taken the wrong one: %v", err)
	}
}

// TestTokenChangedWhileAway: the disk has the token before, the settings the new one, and nothing in etcd leads from one
// to the other any more.
func TestTokenChangedWhileAway(t *testing.T) {
	const next = "fedcba9876543210fedcba9876543210"
	s := dead(t, func(c *config.Config) { c.Token = next })
	if err := bootstrapdata.Rotate(t.Context(), s.store, clusterToken, next, time.Now()); err != nil {
		t.Fatal(err)
	}
	r, ok, err := bootstrapdata.Rotating(t.Context(), s.store)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := bootstrapdata.EndRotation(t.Context(), s.store, r); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func(context.Context) error{s.ensureSecrets, s.writeTokens} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	config := s.rotationConfig()
	config.Changed = func([]token.User) error { return nil } // there is no listener here
	rotator, err := rotation.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rotator.Settle(t.Context(), token.Secret(s.settings.Token)); err != nil || got.Server != next {
		t.Errorf("got %v", err)
	}
}
