// Package testkey makes keys and certificates for tests. It is imported by
// tests only.
package testkey

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keelson/imagebuild/pkcs7"
)

// New is a pair of a new key whose certificate it signed itself and which is
// valid for a day around now.
func New(t testing.TB, name string) *pkcs7.Pair {
	t.Helper()
	return Make(t, name, 2048, time.Now().Add(-12*time.Hour), time.Now().Add(12*time.Hour))
}

// Make is a pair with everything that New decides.
func Make(t testing.TB, name string, bits int, from, to time.Time) *pkcs7.Pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pkcs7.Pair{Key: key, Certificate: c}
}

// Files writes a pair as two PEM files.
func Files(t testing.TB, p *pkcs7.Pair) (key, cert string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return File(t, dir, "key.pem", "PRIVATE KEY", der), File(t, dir, "cert.pem", "CERTIFICATE", p.Certificate.Raw)
}

// File writes one PEM file and returns its path.
func File(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
