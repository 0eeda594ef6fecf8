package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func previous(t *testing.T, dir string, p Passwords) Previous {
	t.Helper()
	hash, err := Hash("before")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "cred"), 0o700); err != nil {
		t.Fatal(err)
	}
	prev := Previous{Passwords: p, Hash: hash, Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if err := SavePrevious(dir, prev); err != nil {
		t.Fatal(err)
	}
	return prev
}

func TestPreviousIsKept(t *testing.T) {
	dir := t.TempDir()
	if p, err := LoadPrevious(dir); err != nil || p != (Previous{}) || p.Users() != nil {
		t.Errorf("no file: got %v, %v", p, err)
	}
	want := previous(t, dir, Passwords{"before", "agents"})
	got, err := LoadPrevious(dir)
	if err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	if users := got.Users(); len(users) != 2 || users[0].Password != "agents" || users[1].Password != "before" || users[1].Roles[0] != RoleServer {
		t.Errorf("users: got %d", len(users))
	}
	if info, err := os.Stat(filepath.Join(dir, previousPath)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	over := previous(t, dir, Passwords{})
	data, err := os.ReadFile(filepath.Join(dir, previousPath))
	if err != nil || strings.Contains(string(data), "before") || over.Users() != nil {
		t.Errorf("after the overlap: the file is %q, %v", data, err)
	}
	if s := fmt.Sprintf("%v %+v %#v", want, want, want); strings.Contains(s, "before") {
		t.Errorf("printed: %s", s)
	}
}

// TestSettingsWithThePreviousToken start as they are; k3s refuses to start (issue 8264).
func TestSettingsWithThePreviousToken(t *testing.T) {
	dir := t.TempDir()
	if _, err := EnsurePasswd(dir, "now", "", false); err != nil {
		t.Fatal(err)
	}
	previous(t, dir, Passwords{}) // long after the overlap
	for _, c := range []struct {
		token Secret
		old   bool
		want  Passwords
		err   error
	}{
		{"before", true, Passwords{"now", "now"}, nil},
		{"K10::server:before", true, Passwords{"now", "now"}, nil},
		{"now", false, Passwords{"now", "now"}, nil},
		{"strange", false, Passwords{}, ErrTokenChanged},
	} {
		if old, err := IsPrevious(dir, c.token); err != nil || old != c.old {
			t.Errorf("%q: is the previous: %v, %v", c.token.Reveal(), old, err)
		}
		if got, err := EnsurePasswd(dir, c.token, "", true); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: got %q, %v", c.token.Reveal(), got.Server.Reveal(), err)
		}
	}
	if got, err := EnsurePasswd(dir, "before", "agents", true); err != nil || got != (Passwords{"now", "agents"}) {
		t.Errorf("with an agent token: got %q, %v", got.Agent.Reveal(), err)
	}
	if _, err := IsPrevious(dir, "K10"); !errors.Is(err, ErrFormat) {
		t.Errorf("a broken token: got %v", err)
	}
}

func TestBrokenPreviousFile(t *testing.T) {
	dir := t.TempDir()
	previous(t, dir, Passwords{"before", "before"})
	path := filepath.Join(dir, previousPath)
	for _, text := range []string{"", "{", "[]", "{}", `{"server":"before","hash":7}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPrevious(dir); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "before\"") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	if err := os.WriteFile(path, []byte(`{"hash":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := IsPrevious(dir, "x"); !errors.Is(err, ErrHash) {
		t.Errorf("a broken hash: got %v", err)
	}
}

func TestWithServer(t *testing.T) {
	other := User{"extra", "p", []string{"g"}}
	for _, c := range []struct {
		name  string
		users []User
		want  Passwords
	}{
		{"one token for all", []User{{"node", "s", nil}, {"server", "s", nil}, other}, Passwords{"new", "new"}},
		{"an agent token", []User{{"node", "a", []string{RoleAgent}}, {"server", "s", nil}, other}, Passwords{"new", "a"}},
		{"no rows", []User{other}, Passwords{"new", "new"}},
	} {
		before := fmt.Sprint(len(c.users), c.users[0].Password.Reveal())
		got := WithServer(c.users, "new")
		if PasswordsOf(got) != c.want {
			t.Errorf("%s: got %q/%q", c.name, PasswordsOf(got).Server.Reveal(), PasswordsOf(got).Agent.Reveal())
		}
		if u := find(got, "extra"); u == nil || u.Password != "p" {
			t.Errorf("%s: another row is gone", c.name)
		}
		if fmt.Sprint(len(c.users), c.users[0].Password.Reveal()) != before {
			t.Errorf("%s: the rows given were changed", c.name)
		}
	}
}

func FuzzParsePrevious(f *testing.F) {
	f.Add([]byte(`{"server":"a","agent":"b","hash":"$1:","expires":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePrevious(data)
		if err == nil && p.Hash == "" {
			t.Fatal("a record without a hash")
		}
	})
}
