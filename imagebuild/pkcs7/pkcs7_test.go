package pkcs7_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/imagebuild/internal/testkey"
	"keelson/imagebuild/pkcs7"
)

func contentType() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 3, 4} }

func content(t testing.TB) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		A string
		B int
	}{"what is signed", 7})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSignAndVerify(t *testing.T) {
	p := testkey.New(t, "signer")
	attached, err := pkcs7.SignAttached(p, contentType(), content(t))
	if err != nil {
		t.Fatal(err)
	}
	again, err := pkcs7.SignAttached(p, contentType(), content(t))
	if err != nil || !bytes.Equal(attached, again) {
		t.Errorf("two signatures of the same content differ: %v", err)
	}
	got, err := pkcs7.Verify(append(attached, 0, 0, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Signer.Equal(p.Certificate) || !got.ContentType.Equal(contentType()) || !bytes.Equal(got.Content, content(t)) {
		t.Errorf("Verify: got signer %s, type %v, %d bytes", got.Signer.Subject, got.ContentType, len(got.Content))
	}
	detached, err := pkcs7.SignDetached(p, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = pkcs7.Verify(detached, []byte("data")); err != nil || !got.Signer.Equal(p.Certificate) {
		t.Errorf("Verify detached: got %v", err)
	}
	if _, err = pkcs7.Verify(detached, []byte("dat4")); err == nil {
		t.Error("Verify detached with other data: got no error")
	}
	if _, err := pkcs7.SignAttached(p, contentType(), []byte("no DER")); err == nil {
		t.Error("SignAttached of what is no DER: got no error")
	}
}

// Every byte of a signature counts for something, but for those that only
// repeat what is known from elsewhere: a changed one must never verify with
// another signer or another content.
func TestVerifyChanged(t *testing.T) {
	p := testkey.New(t, "signer")
	signed, err := pkcs7.SignAttached(p, contentType(), content(t))
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for i := range signed {
		changed := bytes.Clone(signed)
		changed[i] ^= 1
		got, err := pkcs7.Verify(changed, nil)
		if err != nil {
			continue
		}
		passed++
		if !bytes.Equal(got.Content, content(t)) {
			t.Errorf("byte %d changed: another content verifies", i)
		}
		if !p.Key.PublicKey.Equal(got.Signer.PublicKey) {
			t.Errorf("byte %d changed: another key verifies", i)
		}
	}
	// Versions, parameters, and the certificate's own signature.
	if passed > 400 {
		t.Errorf("%d of %d bytes may be changed", passed, len(signed))
	}
}

// OpenSSL is the second opinion.
func TestOpenSSL(t *testing.T) {
	tool, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: openssl is absent")
	}
	p := testkey.New(t, "signer")
	signed, err := pkcs7.SignDetached(p, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	// OpenSSL wants the ContentInfo around it.
	wrapped, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, asn1.RawValue{Class: 2, IsCompound: true, Bytes: signed}})
	if err != nil {
		t.Fatal(err)
	}
	_, cert := testkey.Files(t, p)
	dir := t.TempDir()
	for name, b := range map[string][]byte{"sig": wrapped, "data": []byte("data")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(tool, "smime", "-verify", "-binary", "-inform", "DER", "-in", filepath.Join(dir, "sig"),
		"-content", filepath.Join(dir, "data"), "-CAfile", cert, "-purpose", "any", "-out", os.DevNull).CombinedOutput()
	if err != nil {
		t.Errorf("openssl smime: %v\n%s", err, out)
	}
}

func TestLoadPair(t *testing.T) {
	now := time.Now()
	good, other := testkey.New(t, "good"), testkey.New(t, "other")
	key, cert := testkey.Files(t, good)
	otherKey, _ := testkey.Files(t, other)
	p, err := pkcs7.LoadPair(key, cert, now)
	if err != nil || !p.Certificate.Equal(good.Certificate) || p.ID() == "" || (*pkcs7.Pair)(nil).ID() != "" {
		t.Fatalf("LoadPair: got %v", err)
	}
	dir := t.TempDir()
	pkcs1 := testkey.File(t, dir, "pkcs1", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(good.Key))
	if _, err := pkcs7.LoadPair(pkcs1, cert, now); err != nil {
		t.Errorf("LoadPair of a PKCS #1 key: got %v", err)
	}
	small := testkey.Make(t, "small", 1024, now.Add(-time.Hour), now.Add(time.Hour))
	smallKey, smallCert := testkey.Files(t, small)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, key, cert string
		now             time.Time
		want            string
	}{
		{"not a pair", otherKey, cert, now, "does not belong to certificate"},
		{"expired", key, cert, now.Add(48 * time.Hour), "expired on"},
		{"not yet valid", key, cert, now.Add(-48 * time.Hour), "not valid before"},
		{"key absent", filepath.Join(dir, "none"), cert, now, "read signing key"},
		{"certificate absent", key, filepath.Join(dir, "none"), now, "read signing certificate"},
		{"key is text", text, cert, now, "no PEM"},
		{"certificate is text", key, text, now, "neither PEM nor DER"},
		{"certificate is a key", key, key, now, "want a CERTIFICATE"},
		{"key is a certificate", cert, cert, now, "want an RSA PRIVATE KEY"},
		{"short key", smallKey, smallCert, now, "1024 bits"},
		{"elliptic curve", testkey.File(t, dir, "ec", "PRIVATE KEY", ecDER), cert, now, "RSA only"},
		{"encrypted", testkey.File(t, dir, "enc", "ENCRYPTED PRIVATE KEY", []byte{1}), cert, now, "encrypted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := pkcs7.LoadPair(c.key, c.cert, c.now); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestTrusts(t *testing.T) {
	a, b := testkey.New(t, "a"), testkey.New(t, "b")
	if !pkcs7.Trusts(a.Certificate, a.Certificate) || pkcs7.Trusts(a.Certificate, b.Certificate) {
		t.Error("Trusts: want the certificate itself and no other")
	}
}

func FuzzVerify(f *testing.F) {
	p := testkey.New(f, "signer")
	attached, err := pkcs7.SignAttached(p, contentType(), content(f))
	if err != nil {
		f.Fatal(err)
	}
	detached, err := pkcs7.SignDetached(p, []byte("data"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(attached)
	f.Add(detached)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := pkcs7.Verify(b, []byte("data")); err == nil && s.Signer == nil {
			t.Fatal("verified, and by nobody")
		}
	})
}
