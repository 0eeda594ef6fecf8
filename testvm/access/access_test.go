package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// authority is a CA as a server of RKE2 makes one.
type authority struct {
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pem, kpem []byte
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{
		cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}
}

func (a authority) serving(t *testing.T, ip net.IP) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "rke2"}, IPAddresses: []net.IP{ip},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// supervisor plays a server with the given answers; the zero behaviour is the right one.
type supervisor struct {
	server, client authority
	bootstrap      []byte // instead of the right one
	status         int    // of server-bootstrap, instead of 200
	cacerts        []byte // instead of the right ones
	certFor        net.IP // instead of 127.0.0.1
}

const password = "0123456789abcdef0123456789abcdef"

func (s *supervisor) start(t *testing.T) string {
	t.Helper()
	s.server, s.client = newAuthority(t, "rke2-server-ca@1"), newAuthority(t, "rke2-client-ca@1")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cacerts", func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok {
			t.Error("the password was sent to a server that is not trusted yet")
		}
		if s.cacerts != nil {
			w.Write(s.cacerts)
			return
		}
		w.Write(s.server.pem)
	})
	mux.HandleFunc("GET /v1-rke2/server-bootstrap", func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "server" || pass != password {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "not authorized")
			return
		}
		if s.status != 0 {
			w.WriteHeader(s.status)
		}
		if s.bootstrap != nil {
			w.Write(s.bootstrap)
			return
		}
		type entry struct {
			Timestamp time.Time
			Content   []byte
		}
		json.NewEncoder(w).Encode(map[string]entry{
			"ServerCA": {time.Now(), s.server.pem}, "ClientCA": {time.Now(), s.client.pem}, "ClientCAKey": {time.Now(), s.client.kpem},
		})
	})
	ip := net.IPv4(127, 0, 0, 1)
	if s.certFor != nil {
		ip = s.certFor
	}
	srv := httptest.NewUnstartedServer(mux)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{s.server.serving(t, ip)}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL
}

func hashOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

func TestKubeconfigOpensTheApiserver(t *testing.T) {
	s := &supervisor{}
	url := s.start(t)
	for _, token := range []string{password, "K10" + hashOf(s.server.pem) + "::server:" + password} {
		b, err := Server{URL: url, Token: token}.Fetch(context.Background())
		if err != nil {
			t.Fatal(err)
		}

		var who *x509.Certificate
		clients := x509.NewCertPool()
		clients.AddCert(s.client.cert)
		api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who = r.TLS.PeerCertificates[0]
			fmt.Fprint(w, "ok")
		}))
		api.TLS = &tls.Config{
			Certificates: []tls.Certificate{s.server.serving(t, net.IPv4(127, 0, 0, 1))},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients,
		}
		api.StartTLS()
		defer api.Close()

		data, err := b.Kubeconfig(api.URL, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.RESTConfigFromKubeConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get(api.URL + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if who.Subject.CommonName != "system:admin" || strings.Join(who.Subject.Organization, ",") != "system:masters" {
			t.Errorf("certificate: got %s, want system:admin of system:masters", who.Subject)
		}
		if who.NotBefore.Before(s.client.cert.NotBefore) {
			t.Errorf("certificate: valid from %s, before its CA (%s)", who.NotBefore, s.client.cert.NotBefore)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	for _, c := range []struct {
		name     string
		server   supervisor
		token    string
		want     string
		notReady bool
	}{
		{"wrong password", supervisor{}, "wrong", "401", false},
		{"another CA than the token's", supervisor{}, "K10" + strings.Repeat("0", 64) + "::server:" + password, "the token says", false},
		{"certificate for somebody else", supervisor{certFor: net.IPv4(10, 0, 0, 1)}, password, "certificate", false},
		{"no certificate", supervisor{cacerts: []byte("hello")}, password, "holds no certificate", false},
		{"starting", supervisor{status: 503, bootstrap: []byte("starting")}, password, "starting", true},
		{"not JSON", supervisor{bootstrap: []byte("<html>")}, password, "read server-bootstrap", false},
		{"without the key", supervisor{bootstrap: []byte(`{"ServerCA":{"Content":"eA=="},"ClientCA":{"Content":"eA=="}}`)}, password, "no ClientCAKey", false},
		{"another ServerCA inside", supervisor{bootstrap: []byte(`{"ServerCA":{"Content":"eA=="},"ClientCA":{"Content":"eA=="},"ClientCAKey":{"Content":"eA=="}}`)}, password, "not the one of /cacerts", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.server
			_, err := Server{URL: s.start(t), Token: c.token}.Fetch(context.Background())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error: got %v, want one with %q", err, c.want)
			}
			if got := errors.Is(err, ErrNotReady); got != c.notReady {
				t.Errorf("not ready: got %v, want %v (%v)", got, c.notReady, err)
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("error tells the password: %v", err)
			}
		})
	}
}

func TestFetchFromNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := (Server{URL: "https://" + l.Addr().String(), Token: "x"}).Fetch(context.Background()); !errors.Is(err, ErrNotReady) {
		t.Errorf("error: got %v, want %v", err, ErrNotReady)
	}
}

func TestSplit(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, c := range []struct{ name, in, hash, password, want string }{
		{"full", "K10" + hash + "::server:secret", hash, "secret", ""},
		{"a colon in the password", "K10" + hash + "::server:a:b", hash, "a:b", ""},
		{"short", "secret", "", "secret", ""},
		{"empty", "", "", "", "it is empty"},
		{"short hash", "K10abc::server:x", "", "", "64 digits"},
		{"no user", "K10" + hash + "::secret", "", "", "server:<password>"},
		{"no password", "K10" + hash + "::server:", "", "", "server:<password>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, p, err := split(c.in)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error: got %v, want one with %q", err, c.want)
				}
				return
			}
			if err != nil || h != c.hash || p != c.password {
				t.Errorf("split: got %q, %q, %v, want %q, %q", h, p, err, c.hash, c.password)
			}
		})
	}
}

func FuzzLoadBootstrap(f *testing.F) {
	f.Add([]byte(`{"ServerCA":{"Timestamp":"2026-01-02T03:04:05Z","Content":"eA=="}}`))
	f.Add([]byte(`{"ServerCA":"eA=="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := LoadBootstrap(body)
		if err == nil && (len(b.ServerCA) == 0 || len(b.ClientCA) == 0 || len(b.ClientCAKey) == 0) {
			t.Errorf("%q: got a record that is not whole", body)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add("K10" + strings.Repeat("ab", 32) + "::server:secret")
	f.Fuzz(func(t *testing.T, token string) {
		if _, password, err := split(token); err == nil && password == "" {
			t.Errorf("%q: got no password and no error", token)
		}
	})
}
