package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/pki"
	"keelson/node/token"
)

func now() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC) }

// site is a cluster of one server, whose token is "old", and what is asked of it.
type site struct {
	store *storetest.Memory
	dir   string
	Params
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{store: &storetest.Memory{}, dir: filepath.Join(t.TempDir(), "server")}
	p := pki.Params{ServerDir: s.dir, AgentDir: s.dir + "/../agent", NodeName: "cp-1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ClusterDomain: "cluster.local", Now: time.Now()}
	if _, err := pki.Ensure(p); err != nil {
		t.Fatal(err)
	}
	passwords, err := token.EnsurePasswd(s.dir, "old", "", false)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "cred/encryption-config.json", "{}")
	if err := token.EnsureFiles(s.dir, []byte(s.read(t, "tls/server-ca.crt")), passwords); err != nil {
		t.Fatal(err)
	}
	if _, err := bootstrapdata.Sync(t.Context(), s.store, "old", s.dir); err != nil {
		t.Fatal(err)
	}
	s.Params = Params{Store: s.store, ServerDir: s.dir, Next: "next", Overlap: time.Hour, Now: now()}
	return s
}

func (s *site) read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (s *site) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, path), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(filepath.Join(s.dir, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// lose makes the disk one that does not know the token.
func (s *site) lose(t *testing.T) { s.remove(t, "cred/passwd", "token", "node-token", "agent-token") }

func (s *site) opens(t *testing.T, password token.Secret, want bool) {
	t.Helper()
	if _, err := bootstrapdata.Load(t.Context(), s.store, password); (err == nil) != want {
		t.Errorf("%s opens the record: %v, want %v", password.Reveal(), err, want)
	}
}

func (s *site) kept(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "db/bootstrap-before-recovery-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const bothNext = "next,node,node,rke2:agent\nnext,server,server,rke2:server\n"

func TestRecoversALostToken(t *testing.T) {
	s := newSite(t)
	all, err := s.store.List(t.Context(), bootstrapdata.Prefix)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	s.lose(t)
	result, err := Run(t.Context(), s.Params)
	if err != nil || result.Outcome != Recovered {
		t.Fatalf("got %v, %v", result, err)
	}
	s.opens(t, "old", false)
	s.opens(t, "next", true)
	if got := s.read(t, "cred/passwd"); got != bothNext {
		t.Errorf("passwd is %q", got)
	}
	want, err := token.Format([]byte(s.read(t, "tls/server-ca.crt")), token.UserServer, "next")
	if err != nil || s.read(t, "token") != want.Reveal()+"\n" {
		t.Errorf("token is %q, %v", s.read(t, "token"), err)
	}
	info, err := os.Stat(result.Kept)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("kept: %v, %v", info, err)
	}
	var kept []bootstrapdata.Record
	text, err := os.ReadFile(result.Kept)
	if err != nil || json.Unmarshal(text, &kept) != nil || len(kept) != 2 || kept[0] != all[0] || kept[1].Key != bootstrapdata.SealKey {
		t.Errorf("kept %s, %v", text, err)
	}
	if plain, err := bootstrapdata.Decrypt("old", kept[0].Value); err != nil || !strings.Contains(string(plain), "ServerCAKey") {
		t.Errorf("who finds the token after all cannot open what was kept: %v", err)
	}
	if written, err := bootstrapdata.Sync(t.Context(), s.store, "next", s.dir); err != nil || len(written) != 0 {
		t.Errorf("the next start: %v, %v", written, err)
	}
	if result, err := Run(t.Context(), s.Params); err != nil || result.Outcome != Present || len(s.kept(t)) != 1 {
		t.Errorf("again: %v, %v", result, err)
	}
}

// TestRotatesWhatWasNotLost: whatever of the disk still has the token.
func TestRotatesWhatWasNotLost(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(*testing.T, *site)
	}{
		{"the password file", func(t *testing.T, s *site) { s.remove(t, "token", "node-token", "agent-token") }},
		{"the token that people copy", func(t *testing.T, s *site) { s.remove(t, "cred/passwd") }},
		{"the token before a rotation", func(t *testing.T, s *site) {
			if err := token.SavePrevious(s.dir, token.Previous{Passwords: token.Passwords{Server: "old", Agent: "old"}, Hash: "x", Expires: now()}); err != nil {
				t.Fatal(err)
			}
			s.lose(t)
		}},
		{"a password file that is another's, and the token", func(t *testing.T, s *site) { s.write(t, "cred/passwd", strings.ReplaceAll(bothNext, "next", "wrong")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			c.lose(t, s)
			result, err := Run(t.Context(), s.Params)
			if err != nil || result.Outcome != Rotated || len(s.kept(t)) != 0 {
				t.Fatalf("got %v, %v", result, err)
			}
			s.opens(t, "next", true)
			s.opens(t, "old", true) // it is honoured for a while
			if r, ok, err := bootstrapdata.Rotating(t.Context(), s.store); err != nil || !ok || !r.Expires.Equal(now().Add(time.Hour)) {
				t.Errorf("got %v, %v, %v", r, ok, err)
			}
			if got := s.read(t, "cred/passwd"); got != bothNext {
				t.Errorf("passwd is %q", got)
			}
		})
	}
}

// cutOff is a store whose next commit is done, and nobody is told.
type cutOff struct{ *storetest.Memory }

var errPower = errors.New("power cut")

func (c cutOff) Commit(ctx context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	if _, err := c.Memory.Commit(ctx, expect, put, remove); err != nil {
		return false, err
	}
	return false, errPower
}

// TestCutRecovery: what was done in etcd stands, its records are kept, and doing it again finishes it. A token that was
// made and never seen opens the way to the next one.
func TestCutRecovery(t *testing.T) {
	for name, c := range map[string]struct {
		next token.Secret
		want Outcome
	}{"with the same token": {"next", Present}, "with another": {"third", Rotated}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.lose(t)
			s.Store = cutOff{s.store}
			if _, err := Run(t.Context(), s.Params); !errors.Is(err, errPower) || len(s.kept(t)) != 1 {
				t.Fatalf("got %v, kept %v", err, s.kept(t))
			}
			s.Store, s.Next = s.store, c.next
			if result, err := Run(t.Context(), s.Params); err != nil || result.Outcome != c.want {
				t.Errorf("got %v, %v", result, err)
			}
			s.opens(t, c.next, true)
			if got := s.read(t, "cred/passwd"); got != strings.ReplaceAll(bothNext, "next", c.next.Reveal()) {
				t.Errorf("passwd is %q", got)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *site)
		want  error
		words string
	}{
		{"an authority without its key", func(t *testing.T, s *site) { s.remove(t, "tls/client-ca.key") }, nil, "ClientCA"},
		{"an authority with another's key", func(t *testing.T, s *site) { s.write(t, "tls/client-ca.key", s.read(t, "tls/server-ca.key")) }, nil, "ClientCA"},
		{"no service account key", func(t *testing.T, s *site) { s.remove(t, "tls/service.key") }, nil, "service account key"},
		{"the authorities of another cluster", func(t *testing.T, s *site) {
			other := newSite(t)
			if err := os.RemoveAll(filepath.Join(s.dir, "tls")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(other.dir, "tls"), filepath.Join(s.dir, "tls")); err != nil {
				t.Fatal(err)
			}
		}, bootstrapdata.ErrNoProof, "another one's"},
		{"another encryption key", func(t *testing.T, s *site) { s.write(t, "cred/encryption-config.json", "older") }, bootstrapdata.ErrNoProof, "encryption-config"},
		{"no seal", func(t *testing.T, s *site) {
			if _, err := s.store.Commit(t.Context(), nil, nil, []string{bootstrapdata.SealKey}); err != nil {
				t.Fatal(err)
			}
		}, bootstrapdata.ErrUnsealed, "--unsealed"},
		{"etcd is away", func(_ *testing.T, s *site) { s.store.Err = errPower }, errPower, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.lose(t)
			c.spoil(t, s)
			if result, err := Run(t.Context(), s.Params); err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, %v; want %v with %q", result, err, c.want, c.words)
			}
			s.store.Err = nil
			s.opens(t, "old", true)
			s.opens(t, "next", false)
			if _, err := os.Stat(filepath.Join(s.dir, "cred/passwd")); !errors.Is(err, os.ErrNotExist) || len(s.kept(t)) != 0 {
				t.Errorf("files were written: %v, %v", err, s.kept(t))
			}
		})
	}
	s := newSite(t)
	s.write(t, "cred/passwd", "broken\n")
	if _, err := Run(t.Context(), s.Params); err == nil || !strings.Contains(err.Error(), "move") {
		t.Errorf("a broken password file: got %v", err)
	}
	s = newSite(t)
	s.Store = &storetest.Memory{}
	if _, err := Run(t.Context(), s.Params); !errors.Is(err, bootstrapdata.ErrNone) {
		t.Errorf("no record: got %v", err)
	}
}

// TestAgentTokenStays, or is that of the settings.
func TestAgentTokenStays(t *testing.T) {
	for name, c := range map[string]struct {
		passwd string
		agent  token.Secret
		want   string
	}{
		"in the file":     {"agents,node,node,rke2:agent\nwrong,server,server,rke2:server\n", "", "agents,node,node,rke2:agent\nnext,server,server,rke2:server\n"},
		"in the settings": {"", "agents", "agents,node,node,rke2:agent\nnext,server,server,rke2:server\n"},
	} {
		s := newSite(t)
		s.lose(t)
		if c.passwd != "" {
			s.write(t, "cred/passwd", c.passwd)
		}
		s.Agent = c.agent
		if result, err := Run(t.Context(), s.Params); err != nil || result.Outcome != Recovered || s.read(t, "cred/passwd") != c.want {
			t.Errorf("%s: %v, %v: %q", name, result, err, s.read(t, "cred/passwd"))
		}
		record, err := bootstrapdata.Load(t.Context(), s.store, "next")
		if err != nil || string(record["PasswdFile"].Content) != c.want {
			t.Errorf("%s: the record has %q, %v", name, record["PasswdFile"].Content, err)
		}
	}
}

// TestStoreOnly leaves the disk's tokens, for data that is not the disk's yet.
func TestStoreOnly(t *testing.T) {
	s := newSite(t)
	s.write(t, "cred/passwd", strings.ReplaceAll(bothNext, "next", "wrong"))
	s.remove(t, "token")
	s.StoreOnly = true
	if result, err := Run(t.Context(), s.Params); err != nil || result.Outcome != Recovered {
		t.Fatalf("got %v, %v", result, err)
	}
	if got := s.read(t, "cred/passwd"); !strings.Contains(got, "wrong") {
		t.Errorf("passwd is %q", got)
	}
	s.opens(t, "next", true)
}
