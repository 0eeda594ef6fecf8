package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

// TestDueAt: two thirds of the life, or 120 days before the end, whichever comes first.
func TestDueAt(t *testing.T) {
	for _, c := range []struct {
		name string
		life time.Duration
		want time.Duration // after the beginning
	}{
		{"a year", 365 * day, 365 * day / 3 * 2},
		{"ten years: 120 days before the end leave more", 3650 * day, 3650 * day / 3 * 2},
		{"three hundred days: 120 before the end", 300 * day, 180 * day},
		{"half a year and a day", 183 * day, 63 * day},
		{"less than half a year: by its life alone", 181 * day, 181 * day / 3 * 2},
		{"a day", day, day / 3 * 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := DueAt(&x509.Certificate{NotBefore: epoch, NotAfter: epoch.Add(c.life)})
			if got != epoch.Add(c.want) {
				t.Errorf("due after %v, want %v", got.Sub(epoch), c.want)
			}
		})
	}
}

// TestRenewTellsTheFirst: the caller comes back when the first certificate is due, and finds something to do then.
func TestRenewTellsTheFirst(t *testing.T) {
	p := params(t)
	first := ensure(t, p)
	p.Now = first.Renew.Add(-time.Second)
	if r := ensure(t, p); len(r.Written) != 0 || !r.Renew.Equal(first.Renew) {
		t.Errorf("a second before: wrote %v, renew %v", r.Written, r.Renew)
	}
	p.Now = first.Renew
	r := ensure(t, p)
	if len(r.Written) == 0 || !r.Renew.After(p.Now.Add(200*day)) {
		t.Errorf("when due: wrote %d files, renew %v", len(r.Written), r.Renew)
	}
}

// TestEveryYearOfTheAuthoritysLife: a server that renews when it is told to never shows a certificate that has ended
// or outlives its authority.
func TestEveryYearOfTheAuthoritysLife(t *testing.T) {
	p := params(t)
	r := ensure(t, p)
	end := readCert(t, p.tls("server-ca.crt")).NotAfter
	for n := 0; r.Renew.Before(end.Add(-30 * day)); n++ {
		if n > 40 {
			t.Fatalf("%d renewals until %v", n, r.Renew)
		}
		p.Now = r.Renew
		r = ensure(t, p)
		for _, name := range []string{"serving-kube-apiserver.crt", "client-admin.crt", "etcd/server-client.crt"} {
			cert := readCert(t, p.tls(name))
			if cert.NotAfter.After(end) || !p.Now.Before(cert.NotAfter) || p.Now.Before(cert.NotBefore) {
				t.Fatalf("%v: %s is valid from %v to %v, the authority to %v", p.Now, name, cert.NotBefore, cert.NotAfter, end)
			}
		}
	}
}

// TestYoungAuthority: a certificate that is issued in the authority's first hour must not begin before it.
func TestYoungAuthority(t *testing.T) {
	p := params(t)
	ensure(t, p)
	ca := readCert(t, p.tls("client-ca.crt"))
	leaf := readCert(t, p.tls("client-admin.crt"))
	if leaf.NotBefore.Before(ca.NotBefore) {
		t.Errorf("the leaf begins %v, its authority %v", leaf.NotBefore, ca.NotBefore)
	}
	p.Now = p.Now.Add(-30 * time.Minute) // a clock that went back a little, within the hour that they are backdated
	remove(t, p.tls("client-admin.crt"))
	ensure(t, p)
	if leaf = readCert(t, p.tls("client-admin.crt")); leaf.NotBefore.Before(ca.NotBefore) {
		t.Errorf("after the clock went back: the leaf begins %v, its authority %v", leaf.NotBefore, ca.NotBefore)
	}
}

// TestAuthorityReplacedByHand: whoever brings another issuing pair gets all of its leaves anew, and no others.
func TestAuthorityReplacedByHand(t *testing.T) {
	p := params(t)
	ensure(t, p)
	other := params(t)
	ensure(t, other)
	for _, ext := range []string{".crt", ".key"} {
		copyFile(t, other.tls("client-ca"+ext), p.tls("client-ca"+ext))
	}
	var got []string
	for _, path := range ensure(t, p).Written {
		if strings.HasSuffix(path, ".crt") {
			got = append(got, filepath.Base(path))
		}
	}
	slices.Sort(got)
	want := []string{
		"client-admin.crt", "client-ca.crt", "client-ca.nochain.crt", "client-controller.crt", "client-kube-apiserver.crt", "client-kube-proxy.crt",
		"client-kubelet.crt", "client-rke2-cloud-controller.crt", "client-rke2-controller.crt", "client-scheduler.crt", "client-supervisor.crt",
	}
	if !slices.Equal(got, want) {
		t.Errorf("wrote %q, want %q", got, want)
	}
	ca := readCert(t, p.tls("client-ca.crt"))
	for _, path := range []string{p.tls("client-admin.crt"), filepath.Join(p.AgentDir, "client-kubelet.crt")} {
		if err := readCert(t, path).CheckSignatureFrom(ca); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestKeyForms: authorities that people bring have keys in every form that openssl writes.
func TestKeyForms(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1, _ := x509.MarshalECPrivateKey(ec)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(ec)
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for _, c := range []struct{ name, text, problem string }{
		{"EC", block("EC PRIVATE KEY", sec1), ""},
		{"EC behind its parameters", block("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}) + block("EC PRIVATE KEY", sec1), ""},
		{"PKCS 8", block("PRIVATE KEY", pkcs8), ""},
		{"RSA", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), ""},
		{"text around it", "Bag Attributes\n" + block("PRIVATE KEY", pkcs8) + "end\n", ""},
		{"a certificate", block("CERTIFICATE", []byte("x")), "it holds no private key in PEM form"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", pkcs8), "it holds no private key in PEM form"},
		{"EC form of an RSA key", block("EC PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "parse private key"},
		{"cut off", block("EC PRIVATE KEY", sec1[:20]), "parse private key"},
		{"empty", "", "it holds no private key in PEM form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := parseKey([]byte(c.text))
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("got %v, want %q", err, c.problem)
				}
				return
			}
			if err != nil || !samePublic(key.Public(), ec.Public()) && !samePublic(key.Public(), rsaKey.Public()) {
				t.Errorf("got another key, %v", err)
			}
		})
	}
}

// TestSplit parts names from addresses as certificates want them, each once.
func TestSplit(t *testing.T) {
	names, ips := split([]string{"a.example", "10.0.0.1", "", "a.example", "::ffff:10.0.0.1", "fd00::1", "FD00::1", "*.b.example", "1.2.3"})
	if want := []string{"a.example", "*.b.example", "1.2.3"}; !slices.Equal(names, want) {
		t.Errorf("names: got %q, want %q", names, want)
	}
	var got []string
	for _, ip := range ips {
		got = append(got, ip.String())
	}
	if want := []string{"10.0.0.1", "fd00::1"}; !slices.Equal(got, want) {
		t.Errorf("addresses: got %q, want %q", got, want)
	}
}

// TestNamesOfTheServingCertificates: who may reach kube-apiserver by what.
func TestNamesOfTheServingCertificates(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Params)
		path   string
		host   string
		valid  bool
	}{
		{"in a pod", nil, "serving-kube-apiserver", "kubernetes.default.svc", true},
		{"in a pod, with the domain", nil, "serving-kube-apiserver", "kubernetes.default.svc.cluster.local", true},
		{"another domain", func(p *Params) { p.ClusterDomain = "k.example" }, "serving-kube-apiserver", "kubernetes.default.svc.k.example", true},
		{"service address", nil, "serving-kube-apiserver", "10.43.0.1", true},
		{"second service address", func(p *Params) { p.ServiceIPs = append(p.ServiceIPs, netip.MustParseAddr("fd00:43::1")) }, "serving-kube-apiserver", "fd00:43::1", true},
		{"IPv6 address of the node", nil, "serving-kube-apiserver", "fd00::15", true},
		{"first part of the node's name", nil, "serving-kube-apiserver", "cp-1", true},
		{"wildcard of tls-san", func(p *Params) { p.SANs = []string{"*.apps.example"} }, "serving-kube-apiserver", "x.apps.example", true},
		{"a name that nobody set", nil, "serving-kube-apiserver", "evil.example", false},
		{"the scheduler by the node's address", nil, "kube-scheduler/kube-scheduler", "10.0.2.15", false},
		{"the scheduler on this machine", nil, "kube-scheduler/kube-scheduler", "127.0.0.1", true},
		{"etcd by tls-san", nil, "etcd/server-client", "api.example", true},
		{"etcd by a service address", nil, "etcd/server-client", "10.43.0.1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params(t)
			if c.change != nil {
				c.change(&p)
			}
			ensure(t, p)
			err := readCert(t, p.tls(c.path+".crt")).VerifyHostname(c.host)
			if (err == nil) != c.valid {
				t.Errorf("%s: got %v, want it valid: %v", c.host, err, c.valid)
			}
		})
	}
}

// TestClientCertificatesHaveNoNames: a client's certificate must not serve for anything.
func TestClientCertificatesHaveNoNames(t *testing.T) {
	p := params(t)
	for _, spec := range leafSpecs(p) {
		serves := slices.Contains(spec.usage, x509.ExtKeyUsageServerAuth)
		if serves != (len(spec.names) > 0) {
			t.Errorf("%s: serves %v with names %q", spec.cn, serves, spec.names)
		}
		if spec.org == "system:masters" && !slices.Contains([]string{"system:admin", "system:rke2-supervisor", "system:apiserver"}, spec.cn) {
			t.Errorf("%s may do everything", spec.cn)
		}
	}
}

// TestFilePermissions: keys are root's, whatever their modes were before.
func TestFilePermissions(t *testing.T) {
	p := params(t)
	ensure(t, p)
	for _, path := range []string{p.tls("client-admin.key"), p.tls("server-ca.key"), p.cred("admin.kubeconfig"), p.Kubeconfig, filepath.Join(p.AgentDir, "client-kubelet.crt")} {
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if r := ensure(t, p); len(r.Written) != 5 {
		t.Errorf("wrote %q, want the five files", r.Written)
	}
	for path := range tree(t, p) {
		info, err := os.Stat(filepath.Join(filepath.Dir(p.ServerDir), path))
		if err != nil {
			t.Fatal(err)
		}
		if open := info.Mode().Perm() &^ 0o600; open != 0 && !strings.HasSuffix(path, ".crt") {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
}

// TestPrepareNamesWhatIsMissing before a single file is made.
func TestPrepareNamesWhatIsMissing(t *testing.T) {
	for name, change := range map[string]func(*Params){
		"node name": func(p *Params) { p.NodeName = "" }, "domain": func(p *Params) { p.ClusterDomain = "" },
		"server folder": func(p *Params) { p.ServerDir = "" }, "agent folder": func(p *Params) { p.AgentDir = "" },
	} {
		p := params(t)
		change(&p)
		if _, err := Ensure(p); err == nil || !strings.Contains(err.Error(), "must be set") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	p := params(t)
	if err := os.WriteFile(p.ServerDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureCertificates(p); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file in the folder's place: got %v", err)
	}
}

// TestServingOutlivesItsAuthority: a listener whose authority has gone serves with what it has, until that ends.
func TestServingOutlivesItsAuthority(t *testing.T) {
	p := params(t)
	ensure(t, p)
	now := epoch
	s, err := NewServing(p, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	remove(t, p.tls("server-ca.crt"))
	remove(t, p.tls("server-ca.key"))
	now = epoch.Add(300 * day)
	if again, err := s.Certificate(); err != nil || again != first {
		t.Errorf("due: got another certificate or %v", err)
	}
	now = epoch.Add(366 * day)
	if _, err := s.Certificate(); err == nil {
		t.Error("ended: no error")
	}
}

// TestLostAuthoritiesOfACluster: each one is named, and the error can be told from others.
func TestLostAuthoritiesOfACluster(t *testing.T) {
	for _, spec := range authoritySpecs() {
		p := params(t)
		ensure(t, p)
		p.ClusterExists = true
		remove(t, p.tls(spec.file+".crt"))
		remove(t, p.tls(spec.file+".key"))
		if _, err := EnsureCertificates(p); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), p.tls(spec.file+".crt")) {
			t.Errorf("%s: got %v", spec.file, err)
		}
	}
}
