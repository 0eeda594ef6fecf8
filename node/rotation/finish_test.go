package rotation

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keelson/node/token"
	"keelson/node/trust"
)

// TestFinish: three servers, one of them away. Nobody ends the overlap on it, and once it is back anybody with the new
// token does, hours before its time, on all servers at once.
func TestFinish(t *testing.T) {
	client := etcd(t)
	a := newMachine(t, client, newClock(), passwd("old"))
	a.save(t, "old")
	b, c := a.copyOf(t, client), a.copyOf(t, client)
	a.servers = []string{a.name(), b.name(), c.name()}
	ra := a.boot(t)
	run(t, ra)
	run(t, b.boot(t))
	if err := ra.Finish(t.Context(), "old"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("without a rotation: got %v", err)
	}
	if _, err := ra.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	b.await(t, "next", "old")
	for _, shown := range []token.Secret{"old", "guess", ""} {
		if err := ra.Finish(t.Context(), shown); !errors.Is(err, ErrNotCurrent) {
			t.Errorf("with %q: got %v", shown.Reveal(), err)
		}
	}
	err := ra.Finish(t.Context(), "next")
	if !errors.Is(err, ErrLagging) || !strings.Contains(err.Error(), c.name()) {
		t.Errorf("one is away: got %v, want it named", err)
	}
	if got := serverTokens(ra.Users()); !slices.Equal(got, []string{"next", "old"}) {
		t.Errorf("after a refusal it honours %q", got)
	}

	rc := c.boot(t)
	run(t, rc)
	c.await(t, "next", "old")
	for { // it tells a moment after it honours
		if err = ra.Finish(t.Context(), "next"); !errors.Is(err, ErrLagging) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := serverTokens(ra.Users()); !slices.Equal(got, []string{"next"}) {
		t.Errorf("the server that was asked honours %q when it answers", got)
	}
	for _, m := range []*machine{a, b, c} {
		m.await(t, "next")
		if got := m.read(t, "cred/passwd-previous.json"); strings.Contains(got, `"old"`) {
			t.Errorf("the token before is still on disk: %s", got)
		}
	}
	settle(t, a)
	if err := ra.Finish(t.Context(), "next"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("again: got %v", err)
	}
	// A start with settings that nobody has brought up to date is still one.
	if _, err := a.boot(t).Settle(t.Context(), "old"); err != nil {
		t.Errorf("settings with the token before: %v", err)
	}
	if _, err := ra.Rotate(t.Context(), "next", "third"); err != nil {
		t.Errorf("the next rotation: %v", err)
	}
}

// TestFinishCut: the power goes in the moment of the end; the next start knows of it.
func TestFinishCut(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.save(t, "old")
	m.servers = []string{m.name()}
	r := m.boot(t)
	if _, err := r.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	power := errors.New("power cut")
	r.cut = func(at string) error {
		if at == "finished" {
			return power
		}
		return nil
	}
	if err := r.Finish(t.Context(), "next"); !errors.Is(err, power) {
		t.Fatalf("got %v", err)
	}
	r = m.boot(t)
	if _, err := r.Settle(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	if got := serverTokens(r.Users()); !slices.Equal(got, []string{"next"}) {
		t.Errorf("it honours %q", got)
	}
	settle(t, m)
}

func TestFinishWithoutKnowingTheServers(t *testing.T) {
	m := newMachine(t, etcd(t), newClock(), passwd("old"))
	m.save(t, "old")
	cfg := m.config()
	unknown := errors.New("kube-apiserver does not answer")
	cfg.Servers = func(context.Context) ([]string, error) { return nil, unknown }
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(t.Context(), "old", "next"); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(t.Context(), "next"); !errors.Is(err, unknown) {
		t.Errorf("got %v", err)
	}
	if got := serverTokens(r.Users()); !slices.Equal(got, []string{"next", "old"}) {
		t.Errorf("it honours %q", got)
	}
	cfg.Servers = nil
	if _, err := New(cfg); err == nil {
		t.Error("taken without Servers")
	}
}

// TestAskFinish goes through two real supervisors: the token before is refused by both when the one that was asked has
// answered and the other has heard of it.
func TestAskFinish(t *testing.T) {
	cert, ca := authority(t)
	client := etcd(t)
	a := newMachine(t, client, newClock(), passwd("old"))
	a.write(t, "tls/server-ca.crt", string(ca))
	a.save(t, "old")
	b := a.copyOf(t, client)
	_, urlA := a.supervise(t, cert, ca)
	_, urlB := b.supervise(t, cert, ca)
	a.servers, b.servers = []string{a.name(), b.name()}, []string{a.name(), b.name(), "cp-gone"}
	access := func(url string, password token.Secret) (trust.Access, error) {
		full, err := token.Format(ca, token.UserServer, password)
		if err != nil {
			t.Fatal(err)
		}
		return trust.Validate(t.Context(), trust.Config{Server: url, Token: full, User: token.UserServer, Log: slog.New(slog.DiscardHandler)})
	}
	old, err := access(urlA, "old")
	if err != nil {
		t.Fatal(err)
	}
	if err := Ask(t.Context(), old, "next"); err != nil {
		t.Fatal(err)
	}
	b.await(t, "next", "old")
	if err := AskFinish(t.Context(), old); err == nil || !strings.Contains(err.Error(), ErrNotCurrent.Error()) {
		t.Errorf("with the token before: got %v", err)
	}
	byB, err := access(urlB, "next")
	if err != nil {
		t.Fatal(err)
	}
	if err := AskFinish(t.Context(), byB); err == nil || !strings.Contains(err.Error(), "cp-gone") || !strings.Contains(err.Error(), http.StatusText(http.StatusBadRequest)) {
		t.Errorf("with a server that is gone: got %v", err)
	}
	byA, err := access(urlA, "next")
	if err != nil {
		t.Fatal(err)
	}
	for err = ErrLagging; err != nil && strings.Contains(err.Error(), ErrLagging.Error()); {
		err = AskFinish(t.Context(), byA)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.await(t, "next")
	for _, url := range []string{urlA, urlB} {
		if _, err := access(url, "old"); !errors.Is(err, trust.ErrWrongToken) {
			t.Errorf("the token before: got %v", err)
		}
		if _, err := access(url, "next"); err != nil {
			t.Errorf("the new one: got %v", err)
		}
	}
}
