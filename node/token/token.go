// Package token is the shared secrets of a cluster: the grammar of RKE2's tokens, the hash that pins a cluster's CA
// inside a token, generation, the password file of the supervisor and the hashes of node passwords.
//
// It never talks to the network and never prints a secret. Its input is the token of the settings and what a client
// sends; node/server, node/bootstrapdata and node/supervisorapi use what it makes. Formats: k3s
// pkg/clientaccess/token.go, pkg/passwd, pkg/authenticator/hash/scrypt.go.
package token

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"

	"keelson/node/config"
)

// Secret is text that formats as "redacted".
type Secret = config.Secret

// Users of the supervisor, and the roles that its password file gives them.
const (
	UserServer = "server"
	UserNode   = "node"
	RoleServer = "rke2:server"
	RoleAgent  = "rke2:agent"
)

const (
	marker     = "K10" // begins a token that may carry a CA hash
	hashLength = 64    // hex digits of SHA-256
)

// What Parse finds wrong.
var (
	ErrEmpty      = errors.New("token must not be empty")
	ErrHashLength = errors.New("invalid token CA hash length")
	ErrFormat     = errors.New("invalid token format")
)

// ErrBootstrap is why a server token cannot look like a bootstrap token: the two could not be told apart later
// (k3s issues 13004 and 13005).
var ErrBootstrap = errors.New("a server token cannot have the form of a bootstrap token (6 characters, a dot, 16 characters); choose another")

// Token is a token taken apart. Either Password or BootstrapID and BootstrapSecret are set.
type Token struct {
	CAHash          string // 64 hex digits, or empty: the CA is not pinned
	User            string // as written; callers decide the user by what they ask for
	Password        Secret
	BootstrapID     string
	BootstrapSecret Secret
}

// bootstrapForm is kubeadm's grammar of bootstrap tokens.
func bootstrapForm(s string) (id, secret string, ok bool) {
	m := regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`).FindStringSubmatch(s)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// Parse takes a token apart: K10<hash>::<user>:<password>, K10<hash>::<id>.<secret>, a bare password, or a bare
// bootstrap token. Errors never hold the token.
func Parse(s Secret) (Token, error) {
	text := s.Reveal()
	if text == "" {
		return Token{}, ErrEmpty
	}
	if !strings.HasPrefix(text, marker) {
		if id, secret, ok := bootstrapForm(text); ok {
			return Token{BootstrapID: id, BootstrapSecret: Secret(secret)}, nil
		}
		return Token{Password: s}, nil
	}
	var t Token
	rest := strings.TrimPrefix(text, marker)
	if hash, after, ok := strings.Cut(rest, "::"); ok {
		if len(hash) != 0 && len(hash) != hashLength {
			return Token{}, ErrHashLength
		}
		t.CAHash, rest = hash, after
	}
	if id, secret, ok := bootstrapForm(rest); ok {
		t.BootstrapID, t.BootstrapSecret = id, Secret(secret)
		return t, nil
	}
	user, password, ok := strings.Cut(rest, ":")
	if !ok || password == "" {
		return Token{}, ErrFormat
	}
	t.User, t.Password = user, Secret(password)
	return t, nil
}

// ServerPassword gives the password part of a server token in any of its forms: what the password file holds and
// what encrypts bootstrap data.
func ServerPassword(s Secret) (Secret, error) {
	t, err := Parse(s)
	if err != nil {
		return "", err
	}
	if t.BootstrapID != "" {
		return "", ErrBootstrap
	}
	// A full token may hide a bootstrap token as its password; written back as a bare one it would be misread.
	if _, _, ok := bootstrapForm(t.Password.Reveal()); ok {
		return "", ErrBootstrap
	}
	return t.Password, nil
}

// Format writes a full token that pins the CA of bundle, the server-ca.crt that /cacerts serves.
func Format(bundle []byte, user string, password Secret) (Secret, error) {
	hash, err := CAHash(bundle)
	if err != nil {
		return "", err
	}
	return Secret(marker + hash + "::" + user + ":" + password.Reveal()), nil
}

// Generate makes a new password of 128 random bits, as hex.
func Generate() Secret {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return Secret(hex.EncodeToString(b[:]))
}
