package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// request makes a signing request that asks for more than it may have.
func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}}, DNSNames: []string{"kubernetes"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignGivesWhatTheKindSays(t *testing.T) {
	p := params(t)
	ensure(t, p)
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")}
	for _, c := range []struct {
		kind          NodeCertificate
		ca, cn, org   string
		usage         x509.ExtKeyUsage
		names, ipText string
	}{
		{ServingKubelet, "server-ca", "agent-1", "", x509.ExtKeyUsageServerAuth, "localhost agent-1", "127.0.0.1 ::1 10.0.0.9 fd00::9"},
		{ClientKubelet, "client-ca", "system:node:agent-1", "system:nodes", x509.ExtKeyUsageClientAuth, "", ""},
		{ClientKubeProxy, "client-ca", "system:kube-proxy", "", x509.ExtKeyUsageClientAuth, "", ""},
		{ClientController, "client-ca", "system:rke2-controller", "", x509.ExtKeyUsageClientAuth, "", ""},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			key := ecKey(t, elliptic.P256())
			chain, err := Sign(p.ServerDir, c.kind, "agent-1", addresses, request(t, key), p.Now)
			if err != nil {
				t.Fatal(err)
			}
			certs, err := parseCerts(chain)
			if err != nil || len(certs) != 2 {
				t.Fatalf("got %d certificates, %v, want leaf and authority", len(certs), err)
			}
			leaf := certs[0]
			if err := leaf.CheckSignatureFrom(readCert(t, p.tls(c.ca+".crt"))); err != nil {
				t.Error(err)
			}
			var ips []string
			for _, ip := range leaf.IPAddresses {
				ips = append(ips, ip.String())
			}
			if got := strings.Join(leaf.DNSNames, " "); got != c.names {
				t.Errorf("names: got %q, want %q", got, c.names)
			}
			if got := strings.Join(ips, " "); got != c.ipText {
				t.Errorf("addresses: got %q, want %q", got, c.ipText)
			}
			if leaf.Subject.CommonName != c.cn || strings.Join(leaf.Subject.Organization, " ") != c.org || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{c.usage}) {
				t.Errorf("got %v for %v", leaf.Subject, leaf.ExtKeyUsage)
			}
			if !samePublic(leaf.PublicKey, key.Public()) || leaf.IsCA {
				t.Error("it is not for the key of the request, or an authority")
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	p := params(t)
	ensure(t, p)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, ecKey(t, elliptic.P256()))
	forged := slices.Clone(good)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name    string
		kind    NodeCertificate
		request []byte
		want    string
	}{
		{"good", ClientKubelet, good, ""},
		{"ed25519", ClientKubelet, request(t, edKey), ""},
		{"P-521", ClientKubelet, request(t, ecKey(t, elliptic.P521())), ""},
		{"small RSA key", ClientKubelet, request(t, small), "1024 bits"},
		{"weak curve", ClientKubelet, request(t, ecKey(t, elliptic.P224())), "curve P-224"},
		{"forged", ClientKubelet, forged, "cannot be taken"},
		{"nothing", ClientKubelet, nil, "cannot be taken"},
		{"garbage", ClientKubelet, []byte("-----BEGIN CERTIFICATE REQUEST-----"), "cannot be taken"},
		{"no such kind", "client-admin", good, "there is none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Sign(p.ServerDir, c.kind, "agent-1", nil, c.request, p.Now)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && c.kind == ClientKubelet && !errors.Is(err, ErrRequest) {
				t.Errorf("%v is not told as the client's mistake", err)
			}
		})
	}
	if _, err := Sign(t.TempDir(), ClientKubelet, "agent-1", nil, good, p.Now); !errors.Is(err, ErrLost) {
		t.Errorf("without authorities: got %v", err)
	}
	if _, err := Sign(p.ServerDir, ClientKubelet, "agent-1", nil, good, p.Now.Add(20*365*24*time.Hour)); err == nil {
		t.Error("an authority that has ended signed")
	}
}

func FuzzSign(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("0\x82\x01\x00"))
	dir := f.TempDir()
	p := Params{ServerDir: dir + "/server", AgentDir: dir + "/agent", NodeName: "cp-1", ClusterDomain: "cluster.local", Now: time.Now()}
	if _, err := EnsureCertificates(p); err != nil {
		f.Fatal(err)
	}
	key, _, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	seed, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, request []byte) {
		chain, err := Sign(p.ServerDir, ClientKubelet, "agent-1", nil, request, p.Now)
		if err != nil {
			return
		}
		if certs, err := parseCerts(chain); err != nil || certs[0].Subject.CommonName != "system:node:agent-1" {
			t.Errorf("signed %v, %v", certs, err)
		}
	})
}
