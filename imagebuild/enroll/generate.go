package enroll

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"keelson/imagebuild/pkcs7"
)

// years that generated certificates are valid: firmware does not look, people do.
const years = 20

// Generate makes a folder with a key and a certificate that it signed itself
// for PK, KEK and db. Nothing that is there is overwritten.
func Generate(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	for _, v := range variables() {
		key, err := rsa.GenerateKey(rand.Reader, pkcs7.MinBits)
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		template := &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: "Keelson Secure Boot " + v.name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(years, 0, 0),
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		}
		certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("make keys: %w", err)
		}
		if err := create(filepath.Join(dir, v.name+".key"), 0o600, "PRIVATE KEY", der); err != nil {
			return err
		}
		if err := create(filepath.Join(dir, v.name+".crt"), 0o644, "CERTIFICATE", certificate); err != nil {
			return err
		}
	}
	return nil
}

func create(name string, mode os.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("make keys: %w: what is there is never overwritten, give another folder", err)
	}
	if err := pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
		f.Close()
		return fmt.Errorf("make keys: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	return nil
}
