package rotation

import (
	"errors"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/token"
)

// recovered has m's disk give the cluster the token "next" without the one before.
func recovered(t *testing.T, m *machine) {
	t.Helper()
	_, err := bootstrapdata.Recover(t.Context(), m.store, bootstrapdata.Recovery{
		ServerDir: m.dir, Next: "next", Users: token.WithServer(nil, "next"), Keep: func([]bootstrapdata.Record) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// withKey is a server whose disk has the authority's key, with the cluster's record saved.
func withKey(t *testing.T, a *machine) *machine {
	t.Helper()
	a.write(t, "tls/server-ca.key", "the authority's key")
	a.save(t, "old")
	return a
}

// TestServersTakeARecoveredTokenOver: one that runs, one whose power is cut meanwhile, one that was away.
func TestServersTakeARecoveredTokenOver(t *testing.T) {
	client := etcd(t)
	a := withKey(t, newMachine(t, client, newClock(), passwd("old")))
	running, cut, away := a.copyOf(t, client), a.copyOf(t, client), a.copyOf(t, client)
	for _, m := range []*machine{running, cut, away} {
		m.write(t, "tls/server-ca.key", "the authority's key")
	}
	run(t, running.boot(t))
	recovered(t, a)
	running.await(t, "next") // the one before, which was lost to nobody knows whom, is honoured no more
	if got := running.read(t, "token"); !strings.HasSuffix(got, "::server:next\n") {
		t.Errorf("the token that people copy is %q", got)
	}
	errPower := errors.New("power cut")
	for _, step := range []string{"previous", "passwd"} {
		r := cut.boot(t)
		r.cut = func(at string) error {
			if at == step {
				return errPower
			}
			return nil
		}
		if err := r.Follow(t.Context()); !errors.Is(err, errPower) {
			t.Fatalf("%s: got %v", step, err)
		}
	}
	for name, m := range map[string]*machine{"cut off": cut, "away": away} {
		for _, settings := range []token.Secret{"", "next"} {
			got, err := m.boot(t).Settle(t.Context(), settings)
			if err != nil || got.Server != "next" || m.read(t, "cred/passwd") != passwd("next") {
				t.Errorf("%s, settings %q: got %q, %v", name, settings.Reveal(), got.Server.Reveal(), err)
			}
		}
	}
	if got, err := running.boot(t).Settle(t.Context(), "old"); err != nil || got.Server != "next" {
		t.Errorf("settings with the token before: got %q, %v", got.Server.Reveal(), err)
	}
	if _, err := running.boot(t).Settle(t.Context(), "strange"); !errors.Is(err, token.ErrTokenChanged) {
		t.Errorf("strange settings: got %v", err)
	}
	// The next rotation finds everybody in line.
	if _, err := running.boot(t).Rotate(t.Context(), "next", "third"); err != nil {
		t.Fatal(err)
	}
	if err := away.boot(t).Follow(t.Context()); err != nil || away.read(t, "cred/passwd") != passwd("third") {
		t.Errorf("after the next rotation: %q, %v", away.read(t, "cred/passwd"), err)
	}
}

// TestRecoveryOfAnotherAuthority is not taken over, and the settings may have its token.
func TestRecoveryOfAnotherAuthority(t *testing.T) {
	client := etcd(t)
	a := withKey(t, newMachine(t, client, newClock(), passwd("old")))
	recovered(t, a)
	b := a.copyOf(t, client)
	b.write(t, "tls/server-ca.key", "another key")
	b.write(t, "cred/passwd", passwd("old"))
	if err := b.boot(t).Follow(t.Context()); !errors.Is(err, bootstrapdata.ErrRecovery) {
		t.Errorf("got %v", err)
	}
	if _, err := b.boot(t).Settle(t.Context(), ""); !errors.Is(err, bootstrapdata.ErrRecovery) {
		t.Errorf("no token in the settings: got %v", err)
	}
	if _, err := b.boot(t).Settle(t.Context(), "guess"); !errors.Is(err, bootstrapdata.ErrOtherToken) || !strings.Contains(err.Error(), "node token recover") {
		t.Errorf("a wrong one: got %v", err)
	}
	if b.read(t, "cred/passwd") != passwd("old") {
		t.Errorf("passwd is %q", b.read(t, "cred/passwd"))
	}
	if got, err := b.boot(t).Settle(t.Context(), "next"); err != nil || got.Server != "next" {
		t.Errorf("the new one: got %q, %v", got.Server.Reveal(), err)
	}
}
