package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"keelson/node/file"
)

// EnsureServiceKey makes the key that signs service account tokens: <server>/tls/service.key (RSA, PKCS#1; it may
// hold several keys, of which the first signs and all verify) and service.current.key with the first alone. It
// returns the files that it wrote.
func EnsureServiceKey(serverDir string) ([]string, error) {
	p := Params{ServerDir: serverDir}
	if err := os.MkdirAll(p.tls(), 0o700); err != nil {
		return nil, fmt.Errorf("ensure service account key: %w", err)
	}
	path := p.tls("service.key")
	data, err := readOptional(path)
	if err != nil {
		return nil, fmt.Errorf("ensure service account key: %w", err)
	}
	if data == nil {
		if data, err = newServiceKey(); err != nil {
			return nil, err
		}
	}
	if _, err := parseKey(data); err != nil {
		return nil, fmt.Errorf("load service account key %s: %w; put it back, or remove it to invalidate all service account tokens", path, err)
	}
	var b batch
	b.put(path, data, 0o600)
	b.put(p.tls("service.current.key"), firstKeyPEM(data), 0o600)
	if err := file.WriteAll(b.changed); err != nil {
		return nil, fmt.Errorf("ensure service account key: %w", err)
	}
	var written []string
	for _, f := range b.changed {
		written = append(written, f.Path)
	}
	return written, nil
}

func newServiceKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
}

// firstKeyPEM gives the first private key of a file that parseKey has read.
func firstKeyPEM(data []byte) []byte {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil
		}
		switch block.Type {
		case "EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY":
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		}
		data = rest
	}
}
