package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a new authority can be that must not take an old one's place.
var (
	ErrAlone    = errors.New("the new bundle holds one certificate; it needs the chain to the authority in force, so that what trusts that one trusts its certificates")
	ErrNotHeir  = errors.New("the new authority is not signed, directly or through its chain, by the one in force")
	ErrPair     = errors.New("key and certificate do not belong together")
	ErrKeysLost = errors.New("the key that signs service account tokens now is not among the new ones; put it behind them, or every token in the cluster is void")
)

// Succeed makes an authority that takes the place of the one of bundle and key: a new key, a certificate for it that
// the old one has signed, and the old bundle behind it. Who trusts the old authority trusts what the new one issues,
// and the reverse, so that the two can be changed one machine after the other.
func Succeed(bundle, key []byte, now time.Time) (newBundle, newKeyPEM []byte, err error) {
	certs, err := parseCerts(bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("succeed authority: %w", err)
	}
	old, err := parseKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("succeed authority: %w", err)
	}
	if !samePublic(certs[0].PublicKey, old.Public()) {
		return nil, nil, fmt.Errorf("succeed authority %s: %w", certs[0].Subject.CommonName, ErrPair)
	}
	signer, newKeyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	prefix, _, _ := strings.Cut(certs[0].Subject.CommonName, "-ca@")
	der, err := crossSign(now, prefix, signer.Public(), certs[0], old)
	if err != nil {
		return nil, nil, err
	}
	return slices.Concat(certPEM(der), bundle), newKeyPEM, nil
}

func crossSign(now time.Time, prefix string, public crypto.PublicKey, parent *x509.Certificate, parentKey crypto.Signer) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-ca@%d", prefix, now.Unix())
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             latest(now.Add(-backdate), parent.NotBefore).UTC(),
		NotAfter:              earliest(now.Add(caLife), parent.NotAfter).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id,
	}, parent, public, parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", name, err)
	}
	return der, nil
}

// CheckSuccessor tells whether an authority may take the place of old (k3s pkg/server/handlers/cert.go): key and
// certificate are a pair, the bundle brings its chain along, and the chain leads to the old authority.
func CheckSuccessor(old, bundle, key []byte, now time.Time) error {
	certs, err := checkPair(bundle, key)
	if err != nil {
		return err
	}
	before, err := parseCerts(old)
	if err != nil {
		return fmt.Errorf("authority in force: %w", err)
	}
	if certs[0].Equal(before[0]) {
		return nil
	}
	if len(certs) < 2 {
		return ErrAlone
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range before {
		roots.AddCert(c)
	}
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotHeir, err)
	}
	return nil
}

// CheckAuthority tells whether bundle and key are a usable authority, whatever came before.
func CheckAuthority(bundle, key []byte) error {
	_, err := checkPair(bundle, key)
	return err
}

func checkPair(bundle, key []byte) ([]*x509.Certificate, error) {
	certs, err := parseCerts(bundle)
	if err != nil {
		return nil, fmt.Errorf("new certificate: %w", err)
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	switch {
	case !samePublic(certs[0].PublicKey, signer.Public()):
		return nil, ErrPair
	case !certs[0].IsCA:
		return nil, errors.New("the first certificate of the new bundle is not a CA; put the issuing CA first")
	}
	return certs, nil
}

// SucceedServiceKey puts a new signing key before the old ones, which go on verifying.
func SucceedServiceKey(old []byte) ([]byte, error) {
	if _, err := parseKey(old); err != nil {
		return nil, fmt.Errorf("succeed service account key: %w", err)
	}
	key, err := newServiceKey()
	if err != nil {
		return nil, err
	}
	return slices.Concat(key, old), nil
}

// CheckServiceKeys tells whether next still verifies what the first key of old has signed.
func CheckServiceKeys(old, next []byte) error {
	first, err := parseKey(old)
	if err != nil {
		return fmt.Errorf("service account key in force: %w", err)
	}
	for rest := next; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return ErrKeysLost
		}
		key, err := parseKey(pem.EncodeToMemory(block))
		if err != nil {
			return fmt.Errorf("new service account keys: %w", err)
		}
		if samePublic(key.Public(), first.Public()) {
			return nil
		}
	}
}
