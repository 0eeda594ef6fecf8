package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const (
	caLife   = 3650 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// backdate is how far before its making a certificate begins, for machines whose clocks lag (k3s issue 2464).
	backdate = time.Hour
)

// authoritySpec is one certificate authority. Its file stands under <server>/tls, its common name is
// <prefix>-ca@<unix time>.
type authoritySpec struct{ file, prefix string }

func authoritySpecs() []authoritySpec {
	return []authoritySpec{
		{"client-ca", "rke2-client"},
		{"server-ca", "rke2-server"},
		{"request-header-ca", "rke2-request-header"},
		{"etcd/server-ca", "etcd-server"},
		{"etcd/peer-ca", "etcd-peer"},
	}
}

// authority can sign leaves. The bundle's first certificate issues; a custom authority may bring its chain along.
type authority struct {
	cert   *x509.Certificate
	key    crypto.Signer
	bundle []byte
}

// ensureAuthority reads an authority or makes it. A key without a certificate is what a power cut leaves of the
// first boot (the key is written first): the certificate is made for it. A certificate without its key, or with
// another's, is refused, because a new authority would cut the node off its own cluster.
func ensureAuthority(b *batch, p Params, spec authoritySpec) (*authority, error) {
	certPath, keyPath := p.tls(spec.file+".crt"), p.tls(spec.file+".key")
	keyPEM, err := readOptional(keyPath)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	bundle, err := readOptional(certPath)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	if bundle != nil && keyPEM == nil {
		return nil, fmt.Errorf("load authority %s: its key %s is missing; put it back, or remove the certificate of a cluster that is not in use yet", certPath, keyPath)
	}
	if bundle == nil && p.ClusterExists {
		return nil, fmt.Errorf("%s %w", certPath, ErrLost)
	}
	var key crypto.Signer
	if keyPEM == nil {
		if key, keyPEM, err = newKey(); err != nil {
			return nil, err
		}
	} else if key, err = parseKey(keyPEM); err != nil {
		return nil, fmt.Errorf("load authority key %s: %w", keyPath, err)
	}
	if bundle == nil {
		if bundle, err = selfSign(p.Now, spec.prefix, key); err != nil {
			return nil, err
		}
	}
	certs, err := parseCerts(bundle)
	if err != nil {
		return nil, fmt.Errorf("load authority %s: %w", certPath, err)
	}
	ca := &authority{cert: certs[0], key: key, bundle: bundle}
	if !samePublic(ca.cert.PublicKey, key.Public()) {
		return nil, fmt.Errorf("load authority %s: %s is the key of another certificate; put the right pair back", certPath, keyPath)
	}
	switch {
	case !ca.cert.IsCA:
		return nil, fmt.Errorf("load authority %s: its first certificate is not a CA; put the issuing CA first", certPath)
	case p.Now.Before(ca.cert.NotBefore):
		return nil, fmt.Errorf("load authority %s: it is valid from %s and the clock says %s; set the clock", certPath, ca.cert.NotBefore.Format(time.RFC3339), p.Now.UTC().Format(time.RFC3339))
	case p.Now.After(ca.cert.NotAfter):
		return nil, fmt.Errorf("load authority %s: it ended %s and the clock says %s; set the clock or bring a new authority", certPath, ca.cert.NotAfter.Format(time.RFC3339), p.Now.UTC().Format(time.RFC3339))
	}
	b.put(keyPath, keyPEM, 0o600)
	b.put(certPath, bundle, 0o644)
	return ca, nil
}

func selfSign(now time.Time, prefix string, key crypto.Signer) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-ca@%d", prefix, now.Unix())
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(caLife).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", name, err)
	}
	return certPEM(der), nil
}

// readOptional reads a file; nil where it does not exist.
func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
