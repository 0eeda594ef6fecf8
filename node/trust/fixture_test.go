package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/token"
	"keelson/node/trust"
)

var serial atomic.Int64

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue issues a certificate below a, or a root where a is nil.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
	}
	change(tmpl)
	parent := a
	if parent == nil {
		parent = &authority{tmpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) ca(t *testing.T, name string) *authority {
	t.Helper()
	return a.issue(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	})
}

// leaf issues a serving certificate for 127.0.0.1.
func (a *authority) leaf(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	l := a.issue(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "rke2"}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		if change != nil {
			change(c)
		}
	})
	return tls.Certificate{Certificate: [][]byte{l.cert.Raw}, PrivateKey: l.key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func chainPEM(all ...*authority) []byte {
	var b bytes.Buffer
	for _, a := range all {
		b.Write(a.pem())
	}
	return b.Bytes()
}

func hashOf(t *testing.T, bundle []byte) string {
	t.Helper()
	hash, err := token.CAHash(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// whole is a token that pins bundle.
func whole(t *testing.T, bundle []byte) token.Secret {
	t.Helper()
	full, err := token.Format(bundle, token.UserServer, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// supervisor answers like RKE2's, as far as joining asks. Fields may be changed between requests, not during them.
type supervisor struct {
	bundle  []byte
	users   map[string]string // Authorization to role
	cacerts http.HandlerFunc  // in place of the bundle
	readyz  http.HandlerFunc  // in place of the judgement
	date    string
	seen    []string // Authorization of each request for readyz
	names   []string // common name of each client certificate
}

func (s *supervisor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.date != "" {
		w.Header().Set("Date", s.date)
	}
	switch r.URL.Path {
	case "/cacerts":
		if r.Header.Get("Authorization") != "" {
			panic("credentials were sent before the server was trusted")
		}
		if s.cacerts != nil {
			s.cacerts(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(s.bundle)
	case "/v1-rke2/readyz":
		s.seen = append(s.seen, r.Header.Get("Authorization"))
		for _, c := range r.TLS.PeerCertificates {
			s.names = append(s.names, c.Subject.CommonName)
		}
		if s.readyz != nil {
			s.readyz(w, r)
			return
		}
		switch role := s.users[r.Header.Get("Authorization")]; role {
		case "":
			say(http.StatusUnauthorized, "not authorized")(w, r)
		case token.RoleServer:
			say(http.StatusForbidden, "forbidden")(w, r)
		default:
			_, _ = w.Write([]byte("ok"))
		}
	default:
		say(http.StatusNotFound, "not found")(w, r)
	}
}

// say answers with a metav1.Status.
func say(code int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"` + message + `","code":1}`))
	}
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// serve starts a TLS server on loopback.
func serve(t *testing.T, h http.Handler, cert tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// cluster is a supervisor with one self-signed authority, and a configuration that joins it.
func cluster(t *testing.T) (*authority, *supervisor, trust.Config) {
	t.Helper()
	var none *authority
	root := none.ca(t, "rke2-server-ca")
	s := &supervisor{bundle: root.pem(), users: map[string]string{
		basic("server", "secret"): token.RoleServer, basic("node", "secret"): token.RoleAgent, "Bearer abcdef.0123456789abcdef": "system:bootstrappers",
	}}
	url := serve(t, s, root.leaf(t, nil))
	return root, s, trust.Config{
		Server: url, Token: token.Secret("K10" + hashOf(t, root.pem()) + "::server:secret"), User: token.UserNode,
		PinFile: filepath.Join(t.TempDir(), "pin"), Log: slog.New(slog.DiscardHandler),
	}
}

// wantError checks kind, words, and that no secret is told.
func wantError(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
	for _, s := range []string{"secret", "0123456789abcdef"} {
		if strings.Contains(err.Error(), s) {
			t.Errorf("the error tells the token: %q", err)
		}
	}
}
