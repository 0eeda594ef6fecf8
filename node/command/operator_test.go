package command

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/token"
	"keelson/node/trust"
)

// TestOperator: one rule for every verb. Off a server the token must name the authority; on one, its own files do.
func TestOperator(t *testing.T) {
	m := newTokenMachine(t)
	folder := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full, err := token.Format(m.ca, token.UserServer, "old")
	if err != nil {
		t.Fatal(err)
	}
	short, wrong := write("short", "old\n"), write("wrong", "other\n")
	for _, c := range []struct {
		name string
		ca   string // what the machine has as its authority; "-": none
		o    operator
		want string // of the error; empty: trusted
	}{
		{"its own token", "-", operator{dataDir: m.dir}, ""},
		{"a token that is given", "-", operator{dataDir: folder, token: full.Reveal()}, ""},
		{"a short token", "-", operator{dataDir: m.dir, tokenFile: short}, "begins with K10"},
		{"a short token that is given", "-", operator{dataDir: m.dir, token: "old"}, "begins with K10"},
		{"a short token, with the authority at hand", string(m.ca), operator{dataDir: m.dir, tokenFile: short}, ""},
		{"its own token, with the authority at hand", string(m.ca), operator{dataDir: m.dir}, ""},
		{"a wrong token, with the authority at hand", string(m.ca), operator{dataDir: m.dir, tokenFile: wrong}, "token"},
		{"no token", "-", operator{dataDir: folder}, "where this is no server, give one by --token-file"},
		{"an empty token", "-", operator{dataDir: folder, tokenFile: write("empty", "\n")}, "must not be empty"},
		{"an authority that is none", "junk", operator{dataDir: m.dir}, ""}, // the token names it
		{"an authority that is none, and a short token", "junk", operator{dataDir: m.dir, tokenFile: short}, "known authorities"},
		{"an authority that cannot be read", "/", operator{dataDir: m.dir}, "read server CA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(m.dir, "server", "tls", "server-ca.crt")
			if err := os.RemoveAll(filepath.Dir(file)); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			switch c.ca {
			case "-":
			case "/":
				err = os.Mkdir(file, 0o700)
			default:
				err = os.WriteFile(file, []byte(c.ca), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			var notes bytes.Buffer
			c.o.server, c.o.stderr = m.url, &notes
			access, err := c.o.access(t.Context())
			switch {
			case c.want == "" && (err != nil || access.Server != m.url || access.TrustedOnFirstUse):
				t.Errorf("got %v, %v", access, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case notes.Len() != 0:
				t.Errorf("said %q", notes.String())
			}
		})
	}
}

// TestEveryVerbTrustsAlike: what one verb refuses, all do, before anything is asked.
func TestEveryVerbTrustsAlike(t *testing.T) {
	m := newTokenMachine(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"token rotate", "token rotate --finish", "certificate rotate-ca", "secrets-encrypt status", "secrets-encrypt rotate-keys", "etcd-snapshot save", "etcd-snapshot list"} {
		var out, notes bytes.Buffer
		args := append(strings.Fields(verb)[1:], "--server", m.url, "--data-dir", m.dir, "--token-file", file)
		var err error
		switch strings.Fields(verb)[0] {
		case "token":
			err = tokenVerb(t.Context(), args, time.Now(), &out, &notes)
		case "certificate":
			err = certificates(t.Context(), args, time.Now(), &out, &notes)
		case "secrets-encrypt":
			err = secretsEncrypt(t.Context(), args, &out, &notes)
		case "etcd-snapshot":
			err = snapshots(t.Context(), args, &out, &notes)
		}
		if !errors.Is(err, trust.ErrHashRequired) {
			t.Errorf("%s with a short token: got %v, want %v", verb, err, trust.ErrHashRequired)
		}
		if out.Len() != 0 {
			t.Errorf("%s: wrote %q", verb, out.String())
		}
	}
	if m.password != "old" || m.finished != 0 {
		t.Error("something was done")
	}
}
