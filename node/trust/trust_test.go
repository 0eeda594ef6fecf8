package trust_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/token"
	"keelson/node/trust"
)

func TestWholeTokens(t *testing.T) {
	root, s, c := cluster(t)
	hash := hashOf(t, root.pem())
	for _, x := range []struct {
		name, user string
		token      token.Secret
		shown      string
	}{
		{"an agent with the servers' token", token.UserNode, token.Secret("K10" + hash + "::server:secret"), basic("node", "secret")},
		{"a server with the agents' form", token.UserServer, token.Secret("K10" + hash + "::node:secret"), basic("server", "secret")},
		{"an agent with a bootstrap token", token.UserNode, token.Secret("K10" + hash + "::abcdef.0123456789abcdef"), "Bearer abcdef.0123456789abcdef"},
		{"a hash in capitals", token.UserNode, token.Secret("K10" + strings.ToUpper(hash) + "::server:secret"), basic("node", "secret")},
	} {
		s.seen = nil
		c.User, c.Token = x.user, x.token
		c.RequireHash = true
		got, err := trust.Validate(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if !bytes.Equal(got.CA, root.pem()) || got.CAHash != hash || got.TrustedOnFirstUse || got.Server != c.Server {
			t.Errorf("%s: got %v", x.name, got)
		}
		if !slices.Equal(s.seen, []string{x.shown}) {
			t.Errorf("%s: showed %q, want %q", x.name, s.seen, x.shown)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if got.Authorize(r); r.Header.Get("Authorization") != x.shown {
			t.Errorf("%s: Authorize set %q", x.name, r.Header.Get("Authorization"))
		}
	}
	if _, err := os.Stat(c.PinFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a whole token left a file behind: %v", err)
	}
}

// TestAccessIsBound: what Validate gives reaches the cluster and nobody else.
func TestAccessIsBound(t *testing.T) {
	root, s, c := cluster(t)
	got, err := trust.Validate(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	client := root.leaf(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "system:node:a"} })
	ask := func(a trust.Access, show trust.Certificate) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Server+"/v1-rke2/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		a.Authorize(r)
		h := a.Client(show)
		defer h.CloseIdleConnections()
		answer, err := h.Do(r)
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}
	if err := ask(got, nil); err != nil || len(s.names) != 0 {
		t.Errorf("without a certificate: %v, %q", err, s.names)
	}
	if err := ask(got, func() (*tls.Certificate, error) { return &client, nil }); err != nil || !slices.Equal(s.names, []string{"system:node:a"}) {
		t.Errorf("with a certificate: %v, %q", err, s.names)
	}
	if got.TLS(nil).MinVersion != tls.VersionTLS12 {
		t.Error("TLS below 1.2")
	}
	_, _, other := cluster(t)
	there, err := got.At(other.Server + "/")
	if err != nil || there.Server != other.Server {
		t.Fatalf("got %q, %v", there.Server, err)
	}
	if err := ask(there, nil); err == nil {
		t.Error("another cluster was believed")
	}
	_, err = got.At("http://x:9345")
	wantError(t, err, trust.ErrAddress)
	redirect := serve(t, http.RedirectHandler("https://example.invalid/", http.StatusFound), root.leaf(t, nil))
	if there, err = got.At(redirect); err != nil {
		t.Fatal(err)
	}
	if err := ask(there, nil); err != nil {
		t.Errorf("a redirection was followed: %v", err)
	}
}

// TestRefusals is scenario 5: each with words that tell the operator what to do.
func TestRefusals(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(t *testing.T, root *authority, s *supervisor, c *trust.Config)
		kind   error
		words  []string
	}{
		{"wrong token", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token = token.Secret("K10" + hashOf(t, root.pem()) + "::server:guess")
		}, trust.ErrWrongToken, []string{"copy the token from"}},
		{"wrong token of a server", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token, c.User = token.Secret("K10"+hashOf(t, root.pem())+"::server:guess"), token.UserServer
		}, trust.ErrWrongToken, nil},
		{"expired bootstrap token", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token = token.Secret("K10" + hashOf(t, root.pem()) + "::aaaaaa.0123456789abcdef")
			s.readyz = say(401, "the bootstrap token aaaaaa expired at 2026-11-01T12:00:00Z: make a new one with `node token create`")
		}, trust.ErrBootstrapToken, []string{"it says \"the bootstrap token aaaaaa expired at 2026-11-01T12:00:00Z: make a new one with `node token create`\"; and set that one"}},
		{"bootstrap token that nobody knows", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token = token.Secret("K10" + hashOf(t, root.pem()) + "::aaaaaa.0123456789abcdef")
			s.readyz = say(401, "not authorized")
		}, trust.ErrBootstrapToken, []string{"token aaaaaa is unknown", `it says "not authorized"`, "node token create"}},
		{"bootstrap token of a server", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token, c.User = "abcdef.0123456789abcdef", token.UserServer
		}, trust.ErrToken, []string{"joins agents, not servers"}},
		{"a token for something else", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { s.readyz = say(403, "forbidden") }, trust.ErrForbidden, nil},
		{"broken token", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Token = "K10abc::secret" }, trust.ErrToken, []string{"CA hash length"}},
		{"no token", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Token = "" }, trust.ErrToken, []string{"must not be empty"}},
		{"wrong CA hash", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token = token.Secret("K10" + strings.Repeat("0a", 32) + "::server:secret")
		}, trust.ErrCAHash, []string{strings.Repeat("0a", 32), "and the token names"}},
		{"no hash", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Token, c.RequireHash = "secret", true
		}, trust.ErrHashRequired, []string{"begins with K10", "require-token-ca-hash"}},
		{"no hash and nowhere to remember", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Token, c.PinFile = "secret", "" }, trust.ErrHashRequired, nil},
		{"somebody else's certificate", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			var none *authority
			evil := none.ca(t, "proxy-ca").leaf(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "proxy"} })
			c.Server = serve(t, s, evil)
		}, trust.ErrCertificate, []string{`"CN=proxy"`, `"CN=proxy-ca"`, "check the address"}},
		{"another name", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Server = serve(t, s, root.leaf(t, func(c *x509.Certificate) {
				c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)}
				c.DNSNames = []string{"a.b"}
			}))
		}, trust.ErrCertificate, []string{`"a.b, 10.0.0.1"`, "not for 127.0.0.1", "tls-san"}},
		{"clock behind", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) }
		}, trust.ErrClock, []string{"is not valid before", "this machine's clock says " + time.Now().Add(-48*time.Hour).UTC().Format("2006-01-02T")}},
		{"clock ahead", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
		}, trust.ErrClock, []string{"was valid until"}},
		{"clock an hour off", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.date = time.Now().Add(time.Hour + time.Second).UTC().Format(http.TimeFormat)
		}, trust.ErrClock, []string{"and the server's 2", "set the clocks"}},
		{"certificate ran out and foreign", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			var none *authority
			c.Server = serve(t, s, none.ca(t, "x").leaf(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
		}, trust.ErrCertificate, nil},
		{"starting", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { s.cacerts = say(503, "starting") }, trust.ErrNotReady, []string{`"starting"`}},
		{"starting, with cacerts", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { s.readyz = say(503, "starting") }, trust.ErrNotReady, nil},
		{"busy", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.readyz = say(429, "too many requests")
		}, trust.ErrNotReady, nil},
		{"busy proxy", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.cacerts = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) }
		}, trust.ErrNotReady, []string{`"later"`}},
		{"kube-apiserver", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.cacerts = say(401, "Unauthorized")
		}, trust.ErrNotSupervisor, []string{"looks like a kube-apiserver", "9345", "401"}},
		{"web server", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.cacerts = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Server", "nginx")
				w.Header().Set("Content-Type", "text/html")
				_, _ = w.Write([]byte("<html>\n" + strings.Repeat("x", 9999)))
			}
		}, trust.ErrNotSupervisor, []string{`"nginx"`, `"text/html"`, `begins "<html>\n`, `the certificate of "CN=rke2"`}},
		{"web server without the path", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { s.cacerts = http.NotFound }, trust.ErrNotSupervisor, []string{"404"}},
		{"redirection", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			s.cacerts = http.RedirectHandler("https://elsewhere.invalid/", http.StatusFound).ServeHTTP
		}, trust.ErrNotSupervisor, []string{`"https://elsewhere.invalid/"`}},
		{"no readyz", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { s.readyz = http.NotFound }, trust.ErrNotSupervisor, nil},
		{"no TLS", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			plain := httptest.NewServer(s)
			t.Cleanup(plain.Close)
			c.Server = "https" + strings.TrimPrefix(plain.URL, "http")
		}, trust.ErrNotSupervisor, []string{"does not speak TLS"}},
		{"nobody", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c.Server = "https://" + l.Addr().String()
			_ = l.Close()
		}, trust.ErrUnreachable, []string{"nothing listens on the port"}},
		{"silence", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			c.Server, c.Timeout = "https://"+l.Addr().String(), 50*time.Millisecond
		}, trust.ErrUnreachable, []string{"firewall"}},
		{"no scheme", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Server = "127.0.0.1:9345" }, trust.ErrAddress, []string{"https://host:9345"}},
		{"http", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Server = "http://a:secret@b:9345"
		}, trust.ErrAddress, []string{`"http"`}},
		{"a password in the address", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) {
			c.Server = "https://a:secret@b:9345"
		}, trust.ErrAddress, nil},
		{"a path", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Server += "/v1-rke2" }, trust.ErrAddress, nil},
		{"no host", func(t *testing.T, root *authority, s *supervisor, c *trust.Config) { c.Server = "https://:9345" }, trust.ErrAddress, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			root, s, c := cluster(t)
			c.Token = token.Secret("K10" + hashOf(t, root.pem()) + "::server:secret")
			x.change(t, root, s, &c)
			_, err := trust.Validate(t.Context(), c)
			wantError(t, err, x.kind, x.words...)
			var typed *trust.Error
			if !errors.As(err, &typed) || typed.Kind != x.kind {
				t.Errorf("got %T of kind %v", err, typed)
			}
			passing := x.kind == trust.ErrNotReady || x.kind == trust.ErrUnreachable || x.kind == trust.ErrClock || x.kind == trust.ErrBootstrapToken
			if trust.Passing(err) != passing {
				t.Errorf("passing: %v", !passing)
			}
			for _, a := range s.seen {
				if x.kind == trust.ErrCAHash || x.kind == trust.ErrCertificate {
					t.Errorf("the token was sent to a server that is not trusted: %s", a)
				}
			}
			if _, err := os.Stat(c.PinFile); err == nil {
				t.Error("a server that was refused was remembered")
			}
		})
	}
}

// TestNotYetReadyServersAreJoined: readiness may wait for those who join.
func TestNotYetReadyServersAreJoined(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"now":   say(503, "runtime core not ready"),
		"older": say(500, "runtime core not ready"),
	} {
		_, s, c := cluster(t)
		s.readyz = answer
		if _, err := trust.Validate(t.Context(), c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKnownAuthority needs no download, and does not stand in the way of a new one that the token names.
func TestKnownAuthority(t *testing.T) {
	root, s, c := cluster(t)
	var none *authority
	old := none.ca(t, "old")
	hash := hashOf(t, root.pem())
	for _, x := range []struct {
		name    string
		ca      []byte
		token   token.Secret
		cacerts http.HandlerFunc
		kind    error
	}{
		{"whole token", root.pem(), token.Secret("K10" + hash + "::server:secret"), http.NotFound, nil},
		{"short token", root.pem(), "secret", http.NotFound, nil},
		{"another than the token's", old.pem(), token.Secret("K10" + hash + "::server:secret"), nil, nil},
		{"another, and a short token", old.pem(), "secret", nil, trust.ErrCertificate},
	} {
		s.cacerts, c.CA, c.Token = x.cacerts, x.ca, x.token
		got, err := trust.Validate(t.Context(), c)
		if !errors.Is(err, x.kind) {
			t.Errorf("%s: got %v, want %v", x.name, err, x.kind)
		}
		if x.kind == nil && (!bytes.Equal(got.CA, root.pem()) || got.TrustedOnFirstUse) {
			t.Errorf("%s: got %v", x.name, got)
		}
	}
	c.CA, c.Token = []byte("no certificate"), "secret"
	if _, err := trust.Validate(t.Context(), c); err == nil {
		t.Error("a broken file: no error")
	}
}

func TestCallersMistakes(t *testing.T) {
	_, _, c := cluster(t)
	for name, change := range map[string]func(*trust.Config){
		"no log":  func(c *trust.Config) { c.Log = nil },
		"no user": func(c *trust.Config) { c.User = "" },
		"root":    func(c *trust.Config) { c.User = "root" },
	} {
		bad := c
		change(&bad)
		if _, err := trust.Validate(t.Context(), bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trust.Validate(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
	c.Certificate = func() (*tls.Certificate, error) { return nil, errors.New("no such file") }
	if _, err := trust.Validate(t.Context(), c); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no certificate: got %v", err)
	}
}

func TestAnySkewIfAsked(t *testing.T) {
	_, s, c := cluster(t)
	s.date = "Thu, 01 Jan 1970 00:00:00 GMT"
	c.MaxSkew = -1
	if _, err := trust.Validate(t.Context(), c); err != nil {
		t.Error(err)
	}
	s.date = "yesterday"
	c.MaxSkew = 0
	if _, err := trust.Validate(t.Context(), c); err != nil {
		t.Errorf("a date that cannot be read: %v", err)
	}
}

// TestNothingSecretIsLogged: fmt does not ask unexported fields how they want to be printed.
func TestNothingSecretIsLogged(t *testing.T) {
	root, _, c := cluster(t)
	var log bytes.Buffer
	c.Log, c.Token = slog.New(slog.NewTextHandler(&log, nil)), "secret"
	got, err := trust.Validate(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Log.Info("x", "access", got)
	fmt.Fprintf(&log, "%v %+v %#v %s", got, got, got, got)
	if s := log.String(); strings.Contains(s, "secret") || strings.Contains(s, basic("node", "secret")) || !strings.Contains(s, hashOf(t, root.pem())) || !strings.Contains(s, "first one seen") {
		t.Errorf("log: %s", s)
	}
}
