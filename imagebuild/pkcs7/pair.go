package pkcs7

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// MinBits is the least length of a key: what the Secure Boot database of
// every machine takes.
const MinBits = 2048

// Pair is a key with its certificate.
type Pair struct {
	Key         *rsa.PrivateKey
	Certificate *x509.Certificate
}

// LoadPair reads an RSA key (PKCS #8 or PKCS #1) and its certificate, both
// PEM, and checks that they belong together and that the certificate is valid
// at now.
func LoadPair(keyFile, certFile string, now time.Time) (*Pair, error) {
	keyText, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := ParseKey(keyText)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", keyFile, err)
	}
	certText, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read signing certificate: %w", err)
	}
	certificates, err := ParseCertificates(certText)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %s: %w", certFile, err)
	}
	c := certificates[0]
	switch {
	case !key.PublicKey.Equal(c.PublicKey):
		return nil, fmt.Errorf("signing key %s does not belong to certificate %s (%s): give the two of one pair", keyFile, certFile, c.Subject)
	case now.After(c.NotAfter):
		return nil, fmt.Errorf("signing certificate %s (%s) expired on %s: make a new one", certFile, c.Subject, c.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(c.NotBefore):
		return nil, fmt.Errorf("signing certificate %s (%s) is not valid before %s: check this machine's clock", certFile, c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return &Pair{key, c}, nil
}

// ParseKey reads a PEM RSA key.
func ParseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM: want an RSA key that begins with -----BEGIN PRIVATE KEY-----")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("it is encrypted: decrypt it first (openssl rsa)")
		}
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted: decrypt it first (openssl pkey)")
	default:
		return nil, fmt.Errorf("PEM of a %s: want an RSA PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T: firmware takes RSA only", parsed)
	}
	if key.N.BitLen() < MinBits {
		return nil, fmt.Errorf("RSA of %d bits: want at least %d", key.N.BitLen(), MinBits)
	}
	return key, nil
}

// ParseCertificates reads every PEM certificate of a text, or one in DER.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM of a %s: want a CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) > 0 {
		return out, nil
	}
	c, err := x509.ParseCertificate(text)
	if err != nil {
		return nil, errors.New("neither PEM nor DER of a certificate")
	}
	return []*x509.Certificate{c}, nil
}

// ID names a pair for a memo: what is signed with another pair is another
// thing. Without a pair it is empty.
func (p *Pair) ID() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(p.Certificate.Raw))
}

// Trusts says whether signer is trusted, or was issued by trusted: the two
// ways in which a certificate in db lets a program start.
func Trusts(trusted, signer *x509.Certificate) bool {
	return trusted.Equal(signer) || signer.CheckSignatureFrom(trusted) == nil
}
