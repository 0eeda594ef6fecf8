package supervisorapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/pki"
	"keelson/node/token"
)

const (
	serverPassword = "server-password"
	agentPassword  = "agent-password"
)

// bench is a listener with certificates of a real cluster, and what its tests turn.
type bench struct {
	*Server
	url    string
	dir    string
	log    *lockedBuffer
	clock  atomic.Int64 // seconds that the limiters' clock is ahead
	ready  atomic.Bool
	broken atomic.Bool
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// unlimited are limits that no test reaches by accident.
func unlimited() Limits {
	return Limits{RequestsPerSecond: 1e6, RequestBurst: 1e6, FailuresPerMinute: 1e6, ConnectionsPerAddress: 1000, Connections: 1000, InFlight: 1000}
}

func start(t testing.TB, limits Limits) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), log: &lockedBuffer{}}
	p := pki.Params{ServerDir: filepath.Join(b.dir, "server"), AgentDir: filepath.Join(b.dir, "agent"), NodeName: "n", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ClusterDomain: "cluster.local"}
	if _, err := pki.EnsureCertificates(p); err != nil {
		t.Fatal(err)
	}
	serving, err := pki.NewServing(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Server, err = New(Config{
		Certificate: serving.Certificate, ClientCA: b.read(t, "server/tls/client-ca.crt"), Limits: limits,
		Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(b.clock.Load()) * time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.url = listen(t, b.Server)
	b.ready.Store(true)
	return b
}

// listen serves s on a port of this machine until the test ends, and gives its URL.
func listen(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "https://" + l.Addr().String()
}

func (b *bench) read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *bench) install(t testing.TB) {
	t.Helper()
	if err := b.Install(b.handlers(t)); err != nil {
		t.Fatal(err)
	}
}

// handlers are those that must be set.
func (b *bench) handlers(t testing.TB) Handlers {
	t.Helper()
	return Handlers{
		CACerts: b.read(t, "server/tls/server-ca.crt"),
		Users: []token.User{
			{Name: token.UserNode, Password: agentPassword, Roles: []string{token.RoleAgent}},
			{Name: token.UserServer, Password: serverPassword, Roles: []string{token.RoleServer}},
		},
		Ready: b.ready.Load,
		APIServers: func(context.Context) ([]string, error) {
			if b.broken.Load() {
				return nil, errors.New("a detail that strangers must not see")
			}
			return []string{"10.0.2.15:6443"}, nil
		},
		Bootstrap: func(_ context.Context, password token.Secret) ([]byte, error) {
			if b.broken.Load() {
				return nil, errors.New("a detail that strangers must not see")
			}
			return []byte(`{"opened with":"` + password.Reveal() + `"}` + "\n"), nil
		},
	}
}

// credential is what a client shows.
type credential struct {
	user, password string
	bearer         string
	cert           string // path of a pair without its ending
}

func (b *bench) client(t testing.TB, c credential) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.read(t, "server/tls/server-ca.crt"))
	conf := &tls.Config{RootCAs: pool}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(b.dir, c.cert+".crt"), filepath.Join(b.dir, c.cert+".key"))
		if err != nil {
			t.Fatal(err)
		}
		// Show it whatever authorities the server names.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	tr := &http.Transport{TLSClientConfig: conf}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (b *bench) do(t testing.TB, c credential, method, path string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, b.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return b.send(t, c, req)
}

func (b *bench) send(t testing.TB, c credential, req *http.Request) (*http.Response, string) {
	t.Helper()
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	res, err := b.client(t, c).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	return res, string(out)
}

// TestRoutesByCredential is who may do what.
func TestRoutesByCredential(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	credentials := []struct {
		name string
		c    credential
	}{
		{"nobody", credential{}},
		{"server", credential{user: "server", password: serverPassword}},
		{"agent", credential{user: "node", password: agentPassword}},
		{"server with the agent's password", credential{user: "server", password: agentPassword}},
		{"unknown user", credential{user: "root", password: serverPassword}},
		{"empty password", credential{user: "server", password: ""}},
		{"bearer", credential{bearer: "abcdef.0123456789abcdef"}},
		{"kubelet", credential{cert: "agent/client-kubelet"}},
		{"admin", credential{cert: "server/tls/client-admin"}},
		{"serving certificate", credential{cert: "agent/serving-kubelet"}},
		{"etcd's certificate", credential{cert: "server/tls/etcd/client"}},
		{"etcd's certificate and the agent's password", credential{user: "node", password: agentPassword, cert: "server/tls/etcd/client"}},
	}
	for _, c := range []struct {
		method, path string
		codes        [12]int
	}{
		{"GET", "/cacerts", [12]int{200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200}},
		{"GET", "/ping", [12]int{200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200}},
		{"POST", "/ping", [12]int{405, 405, 405, 405, 405, 405, 405, 405, 405, 405, 405, 405}},
		{"GET", "/v1-rke2/readyz", [12]int{403, 403, 200, 401, 401, 401, 401, 200, 403, 401, 401, 200}},
		{"GET", "/v1-rke2/apiservers", [12]int{403, 403, 200, 401, 401, 401, 401, 200, 403, 401, 401, 200}},
		{"PUT", "/v1-rke2/apiservers", [12]int{403, 403, 405, 401, 401, 401, 401, 405, 403, 401, 401, 405}},
		{"GET", "/v1-rke2/server-bootstrap", [12]int{403, 200, 403, 401, 401, 401, 401, 403, 403, 401, 401, 403}},
		{"HEAD", "/v1-rke2/server-bootstrap", [12]int{403, 405, 403, 401, 401, 401, 401, 403, 403, 401, 401, 403}},
		{"PUT", "/v1-rke2/server-bootstrap", [12]int{403, 405, 403, 401, 401, 401, 401, 403, 403, 401, 401, 403}},
		{"GET", "/v1-rke2/config", [12]int{403, 403, 404, 401, 401, 401, 401, 404, 403, 401, 401, 404}},
		{"GET", "/", [12]int{403, 403, 404, 401, 401, 401, 401, 404, 403, 401, 401, 404}},
		{"GET", "//cacerts", [12]int{403, 403, 404, 401, 401, 401, 401, 404, 403, 401, 401, 404}},
		{"GET", "/v1-rke2/../cacerts", [12]int{403, 403, 404, 401, 401, 401, 401, 404, 403, 401, 401, 404}},
	} {
		for i, who := range credentials {
			res, body := b.do(t, who.c, c.method, c.path, nil)
			if res.StatusCode != c.codes[i] {
				t.Errorf("%s %s as %s: got %d, want %d", c.method, c.path, who.name, res.StatusCode, c.codes[i])
			}
			if res.StatusCode == 200 || c.method == "HEAD" {
				continue
			}
			var st status
			if err := json.Unmarshal([]byte(body), &st); err != nil || st.Code != res.StatusCode || st.Kind != "Status" || st.Reason == "" || !res.Close {
				t.Errorf("%s %s as %s: error is %q, close %v", c.method, c.path, who.name, body, res.Close)
			}
		}
	}
	if log := b.log.String(); strings.Contains(log, serverPassword) || strings.Contains(log, agentPassword) {
		t.Error("a password is in the log")
	}
}

func TestAnswers(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	server, agent := credential{user: "server", password: serverPassword}, credential{user: "node", password: agentPassword}
	for _, c := range []struct {
		who               credential
		path, want, ctype string
	}{
		{credential{}, "/cacerts", string(b.read(t, "server/tls/server-ca.crt")), "text/plain"},
		{credential{}, "/ping", "pong", "text/plain"},
		{agent, "/v1-rke2/readyz", "ok", "text/plain"},
		{agent, "/v1-rke2/apiservers", `["10.0.2.15:6443"]`, "application/json"},
		{server, "/v1-rke2/server-bootstrap", `{"opened with":"server-password"}` + "\n", "application/json"},
	} {
		res, body := b.do(t, c.who, "GET", c.path, nil)
		if body != c.want || res.Header.Get("Content-Type") != c.ctype {
			t.Errorf("%s: got %q of %s", c.path, body, res.Header.Get("Content-Type"))
		}
	}
	b.ready.Store(false)
	if res, body := b.do(t, agent, "GET", "/v1-rke2/readyz", nil); res.StatusCode != 503 || !strings.Contains(body, "runtime core not ready") {
		t.Errorf("not ready: %d %s", res.StatusCode, body)
	}
}

func TestErrorsHideTheirDetails(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	b.broken.Store(true)
	for path, who := range map[string]credential{"/v1-rke2/apiservers": {user: "node", password: agentPassword}, "/v1-rke2/server-bootstrap": {user: "server", password: serverPassword}} {
		res, body := b.do(t, who, "GET", path, nil)
		var st status
		if err := json.Unmarshal([]byte(body), &st); err != nil || res.StatusCode != 500 || strings.Contains(body, "detail") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
			continue
		}
		var id int
		if _, err := fmt.Sscanf(st.Message, strings.TrimPrefix(path, Prefix+"/")+" error ID %d", &id); err != nil {
			t.Errorf("%s: message %q", path, st.Message)
		}
		if !strings.Contains(b.log.String(), fmt.Sprintf("id=%d error=\"a detail", id)) {
			t.Errorf("%s: the log does not explain %d", path, id)
		}
	}
}

func TestStartingUntilInstalled(t *testing.T) {
	b := start(t, unlimited())
	for _, path := range []string{"/cacerts", "/ping", "/v1-rke2/server-bootstrap", "/x"} {
		res, body := b.do(t, credential{user: "server", password: serverPassword}, "GET", path, nil)
		if res.StatusCode != 503 || !strings.Contains(body, `"starting"`) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	b.install(t)
	if res, _ := b.do(t, credential{}, "GET", "/ping", nil); res.StatusCode != 200 {
		t.Errorf("then: %d", res.StatusCode)
	}
	if err := b.Install(Handlers{}); err == nil {
		t.Error("no handlers: no error")
	}
}

func TestNewRefuses(t *testing.T) {
	cert := func() (*tls.Certificate, error) { return nil, nil }
	for name, c := range map[string]Config{
		"no certificate": {Log: slog.Default(), ClientCA: []byte("x")},
		"no log":         {Certificate: cert, ClientCA: []byte("x")},
		"no client CA":   {Certificate: cert, Log: slog.Default(), ClientCA: []byte("x")},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestExpiredCertificateIsNotRight(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	b.clock.Store(400 * 24 * 3600)
	if res, _ := b.do(t, credential{cert: "agent/client-kubelet"}, "GET", "/v1-rke2/readyz", nil); res.StatusCode != 401 {
		t.Errorf("got %d, want 401", res.StatusCode)
	}
}
