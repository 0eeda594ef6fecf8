package command

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/pki"
	"keelson/node/token"
)

// TestTokenRecover on the disk of a server whose etcd runs, and which has lost its token.
func TestTokenRecover(t *testing.T) {
	etcd := etcdtest.Start(t, 1, nil)[0]
	data := t.TempDir()
	server := filepath.Join(data, "server")
	if _, err := pki.Ensure(pki.Params{
		ServerDir: server, AgentDir: filepath.Join(data, "agent"), NodeName: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ClusterDomain: "cluster.local", Now: time.Now(),
	}); err != nil {
		t.Fatal(err)
	}
	certificates := filepath.Dir(etcd.Dir) // whose authority and leaf have one key
	for from, to := range map[string][]string{"ca.crt": {"server-ca.crt"}, "leaf.crt": {"client.crt"}, "leaf.key": {"client.key", "server-ca.key"}} {
		content, err := os.ReadFile(filepath.Join(certificates, from))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range to {
			if err := os.WriteFile(filepath.Join(server, "tls/etcd", name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := token.EnsurePasswd(server, "old", "", false); err != nil {
		t.Fatal(err)
	}
	store := etcdstore.New(etcd.Client)
	if _, err := bootstrapdata.Sync(t.Context(), store, "old", server); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cp-1", "w-1"} {
		if _, err := etcd.Client.Put(t.Context(), "/registry/minions/"+name, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(server, "cred/passwd")); err != nil {
		t.Fatal(err)
	}
	verb := func(args ...string) (string, string, error) {
		var out, problems bytes.Buffer
		err := tokenVerb(t.Context(), append([]string{"recover", "--etcd", etcd.Endpoint, "--data-dir", data}, args...), time.Now(), &out, &problems)
		return out.String(), problems.String(), err
	}

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a token that cannot be one": {[]string{"--new-token", "K10::server:x"}, "begins with K10"},
		"too many words":             {[]string{"next"}, "one too many"},
		"no server":                  {[]string{"--data-dir", t.TempDir()}, "run this on a server"},
	} {
		if out, _, err := verb(c.args...); err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("%s: got %q, %v", name, out, err)
		}
	}
	if _, err := bootstrapdata.Load(t.Context(), store, "old"); err != nil {
		t.Fatalf("what was refused has changed the record: %v", err)
	}

	out, said, err := verb()
	if err != nil {
		t.Fatal(err)
	}
	password, err := token.ServerPassword(token.Secret(strings.TrimSpace(out)))
	if err != nil || !strings.HasPrefix(out, "K10") || len(password) != 32 || strings.Count(out, "\n") != 1 {
		t.Errorf("the output is not one token: %d bytes, %v", len(out), err)
	}
	for _, want := range []string{"cp-1, w-1", "bootstrap-before-recovery-", "opens nothing any more"} {
		if !strings.Contains(said, want) {
			t.Errorf("said %q, want %q in it", said, want)
		}
	}
	if strings.Contains(said, password.Reveal()) {
		t.Error("the token is told where logs may be made of it")
	}
	if _, err := bootstrapdata.Load(t.Context(), store, password); err != nil {
		t.Error(err)
	}
	if _, err := bootstrapdata.Load(t.Context(), store, "old"); !errors.Is(err, bootstrapdata.ErrOtherToken) {
		t.Errorf("the one before: %v", err)
	}
	if passwd, err := os.ReadFile(filepath.Join(server, "cred/passwd")); err != nil || !strings.Contains(string(passwd), password.Reveal()) {
		t.Errorf("the server's next start: %v", err)
	}
	if again, said, err := verb("--new-token", password.Reveal()); err != nil || again != out || !strings.Contains(said, "already") {
		t.Errorf("again: %q, %v", said, err)
	}
	if _, said, err := verb("--new-token", "third"); err != nil || !strings.Contains(said, "was not lost") {
		t.Errorf("a token that this disk has: %q, %v", said, err)
	}
	etcd.Stop()
	out, _, err = verbWithin(t, time.Second, "recover", "--etcd", etcd.Endpoint, "--data-dir", data)
	if err == nil || out != "" || !strings.Contains(err.Error(), "token-recover: true") {
		t.Errorf("without etcd: got %q, %v", out, err)
	}
}

// verbWithin runs `node token` with little patience.
func verbWithin(t *testing.T, limit time.Duration, args ...string) (string, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out, problems bytes.Buffer
	err := tokenVerb(ctx, args, time.Now(), &out, &problems)
	return out.String(), problems.String(), err
}
