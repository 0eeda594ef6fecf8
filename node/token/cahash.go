package token

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// CAHash is the hash that a token pins. For one certificate it is the SHA-256 of the file as it is served (sha256sum
// gives the same); for a bundle it is that of the root's DER, so that it survives a new issuing CA under the same
// root (k3s pkg/clientaccess/token.go).
func CAHash(bundle []byte) (string, error) {
	certs, err := parseBundle(bundle)
	if err != nil {
		return "", err
	}
	if len(certs) > 1 {
		if root := chainRoot(certs); root != nil {
			return hexSum(root.Raw), nil
		}
	}
	return hexSum(bundle), nil
}

// chainRoot gives the end of the first chain of certs[0] within the bundle, nil where there is none.
func chainRoot(certs []*x509.Certificate) *x509.Certificate {
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range certs {
		if len(c.AuthorityKeyId) == 0 || string(c.AuthorityKeyId) == string(c.SubjectKeyId) {
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
