package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait of these tests; none of them needs it to pass.
const patience = 20 * time.Second

// authority issues the certificates of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) issue(name, group string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		Subject:     pkix.Name{CommonName: name, Organization: []string{group}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// node is the client configuration of a node's kubelet certificate.
func (a *authority) node(name string) func() (*tls.Config, error) {
	conf := &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue("system:node:"+name, "system:nodes")}}
	return func() (*tls.Config, error) { return conf, nil }
}

// files writes a certificate, its key and the CA, for who reads files.
func (a *authority) files(c tls.Certificate) (cert, key, ca string) {
	a.t.Helper()
	dir := a.t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return write("c.crt", "CERTIFICATE", c.Certificate[0]), write("c.key", "PRIVATE KEY", der), write("ca.crt", "CERTIFICATE", a.cert.Raw)
}

// host is a supervisor's listener on loopback: TLS, client certificates verified, HTTP/1.1.
type host struct {
	address string
	kill    func() // cuts every connection, and listens no more
	quit    func() // ends as the supervisor does: by its context
}

func (a *authority) serve(address string, handler http.Handler) *host {
	a.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	cut := &cutter{Listener: l}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: handler, Protocols: new(http.Protocols), BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.pool, MinVersion: tls.VersionTLS13,
			Certificates: []tls.Certificate{a.issue("rke2", "")}}}
	srv.Protocols.SetHTTP1(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(cut, "", "") }()
	h := &host{address: l.Addr().String(), kill: cut.cut, quit: cancel}
	a.t.Cleanup(func() { cancel(); _ = srv.Close(); cut.cut(); <-done })
	return h
}

// supervisor is what node/supervisorapi does for a Server: who is it, and what may that one do.
func supervisor(s *Server) http.Handler {
	egress := s.Egress()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		who := r.TLS.PeerCertificates[0].Subject
		switch node, ok := strings.CutPrefix(who.CommonName, "system:node:"); {
		case r.Method != http.MethodConnect && r.URL.Path == Path && ok && slices.Contains(who.Organization, "system:nodes"):
			s.ServeNode(w, r, node)
		case r.URL.Path != Path && slices.Contains(who.Organization, "system:masters"):
			egress.ServeHTTP(w, r)
		default:
			http.Error(w, "not yours", http.StatusForbidden)
		}
	})
}

// cutter is a listener whose connections can be cut as a power cut would, but noticeably.
type cutter struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cutter) cut() {
	_ = c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// listen runs each connection to a fresh port through handle, and tells how many there were.
func listen(t *testing.T, handle func(net.Conn)) (port uint16, seen func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { defer conn.Close(); handle(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return uint16(l.Addr().(*net.TCPAddr).Port), func() int { mu.Lock(); defer mu.Unlock(); return len(conns) }
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func loop(port uint16) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }

// start runs f until the test ends, and waits for it.
func start(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// client runs a Client, whose states come through the channel.
func client(t *testing.T, c Config) (states chan bool, stop func()) {
	t.Helper()
	states = make(chan bool, 100)
	c.OnState = func(up bool) { states <- up }
	if c.Retry == 0 {
		c.Retry, c.RetryMost = time.Millisecond, 20*time.Millisecond
	}
	one, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return states, start(t, one.Run)
}

func want[T comparable](t *testing.T, from <-chan T, value T) {
	t.Helper()
	select {
	case got := <-from:
		if got != value {
			t.Fatalf("got %v; want %v", got, value)
		}
	case <-time.After(patience):
		t.Fatalf("waited in vain for %v", value)
	}
}

// eventually waits for what no event tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-end:
			buf := make([]byte, 1<<16)
			t.Fatalf("not so: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		case <-tick.C:
		}
	}
}

func server(t *testing.T, c ServerConfig) *Server {
	t.Helper()
	if c.NodeOf == nil {
		c.NodeOf = func(string) (string, bool) { return "", false }
	}
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// roundTrip sends a text through conn, and wants it back.
func roundTrip(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("echo of %q = %q, %v", text, got, err)
	}
}
