package token

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"
)

// Costs of the password hash (k3s pkg/authenticator/hash/scrypt.go). The text names them, so that they may grow.
const (
	hashLogN   = 15
	hashR      = 8
	hashP      = 1
	hashKeyLen = 64
	hashFormat = "$1:%x:%d:%d:%d:%s"
)

// ErrHash is a password hash that cannot be read.
var ErrHash = errors.New("password hash is not of the form $1:<salt>:<logN>:<r>:<p>:<key>")

// Hash hashes a password for keeping: $1:<salt hex>:<logN>:<r>:<p>:<key base64>.
func Hash(password Secret) (string, error) {
	salt := make([]byte, 8)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return hashWith(password, salt)
}

func hashWith(password Secret, salt []byte) (string, error) {
	key, err := scrypt.Key([]byte(password.Reveal()), salt, 1<<hashLogN, hashR, hashP, hashKeyLen)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return fmt.Sprintf(hashFormat, salt, hashLogN, hashR, hashP, base64.RawStdEncoding.EncodeToString(key)), nil
}

// Verify tells whether password is the one that hash was made of. Costs beyond ours are refused: they would let the
// writer of a hash choose how much memory a check takes.
func Verify(hash string, password Secret) (bool, error) {
	var salt []byte
	var logN, r, p int
	var text string
	if _, err := fmt.Sscanf(hash, "$1:%x:%d:%d:%d:%s", &salt, &logN, &r, &p, &text); err != nil {
		return false, ErrHash
	}
	want, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(want) != hashKeyLen || logN < 1 || logN > hashLogN || r < 1 || r > hashR || p < 1 || p > hashP {
		return false, ErrHash
	}
	got, err := scrypt.Key([]byte(password.Reveal()), salt, 1<<logN, r, p, hashKeyLen)
	if err != nil {
		return false, fmt.Errorf("hash password: %w", err)
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
