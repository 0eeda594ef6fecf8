package token

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEnsureFilesFollowsTheAgentToken there and back: the link must never be written through, or the agents' token
// would stand in the servers' file.
func TestEnsureFilesFollowsTheAgentToken(t *testing.T) {
	dir := t.TempDir()
	_, _, ca := issue(t, "root", nil, nil)
	hash, err := CAHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	server := "K10" + hash + "::server:s\n"
	for _, c := range []struct {
		name      string
		passwords Passwords
		agent     string
	}{
		{"one token", Passwords{"s", "s"}, server},
		{"an agent token", Passwords{"s", "a"}, "K10" + hash + "::node:a\n"},
		{"another agent token", Passwords{"s", "b"}, "K10" + hash + "::node:b\n"},
		{"one token again", Passwords{"s", "s"}, server},
	} {
		if err := EnsureFiles(dir, ca, c.passwords); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for name, want := range map[string]string{"token": server, "node-token": server, "agent-token": c.agent} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v; want %q", c.name, name, got, err, want)
			}
		}
	}
	for _, name := range []string{"token", "agent-token"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	if err := EnsureFiles(dir, []byte("no certificate"), Passwords{"s", "s"}); err == nil {
		t.Error("without a CA: no error")
	}
}

// TestPasswordFileOfStrangers: rows that nobody can log in with are told by their number, never by their text.
func TestPasswordFileOfStrangers(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []User
		problem    string
	}{
		{"empty", "", nil, ""},
		{"RKE2's", "hush,server,server,rke2:server\n", []User{{"server", "hush", []string{"rke2:server"}}}, ""},
		{"no groups", "hush,a,a\n", []User{{"a", "hush", nil}}, ""},
		{"empty groups", "hush,a,a,\n", []User{{"a", "hush", nil}}, ""},
		{"two groups", "hush,a,a,\"x,y\"\n", []User{{"a", "hush", []string{"x", "y"}}}, ""},
		{"more columns", "hush,a,a,x,y\n", []User{{"a", "hush", []string{"x"}}}, ""},
		{"quotes and commas", "\"hu,\"\"sh\",a,a,x\n", []User{{"a", `hu,"sh`, []string{"x"}}}, ""},
		{"blank lines", "\nhush,a,a,x\n\n", []User{{"a", "hush", []string{"x"}}}, ""},
		{"no password", "hush,a,a,x\n,b,b,x\n", nil, "row 2 is not password,user,user,groups"},
		{"no user", "hush,,,x\n", nil, "row 1 is not password,user,user,groups"},
		{"two columns", "hush,a\n", nil, "row 1 is not password,user,user,groups"},
		{"open quote", "\"hush,a,a\n", nil, "parse password file: "},
		{"quote inside", "hu\"sh,a,a\n", nil, "parse password file: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePasswd([]byte(c.text))
			if (err == nil) != (c.problem == "") || err != nil && (!strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), "hush")) {
				t.Fatalf("got %v, want %q", err, c.problem)
			}
			same := func(a, b User) bool {
				return a.Name == b.Name && a.Password == b.Password && slices.Equal(a.Roles, b.Roles)
			}
			if !slices.EqualFunc(got, c.want, same) {
				t.Errorf("got %d users, want %d", len(got), len(c.want))
			}
		})
	}
}

// TestEnsurePasswdLeavesTheFileOfARefusedToken alone: the next start with the right token must find it.
func TestEnsurePasswdLeavesTheFileOfARefusedToken(t *testing.T) {
	dir := t.TempDir()
	if _, err := EnsurePasswd(dir, "right", "agents", false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cred", "passwd")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		server, agent Secret
		want          error
	}{
		{"another token", "wrong", "agents", ErrTokenChanged},
		{"a broken token", "K10abc", "", ErrFormat},
		{"a token with a short hash", "K10abc::server:right", "", ErrHashLength},
		{"a bootstrap token", "abcdef.0123456789abcdef", "", ErrBootstrap},
		{"a bootstrap token for agents", "right", "abcdef.0123456789abcdef", ErrBootstrap},
		{"a broken token for agents", "right", "K10::node:", ErrFormat},
	} {
		_, err := EnsurePasswd(dir, c.server, c.agent, true)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s: the file was written", c.name)
		}
	}
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsurePasswd(dir, "right", "", true); err == nil || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("a broken file: got %v", err)
	}
}
