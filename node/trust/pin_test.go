package trust_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/token"
	"keelson/node/trust"
)

func TestFirstUseIsRememberedAndBinding(t *testing.T) {
	root, s, c := cluster(t)
	c.Token = "secret"
	s.readyz = say(503, "starting")
	if _, err := trust.Validate(t.Context(), c); !errors.Is(err, trust.ErrNotReady) {
		t.Fatalf("starting: got %v", err)
	}
	if _, err := os.Stat(c.PinFile); err == nil {
		t.Error("an authority was remembered before the server had taken the token")
	}
	s.readyz = nil
	for _, name := range []string{"first", "again"} {
		got, err := trust.Validate(t.Context(), c)
		if err != nil || !got.TrustedOnFirstUse || !bytes.Equal(got.CA, root.pem()) {
			t.Fatalf("%s: got %v, %v", name, got, err)
		}
		data, err := os.ReadFile(c.PinFile)
		if err != nil || string(data) != hashOf(t, root.pem())+"\n" {
			t.Errorf("%s: remembered %q, %v", name, data, err)
		}
	}
	// Another cluster at the same address, with the same token.
	_, other, there := cluster(t)
	there.Token, there.PinFile = c.Token, c.PinFile
	_, err := trust.Validate(t.Context(), there)
	wantError(t, err, trust.ErrCAHash, hashOf(t, root.pem()), hashOf(t, other.bundle), c.PinFile, "trusted on first use")
	if len(other.seen) != 0 {
		t.Error("the token was sent to it")
	}
	// A whole token says better.
	there.Token = whole(t, other.bundle)
	if _, err := trust.Validate(t.Context(), there); err != nil {
		t.Errorf("a whole token: %v", err)
	}
	// The cluster told of its new authority.
	if err := trust.SavePin(c.PinFile, other.bundle); err != nil {
		t.Fatal(err)
	}
	there.Token = "secret"
	if _, err := trust.Validate(t.Context(), there); err != nil {
		t.Errorf("a new authority: %v", err)
	}
	if err := trust.SavePin(c.PinFile, []byte("none")); err == nil {
		t.Error("no certificate: no error")
	}
}

// TestChains: a new issuer under the same root is the same cluster; an authority that somebody adds beside is not.
func TestChains(t *testing.T) {
	var none *authority
	root := none.ca(t, "root")
	issuer := root.ca(t, "issuer")
	first := chainPEM(issuer, root)
	_, s, c := cluster(t)
	s.bundle = first
	c.Server = serve(t, s, issuer.leaf(t, nil))
	for name, tok := range map[string]token.Secret{"short": "secret", "whole": whole(t, first)} {
		t.Run(name, func(t *testing.T) {
			s.bundle = first
			c := c
			c.Token, c.PinFile = tok, filepath.Join(t.TempDir(), "pin")
			if got, err := trust.Validate(t.Context(), c); err != nil || !bytes.Equal(got.CA, first) || got.CAHash != hashOf(t, first) {
				t.Fatalf("got %v, %v", got, err)
			}
			next := root.ca(t, "next issuer")
			s.bundle = chainPEM(next, root)
			renewed := c
			renewed.Server = serve(t, s, next.leaf(t, nil))
			if _, err := trust.Validate(t.Context(), renewed); err != nil {
				t.Errorf("a new issuer: %v", err)
			}
			older := issuer.leaf(t, nil)
			older.Certificate = append(older.Certificate, issuer.cert.Raw)
			renewed.Server = serve(t, s, older)
			if _, err := trust.Validate(t.Context(), renewed); err != nil {
				t.Errorf("a leaf of the old issuer, sent with it: %v", err)
			}
			evil := none.ca(t, "evil")
			s.bundle, s.seen = chainPEM(issuer, root, evil), nil
			attacked := c
			attacked.Server = serve(t, s, evil.leaf(t, nil))
			_, err := trust.Validate(t.Context(), attacked)
			wantError(t, err, trust.ErrCertificate, "CN=evil")
			if len(s.seen) != 0 {
				t.Error("the token was sent to it")
			}
		})
	}
}

// TestOperatingSystemsTrustIsWorthNothing: RKE2 leaves the hash unchecked where the system trusts the certificate.
func TestOperatingSystemsTrustIsWorthNothing(t *testing.T) {
	var none *authority
	public := none.ca(t, "public")
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, public.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	_, s, c := cluster(t)
	c.Server = serve(t, s, public.leaf(t, nil))
	if conn, err := tls.Dial("tcp", strings.TrimPrefix(c.Server, "https://"), nil); err != nil {
		t.Skipf("the system's trust cannot be set in this process: %v", err)
	} else {
		_ = conn.Close()
	}
	_, err := trust.Validate(t.Context(), c)
	wantError(t, err, trust.ErrCertificate, "CN=public")
	s.bundle = public.pem()
	_, err = trust.Validate(t.Context(), c)
	wantError(t, err, trust.ErrCAHash, hashOf(t, public.pem()))
}

func TestBrokenPins(t *testing.T) {
	_, s, c := cluster(t)
	c.Token = "secret"
	for name, text := range map[string]string{
		"empty": "", "cut short": "0a0a\n", "no hex": strings.Repeat("x", 64) + "\n", "capitals": strings.Repeat("0A", 32) + "\n",
		"two lines": strings.Repeat("0a", 32) + "\n\n",
	} {
		if err := os.WriteFile(c.PinFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Validate(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.PinFile) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if len(s.seen) != 0 {
		t.Error("the token was sent")
	}
	c.PinFile = filepath.Join(t.TempDir(), "no", "such", "folder")
	s.readyz = func(w http.ResponseWriter, _ *http.Request) {}
	if _, err := trust.Validate(t.Context(), c); err == nil {
		t.Error("a folder that is not there: no error")
	}
	c.PinFile = t.TempDir()
	if _, err := trust.Validate(t.Context(), c); err == nil {
		t.Error("a folder in place of the file: no error")
	}
}

func TestVersions(t *testing.T) {
	for _, x := range []struct {
		cluster, own      string
		asAgent, asServer bool
	}{
		{"v1.37.2+keelson1", "v1.37.2+keelson1", true, true},
		{"v1.37.2+keelson1", "v1.37.9+rke2r1", true, true},
		{"v1.37.2+keelson1", "v1.36.4+rke2r1", true, true},
		{"v1.37.2", "v1.34.0", true, false},
		{"v1.37.2", "v1.33.9", false, false},
		{"v1.36.4+rke2r1", "v1.37.2+keelson1", false, true},
		{"v1.35.0", "v1.37.0", false, false},
		{"v2.0.0", "v1.37.0", false, false},
		{"1.37.2", "v1.37.2-rc.1+x", true, true},
		{"", "v1.37.2", false, false},
		{"v1.37.2", "latest", false, false},
		{"v1.37", "v1.37.2", false, false},
	} {
		for role, got := range map[string]error{"agent": trust.AgentVersion(x.cluster, x.own), "server": trust.ServerVersion(x.cluster, x.own)} {
			want := x.asAgent
			if role == "server" {
				want = x.asServer
			}
			if (got == nil) != want || got != nil && !errors.Is(got, trust.ErrVersion) {
				t.Errorf("%s of %q in %q: got %v", role, x.own, x.cluster, got)
			}
		}
	}
	err := trust.AgentVersion("v1.36.4+rke2r1", "v1.37.2+keelson1")
	for _, want := range []string{"v1.36.4+rke2r1", "v1.37.2+keelson1", "update the servers first"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
