package rotation

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/token"
)

// TestRotationOfARunningCluster: three servers, one is asked, all honour both tokens, then the new one alone; nobody
// restarts.
func TestRotationOfARunningCluster(t *testing.T) {
	client := etcd(t)
	a := newMachine(t, client, newClock(), passwd("old"))
	a.save(t, "old")
	b, c := a.copyOf(t, client), a.copyOf(t, client)
	ra, rb := a.boot(t), b.boot(t)
	run(t, ra)
	run(t, rb)
	stopC := run(t, c.boot(t))
	stopC() // is away
	next, err := ra.Rotate(t.Context(), "old", "next")
	if err != nil || next != "next" {
		t.Fatalf("got %q, %v", next.Reveal(), err)
	}
	if got := serverTokens(ra.Users()); !slices.Equal(got, []string{"next", "old"}) {
		t.Errorf("the server that was asked honours %q when it answers", got)
	}
	a.await(t, "next", "old")
	b.await(t, "next", "old")
	for name, m := range map[string]*machine{"a": a, "b": b} {
		if got := m.read(t, "cred/passwd"); got != passwd("next") {
			t.Errorf("%s: passwd is %q", name, got)
		}
		full, err := token.Format([]byte(m.read(t, "tls/server-ca.crt")), "server", "next")
		if err != nil {
			t.Fatal(err)
		}
		if m.read(t, "token") != full.Reveal()+"\n" || m.read(t, "node-token") != full.Reveal()+"\n" {
			t.Errorf("%s: token is %q", name, m.read(t, "token"))
		}
		if info, err := os.Stat(filepath.Join(m.dir, "cred/passwd-previous.json")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: previous: %v, %v", name, info, err)
		}
	}
	if until, ok := rb.Overlap(); !ok || !until.Equal(b.clock.Now().Add(time.Hour)) {
		t.Errorf("overlap until %v, %v", until, ok)
	}
	if rb.Passwords() != (token.Passwords{Server: "next", Agent: "next"}) {
		t.Error("b has other passwords")
	}

	// Servers that join meanwhile, with either token in their settings.
	for _, password := range []token.Secret{"old", "next"} {
		d := a.copyOf(t, client)
		d.write(t, "cred/passwd", passwd(password.Reveal()))
		if _, err := bootstrapdata.Sync(t.Context(), d.store, password, d.dir); err != nil {
			t.Errorf("joining with %s: %v", password.Reveal(), err)
		}
		run(t, d.boot(t))
		d.await(t, "next", "old")
		if got := d.read(t, "cred/passwd"); got != passwd("next") {
			t.Errorf("joined with %s: passwd is %q", password.Reveal(), got)
		}
	}
	// The one that was away.
	run(t, c.boot(t))
	c.await(t, "next", "old")

	a.clock.move(time.Hour)
	for _, m := range []*machine{a, b, c} {
		m.await(t, "next")
		if got := m.read(t, "cred/passwd-previous.json"); strings.Contains(got, `"old"`) {
			t.Errorf("the token before is still on disk: %s", got)
		}
	}
	settle(t, a)
	if _, ok := rb.Overlap(); ok {
		t.Error("the overlap lasts")
	}
	// Another rotation, to a generated token.
	next, err = rb.Rotate(t.Context(), "next", "")
	if err != nil || len(next) != 32 {
		t.Fatalf("generated: %d characters, %v", len(next), err)
	}
	a.await(t, next.Reveal(), "next")
}

// settle waits until one record alone is left.
func settle(t *testing.T, m *machine) {
	t.Helper()
	changes := m.store.Changes(t.Context(), bootstrapdata.RotationKey)
	for range changes {
		if keys := m.keys(t); len(keys) == 1 && keys[0] == bootstrapdata.Key("next") {
			return
		}
	}
	t.Fatal("the watch ended")
}

// TestPowerCuts ends the power after each step, on the server that is asked, and starts it again. Whatever the step,
// it starts with what is on its disk, honours both tokens, and one record is left in the end.
func TestPowerCuts(t *testing.T) {
	client := etcd(t)
	power := errors.New("power cut")
	for _, step := range []string{"committed", "previous", "passwd", "tokens", "forgotten"} {
		t.Run(step, func(t *testing.T) {
			wipe(t, client)
			m := newMachine(t, client, newClock(), passwd("old"))
			m.save(t, "old")
			r := m.boot(t)
			cuts := 0
			cut := func(at string) error {
				if at == step {
					cuts++
					return power
				}
				return nil
			}
			r.cut = cut
			_, err := r.Rotate(t.Context(), "old", "next")
			if step == "forgotten" {
				if err != nil {
					t.Fatal(err)
				}
				m.clock.move(time.Hour)
				_, err = r.follow(t.Context())
			}
			if !errors.Is(err, power) || cuts != 1 {
				t.Fatalf("got %v after %d cuts", err, cuts)
			}
			// What a start does first: the token of the disk must open the record.
			p, err := token.EnsurePasswd(m.dir, "old", "", true)
			if err != nil {
				t.Fatalf("settings with the old token: %v", err)
			}
			if _, err := bootstrapdata.Sync(t.Context(), m.store, p.Server, m.dir); err != nil {
				t.Fatalf("the token on disk does not open the record: %v", err)
			}
			r = m.boot(t)
			if got := serverTokens(r.Users()); step != "forgotten" && !slices.Contains(got, "old") {
				t.Errorf("on start it honours %q", got)
			}
			if _, err := r.Settle(t.Context(), "old"); err != nil {
				t.Fatal(err)
			}
			want := []string{"next", "old"}
			if step == "forgotten" {
				want = []string{"next"}
			}
			if got := serverTokens(r.Users()); !slices.Equal(got, want) {
				t.Errorf("it honours %q, want %q", got, want)
			}
			if got := m.read(t, "cred/passwd"); got != passwd("next") {
				t.Errorf("passwd is %q", got)
			}
			if got := m.read(t, "token"); !strings.HasSuffix(got, "::server:next\n") {
				t.Errorf("token is %q", got)
			}
			m.clock.move(time.Hour)
			run(t, r)
			settle(t, m)
		})
	}
}

// TestPowerCutOnAnotherServer: each cut while it follows.
func TestPowerCutOnAnotherServer(t *testing.T) {
	client := etcd(t)
	power := errors.New("power cut")
	for _, step := range []string{"previous", "passwd", "tokens"} {
		wipe(t, client)
		a := newMachine(t, client, newClock(), passwd("old"))
		a.save(t, "old")
		b := a.copyOf(t, client)
		if _, err := a.boot(t).Rotate(t.Context(), "old", "next"); err != nil {
			t.Fatal(err)
		}
		r := b.boot(t)
		r.cut = func(at string) error {
			if at == step {
				return power
			}
			return nil
		}
		if _, err := r.follow(t.Context()); !errors.Is(err, power) {
			t.Fatalf("%s: got %v", step, err)
		}
		r = b.boot(t)
		if _, err := r.Settle(t.Context(), ""); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if got := serverTokens(r.Users()); !slices.Equal(got, []string{"next", "old"}) || b.read(t, "cred/passwd") != passwd("next") {
			t.Errorf("%s: it honours %q", step, got)
		}
	}
}

// TestUsersThatAreNotTakenAreOfferedAgain: a Changed that fails once must not lose a token.
func TestUsersThatAreNotTakenAreOfferedAgain(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.save(t, "old")
	cfg := m.config()
	failures := 2
	cfg.Changed = func(users []token.User) error {
		if failures--; failures >= 0 {
			return errors.New("not now")
		}
		m.changed <- users
		return nil
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(t.Context(), "old", "next"); err == nil || !strings.Contains(err.Error(), "the token is rotated") {
		t.Fatalf("got %v", err)
	}
	if _, err := r.follow(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, err := r.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.await(t, "next", "old")
}

func TestAgentTokenStays(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), "agents,node,node,rke2:agent\nold,server,server,rke2:server\nx,extra,extra,g\n")
	m.save(t, "old")
	r := m.boot(t)
	for _, bad := range []token.Secret{"agents", "old"} {
		if _, err := r.Rotate(t.Context(), "old", bad); !errors.Is(err, ErrNewToken) {
			t.Errorf("to %s: got %v", bad.Reveal(), err)
		}
	}
	if _, err := r.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	if got := m.read(t, "cred/passwd"); got != "agents,node,node,rke2:agent\nnext,server,server,rke2:server\nx,extra,extra,g\n" {
		t.Errorf("passwd is %q", got)
	}
	if got := m.read(t, "agent-token"); !strings.HasSuffix(got, "::node:agents\n") {
		t.Errorf("agent-token is %q", got)
	}
	if r.Passwords() != (token.Passwords{Server: "next", Agent: "agents"}) {
		t.Error("other passwords")
	}
}

func TestWhoMayRotate(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.save(t, "old")
	r := m.boot(t)
	for _, shown := range []token.Secret{"", "guess", "next"} {
		if _, err := r.Rotate(t.Context(), shown, "next"); !errors.Is(err, ErrNotCurrent) {
			t.Errorf("with %q: got %v", shown.Reveal(), err)
		}
	}
	if _, err := r.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	// A client that lost the answer asks again.
	if got, err := r.Rotate(t.Context(), "old", "next"); err != nil || got != "next" {
		t.Errorf("again: %v", err)
	}
	// Who has the token before only must not change it, and a second rotation waits for the first.
	if _, err := r.Rotate(t.Context(), "old", "third"); !errors.Is(err, ErrNotCurrent) {
		t.Errorf("by the token before: got %v", err)
	}
	if _, err := r.Rotate(t.Context(), "next", "third"); !errors.Is(err, bootstrapdata.ErrRotating) {
		t.Errorf("a second one: got %v", err)
	}
	if got := m.read(t, "cred/passwd"); got != passwd("next") {
		t.Errorf("passwd is %q", got)
	}
}

func TestSettle(t *testing.T) {
	client := etcd(t)
	for _, c := range []struct {
		name     string
		away     bool // the server was away until the overlap was over
		during   bool // it comes back during the overlap
		settings token.Secret
		want     string
		err      error
	}{
		{"was there, no token in settings", false, false, "", "next", nil},
		{"was there, old settings", false, false, "old", "next", nil},
		{"was there, new settings", false, false, "K10::server:next", "next", nil},
		{"was there, strange settings", false, false, "strange", "", token.ErrTokenChanged},
		{"comes back during the overlap, no token", true, true, "", "next", nil},
		{"comes back during the overlap, old settings", true, true, "old", "next", nil},
		{"comes back during the overlap, new settings", true, true, "next", "next", nil},
		{"comes back during the overlap, strange settings", true, true, "strange", "", token.ErrTokenChanged},
		{"comes back late, new settings", true, false, "next", "next", nil},
		{"comes back late, strange settings", true, false, "strange", "", bootstrapdata.ErrOtherToken},
		{"broken settings", false, false, "K10", "", token.ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			wipe(t, client)
			a := newMachine(t, client, newClock(), passwd("old"))
			a.save(t, "old")
			b := a.copyOf(t, client)
			ra, rb := a.boot(t), b.boot(t)
			if _, err := ra.Rotate(t.Context(), "old", "next"); err != nil {
				t.Fatal(err)
			}
			if !c.away {
				if _, err := rb.follow(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if !c.during {
				a.clock.move(time.Hour)
				if _, err := ra.follow(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got, err := b.boot(t).Settle(t.Context(), c.settings)
			if !errors.Is(err, c.err) || got.Server.Reveal() != c.want {
				t.Fatalf("got %q, %v; want %q, %v", got.Server.Reveal(), err, c.want, c.err)
			}
			if c.err == nil && b.read(t, "cred/passwd") != passwd("next") {
				t.Errorf("passwd is %q", b.read(t, "cred/passwd"))
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	for name, change := range map[string]func(*Config){
		"no store":   func(c *Config) { c.Store = nil },
		"no changed": func(c *Config) { c.Changed = nil },
		"no log":     func(c *Config) { c.Log = nil },
		"no passwd":  func(c *Config) { c.ServerDir = t.TempDir() },
	} {
		cfg := m.config()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m.write(t, "cred/passwd-previous.json", "{")
	if _, err := New(m.config()); err == nil || !strings.Contains(err.Error(), "passwd-previous.json") {
		t.Errorf("a broken file: got %v", err)
	}
}

// TestForeignRotationIsTold: a server whose token is neither the one before nor the one after says so.
func TestForeignRotationIsTold(t *testing.T) {
	client := etcd(t)
	a := newMachine(t, client, newClock(), passwd("old"))
	a.save(t, "old")
	if _, err := a.boot(t).Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	b := a.copyOf(t, client)
	b.write(t, "cred/passwd", passwd("third"))
	if _, err := b.boot(t).follow(t.Context()); !errors.Is(err, bootstrapdata.ErrPassword) || !strings.Contains(err.Error(), "set the new token") {
		t.Errorf("got %v", err)
	}
}
