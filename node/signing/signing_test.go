package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/pki"
)

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	// All that a sender could wish for, and does not get.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}},
		DNSNames: []string{"kubernetes.default.svc"}, IPAddresses: []net.IP{net.IPv4(10, 43, 0, 1)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// cluster makes a server's certificates and a Signer with its authorities.
func cluster(t testing.TB) (Signer, pki.Params) {
	t.Helper()
	dir := t.TempDir()
	p := pki.Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "n1", ClusterDomain: "cluster.local",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}, Now: time.Now(),
	}
	if _, err := pki.EnsureCertificates(p); err != nil {
		t.Fatal(err)
	}
	return Signer{
		ServerDir: p.ServerDir, ServiceNetworks: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, ClusterDomain: "cluster.local",
		Now: func() time.Time { return p.Now },
	}, p
}

func parse(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatalf("no PEM in %q", chain)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSameAsTheServersOwn holds what is issued against the certificates that pki makes for the server's own node.
func TestSameAsTheServersOwn(t *testing.T) {
	s, p := cluster(t)
	for _, kind := range []pki.NodeCertificate{pki.ServingKubelet, pki.ClientKubelet, pki.ClientKubeProxy, pki.ClientController} {
		key := ecKey(t, elliptic.P256())
		chain, err := s.Sign(kind, "n1", p.Addresses, request(t, key))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		own, err := os.ReadFile(filepath.Join(p.AgentDir, string(kind)+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		got, want := parse(t, chain), parse(t, own)
		if got.Subject.String() != want.Subject.String() || got.KeyUsage != want.KeyUsage || !slices.Equal(got.ExtKeyUsage, want.ExtKeyUsage) ||
			!got.NotBefore.Equal(want.NotBefore) || !got.NotAfter.Equal(want.NotAfter) || !bytes.Equal(got.AuthorityKeyId, want.AuthorityKeyId) {
			t.Errorf("%s: got %v %v, want %v %v", kind, got.Subject, got.ExtKeyUsage, want.Subject, want.ExtKeyUsage)
		}
		if g, w := names(got), names(want); !slices.Equal(g, w) {
			t.Errorf("%s: names %v, want %v", kind, g, w)
		}
		if !key.PublicKey.Equal(got.PublicKey) {
			t.Errorf("%s: for another key", kind)
		}
		if _, rest := pem.Decode(chain); !bytes.HasSuffix(own, rest) || len(rest) == 0 {
			t.Errorf("%s: another chain", kind)
		}
	}
}

func names(c *x509.Certificate) []string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	slices.Sort(all)
	return all
}

func TestRefused(t *testing.T) {
	s, _ := cluster(t)
	good := request(t, ecKey(t, elliptic.P256()))
	for _, c := range []struct {
		name    string
		kind    pki.NodeCertificate
		node    string
		address string
		request []byte
		want    string
	}{
		{"no node", pki.ServingKubelet, "", "", good, "node name"},
		{"another's user name", pki.ClientKubelet, "n1,O=system:masters", "", good, "node name"},
		{"upper case", pki.ServingKubelet, "N1", "", good, "node name"},
		{"localhost", pki.ServingKubelet, "localhost", "", good, "every cluster"},
		{"kube-apiserver", pki.ServingKubelet, "kubernetes.default.svc", "", good, "every cluster"},
		{"a Service", pki.ServingKubelet, "db.prod.svc.cluster.local", "", good, "every cluster"},
		{"an address as name", pki.ServingKubelet, "10.43.0.1", "", good, "address"},
		{"a Service's address", pki.ServingKubelet, "n1", "10.43.0.1", good, "Services"},
		{"the same, mapped", pki.ServingKubelet, "n1", "::ffff:10.43.0.1", good, "Services"},
		{"loopback", pki.ServingKubelet, "n1", "127.0.0.2", good, "not an address"},
		{"every address", pki.ServingKubelet, "n1", "0.0.0.0", good, "not an address"},
		{"zone", pki.ServingKubelet, "n1", "fe80::1%eth0", good, "not an address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var addresses []netip.Addr
			if c.address != "" {
				addresses = append(addresses, netip.MustParseAddr(c.address))
			}
			_, err := s.Sign(c.kind, c.node, addresses, c.request)
			if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzSign(f *testing.F) {
	s, _ := cluster(f)
	f.Add(request(f, ecKey(f, elliptic.P256())), "n1", "10.0.0.5")
	f.Add([]byte{0x30, 0x80}, "kubernetes", "::1")
	f.Fuzz(func(t *testing.T, der []byte, node, address string) {
		a, err := netip.ParseAddr(address)
		if err != nil {
			return
		}
		chain, err := s.Sign(pki.ServingKubelet, node, []netip.Addr{a}, der)
		if err != nil {
			if !errors.Is(err, ErrRequest) && !errors.Is(err, pki.ErrRequest) {
				t.Errorf("neither granted nor refused: %v", err)
			}
			return
		}
		if c := parse(t, chain); c.IsCA || c.Subject.CommonName != node || len(c.Subject.Organization) > 0 || slices.Contains(c.DNSNames, "kubernetes.default.svc") {
			t.Errorf("issued %v for %v", c.Subject, c.DNSNames)
		}
	})
}
