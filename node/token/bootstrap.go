package token

import (
	"crypto/rand"
	"fmt"
)

// Lengths of a bootstrap token's two parts (k8s.io/cluster-bootstrap token/api).
const (
	bootstrapIDLength     = 6
	bootstrapSecretLength = 16
)

// ParseBootstrap takes a bootstrap token apart: <id>.<secret>, with or without the K10 form around it.
func ParseBootstrap(s Secret) (id string, secret Secret, err error) {
	t, err := Parse(s)
	if err != nil {
		return "", "", err
	}
	if t.BootstrapID == "" {
		return "", "", fmt.Errorf("%w: a bootstrap token has 6 characters, a dot and 16 characters, of a-z and 0-9", ErrFormat)
	}
	return t.BootstrapID, t.BootstrapSecret, nil
}

// GenerateBootstrap makes a new bootstrap token.
func GenerateBootstrap() (id string, secret Secret) {
	return randomText(bootstrapIDLength), Secret(randomText(bootstrapSecretLength))
}

// FormatBootstrap writes a bootstrap token that pins the CA of bundle.
func FormatBootstrap(bundle []byte, id string, secret Secret) (Secret, error) {
	hash, err := CAHash(bundle)
	if err != nil {
		return "", err
	}
	return Secret(marker + hash + "::" + id + "." + secret.Reveal()), nil
}

// randomText makes n characters of a-z and 0-9, each as likely as another.
func randomText(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	const fair = 256 / len(alphabet) * len(alphabet) // bytes beyond would favour the first letters
	out := make([]byte, 0, n)
	var b [1]byte
	for len(out) < n {
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		if int(b[0]) < fair {
			out = append(out, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(out)
}
