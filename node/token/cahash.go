package token

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// CAHash is the hash that a token pins. For one certificate it is the SHA-256 of the file as it is served (sha256sum
// gives the same); for a bundle it is that of the root's DER, so that it survives a new issuing CA under the same
// root (k3s pkg/clientaccess/token.go).
func CAHash(bundle []byte) (string, error) {
	hash, _, err := Pin(bundle)
	return hash, err
}

// Pin gives the hash of a bundle and the certificates, in PEM form, that the hash vouches for. For a chain these are
// the ones under the hashed root: whoever serves a bundle could add an authority of its own to somebody's true
// chain, and the hash would not change.
func Pin(bundle []byte) (hash string, vouched []byte, err error) {
	certs, err := parseBundle(bundle)
	if err != nil {
		return "", nil, err
	}
	if len(certs) > 1 {
		if root := chainRoot(certs); root != nil {
			return hexSum(root.Raw), under(root, certs), nil
		}
	}
	return hexSum(bundle), bundle, nil
}

// chainRoot gives the end of the first chain from certs[0] through the others, nil where there is none.
func chainRoot(certs []*x509.Certificate) *x509.Certificate {
	opts := verification(certs)
	for _, c := range certs[1:] {
		if len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId) {
			opts.Roots.AddCert(c)
		} else {
			opts.Intermediates.AddCert(c)
		}
	}
	chains, err := certs[0].Verify(opts)
	if err != nil || len(chains) == 0 {
		return nil
	}
	return chains[0][len(chains[0])-1]
}

// under gives those of certs that root, which is one of them, vouches for.
func under(root *x509.Certificate, certs []*x509.Certificate) []byte {
	opts := verification(certs)
	opts.Roots.AddCert(root)
	for _, c := range certs {
		opts.Intermediates.AddCert(c)
	}
	var out bytes.Buffer
	for _, c := range certs {
		if _, err := c.Verify(opts); err == nil {
			// A buffer takes all bytes.
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
	}
	return out.Bytes()
}

// verification is as of the moment when the last of certs had begun, so that the hash of a bundle is one and the same
// whatever this machine's clock says.
func verification(certs []*x509.Certificate) x509.VerifyOptions {
	var latest time.Time
	for _, c := range certs {
		if c.NotBefore.After(latest) {
			latest = c.NotBefore
		}
	}
	return x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: latest}
}

func parseBundle(bundle []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse CA bundle: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("parse CA bundle: it holds no certificate")
	}
	return certs, nil
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
