package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBadAuthoritiesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *Params)
		want   string
	}{
		{"key missing", func(t *testing.T, p *Params) { remove(t, p.tls("server-ca.key")) }, "is missing"},
		{"another key", func(t *testing.T, p *Params) { copyFile(t, p.tls("client-ca.key"), p.tls("server-ca.key")) }, "key of another certificate"},
		{"no key", func(t *testing.T, p *Params) { write(t, p.tls("server-ca.key"), "x") }, "no private key"},
		{"no certificate", func(t *testing.T, p *Params) { write(t, p.tls("server-ca.crt"), "x") }, "no certificate"},
		{"a leaf", func(t *testing.T, p *Params) {
			copyFile(t, p.tls("client-admin.crt"), p.tls("client-ca.crt"))
			copyFile(t, p.tls("client-admin.key"), p.tls("client-ca.key"))
		}, "is not a CA"},
		{"clock before", func(t *testing.T, p *Params) { p.Now = p.Now.Add(-24 * time.Hour) }, "set the clock"},
		{"clock after", func(t *testing.T, p *Params) { p.Now = p.Now.Add(2 * caLife) }, "set the clock"},
		{"node without a name", func(t *testing.T, p *Params) { p.NodeName = "" }, "node name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := params(t)
			ensure(t, p)
			c.change(t, &p)
			before := tree(t, p)
			_, err := EnsureCertificates(p)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if !mapsEqual(before, tree(t, p)) {
				t.Error("files were changed all the same")
			}
		})
	}
}

// TestLostFilesOfAClusterAreNotMadeAnew: leaves come back by themselves, what the cluster stands on does not.
// TestOpenSSLAgrees checks chains and purposes with the reference tool.
// TestCustomAuthority brings an issuing CA with its root, made by openssl with an RSA key, before the first start.
func TestLostFilesOfAClusterAreNotMadeAnew(t *testing.T) {
	p := params(t)
	if _, err := Ensure(p); err != nil {
		t.Fatal(err)
	}
	p.ClusterExists = true
	remove(t, p.tls("client-admin.crt"))
	remove(t, p.tls("client-admin.key"))
	remove(t, p.tls("service.current.key"))
	if _, err := Ensure(p); err != nil {
		t.Errorf("leaf and copy of the service key: %v", err)
	}
	for _, lost := range [][]string{{"service.key"}, {"server-ca.crt", "server-ca.key"}, {"etcd/peer-ca.crt"}} {
		kept := map[string]string{}
		for _, name := range lost {
			kept[name] = readText(t, p.tls(name))
			remove(t, p.tls(name))
		}
		before := tree(t, p)
		if _, err := Ensure(p); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), p.tls(lost[0])) {
			t.Errorf("%v: got %v", lost, err)
		}
		if !mapsEqual(before, tree(t, p)) {
			t.Errorf("%v: files were written all the same", lost)
		}
		for name, text := range kept {
			write(t, p.tls(name), text)
		}
	}
}

func TestServiceKey(t *testing.T) {
	p := params(t)
	written, err := EnsureServiceKey(p.ServerDir)
	if err != nil || len(written) != 2 {
		t.Fatalf("wrote %v, %v", written, err)
	}
	first := readText(t, p.tls("service.key"))
	if !strings.HasPrefix(first, "-----BEGIN RSA PRIVATE KEY-----") || readText(t, p.tls("service.current.key")) != first {
		t.Error("keys are not one RSA key in PKCS#1")
	}
	// A second key behind the first verifies only: the current one stays the first.
	write(t, p.tls("service.key"), first+first)
	if written, err := EnsureServiceKey(p.ServerDir); err != nil || len(written) != 0 {
		t.Errorf("wrote %v, %v", written, err)
	}
	if readText(t, p.tls("service.current.key")) != first {
		t.Error("service.current.key is not the first key alone")
	}
	write(t, p.tls("service.key"), "x")
	if _, err := EnsureServiceKey(p.ServerDir); err == nil {
		t.Error("broken key: no error")
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	p := params(t)
	p.Now = time.Now()
	ensure(t, p)
	for _, c := range []struct{ ca, cert, purpose string }{
		{"client-ca", "client-admin", "sslclient"},
		{"request-header-ca", "client-auth-proxy", "sslclient"},
		{"server-ca", "serving-kube-apiserver", "sslserver"},
		{"etcd/server-ca", "etcd/server-client", "sslserver"},
		{"etcd/server-ca", "etcd/server-client", "sslclient"},
		{"etcd/peer-ca", "etcd/peer-server-client", "sslclient"},
	} {
		out, err := exec.Command("openssl", "verify", "-x509_strict", "-purpose", c.purpose, "-CAfile", p.tls(c.ca+".crt"), p.tls(c.cert+".crt")).CombinedOutput()
		if err != nil {
			t.Errorf("%s for %s: %s", c.cert, c.purpose, out)
		}
	}
	out, err := exec.Command("openssl", "verify", "-verify_hostname", "cp-1", "-verify_ip", "10.43.0.1", "-CAfile", p.tls("server-ca.crt"), p.tls("serving-kube-apiserver.crt")).CombinedOutput()
	if err != nil {
		t.Errorf("names: %s", out)
	}
}

func TestCustomAuthority(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	p := params(t)
	p.Now = time.Now()
	if err := os.MkdirAll(p.tls(), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %s", args, out)
		}
	}
	write(t, filepath.Join(dir, "ext"), "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
	run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.crt", "-subj", "/CN=root", "-days", "3650")
	run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.csr", "-subj", "/CN=issuing")
	run("x509", "-req", "-in", "ca.csr", "-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial", "-out", "ca.crt", "-days", "1000", "-extfile", "ext")
	bundle := readText(t, filepath.Join(dir, "ca.crt")) + readText(t, filepath.Join(dir, "root.crt"))
	write(t, p.tls("server-ca.crt"), bundle)
	write(t, p.tls("server-ca.key"), readText(t, filepath.Join(dir, "ca.key")))
	p.Now = time.Now()
	ensure(t, p)
	if got := readText(t, p.tls("server-ca.crt")); got != bundle {
		t.Error("the bundle was changed")
	}
	leaf := readText(t, p.tls("serving-kube-apiserver.crt"))
	if !strings.HasSuffix(leaf, bundle) {
		t.Error("the leaf does not bring the chain along")
	}
	if strings.Count(readText(t, p.tls("server-ca.nochain.crt")), "BEGIN CERTIFICATE") != 1 {
		t.Error("server-ca.nochain.crt is not one certificate")
	}
	out, err := exec.Command("openssl", "verify", "-CAfile", filepath.Join(dir, "root.crt"), "-untrusted", p.tls("serving-kube-apiserver.crt"), p.tls("serving-kube-apiserver.crt")).CombinedOutput()
	if err != nil {
		t.Errorf("chain: %s", out)
	}
}

// TestServingHandshake lets a client that trusts the server CA talk to a listener with the certificate, before and
// after it is due.
func TestServingHandshake(t *testing.T) {
	p := params(t)
	ensure(t, p)
	now := epoch
	s, err := NewServing(p, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(readText(t, p.tls("server-ca.crt"))))
	serial := func(name string) string {
		t.Helper()
		a, b := net.Pipe()
		defer a.Close()
		go func() {
			_ = tls.Server(b, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate() }}).Handshake()
		}()
		c := tls.Client(a, &tls.Config{RootCAs: pool, ServerName: name, Time: func() time.Time { return now }})
		if err := c.Handshake(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial("cp-1.example")
	for _, name := range []string{"localhost", "127.0.0.1", "10.0.2.15", "api.example", "10.43.0.1"} {
		if got := serial(name); got != first {
			t.Errorf("%s: another certificate", name)
		}
	}
	now = now.Add(250 * 24 * time.Hour)
	if got := serial("localhost"); got == first {
		t.Error("no new certificate when it was due")
	}
	p.ServerDir = t.TempDir()
	if _, err := NewServing(p, nil); err == nil {
		t.Error("without an authority: no error")
	}
}

func FuzzParseKey(f *testing.F) {
	_, pem, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem)
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := parseKey(data); err == nil && (key == nil || firstKeyPEM(data) == nil) {
			t.Fatal("no error and no key")
		}
		if certs, err := parseCerts(data); err == nil && (len(certs) == 0 || firstPEM(data) == nil) {
			t.Fatal("no error and no certificate")
		}
	})
}
