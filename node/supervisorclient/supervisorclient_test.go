package supervisorclient

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keelson/node/token"
	"keelson/node/trust"
)

// serve runs a server that answers with handler, and gives a client that trusts it.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	var s *httptest.Server
	mux := http.NewServeMux()
	mux.HandleFunc("/cacerts", func(w http.ResponseWriter, _ *http.Request) {
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	})
	probed := false
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !probed {
			probed = true // trust's own question
			return
		}
		if user, password, _ := r.BasicAuth(); user != token.UserNode || password != "pass" {
			t.Errorf("%s: asked as %q", r.URL.Path, user)
		}
		handler(w, r)
	})
	s = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	access, err := trust.Validate(t.Context(), trust.Config{
		Server: s.URL, Token: "pass", User: token.UserNode, PinFile: filepath.Join(t.TempDir(), "pin"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := New(access, nil)
	t.Cleanup(c.Close)
	return c
}

func TestEachQuestion(t *testing.T) {
	for _, c := range []struct {
		method, path, body, answer string
		ask                        func(context.Context, *Client) (any, error)
		want                       func(any) bool
	}{
		{"GET", "/v1-rke2/config", "", `{"ClusterDomain":"x"}`, func(ctx context.Context, c *Client) (any, error) { return c.Config(ctx) }, text(`{"ClusterDomain":"x"}`)},
		{"GET", "/v1-rke2/server-bootstrap", "", "{}", func(ctx context.Context, c *Client) (any, error) { return c.ServerBootstrap(ctx) }, text("{}")},
		{"GET", "/v1-rke2/client-ca.crt", "", "PEM", func(ctx context.Context, c *Client) (any, error) { return c.ClientCA(ctx) }, text("PEM")},
		{"GET", "/v1-rke2/server-ca.crt", "", "PEM", func(ctx context.Context, c *Client) (any, error) { return c.ServerCA(ctx) }, text("PEM")},
		{"GET", "/v1-rke2/readyz", "", "ok", func(ctx context.Context, c *Client) (any, error) { return nil, c.Ready(ctx) }, nil},
		{"GET", "/v1-rke2/apiservers", "", `["10.0.0.1:6443","10.0.0.2:6443"]`, func(ctx context.Context, c *Client) (any, error) { return c.APIServers(ctx) },
			func(v any) bool { return slices.Equal(v.([]string), []string{"10.0.0.1:6443", "10.0.0.2:6443"}) }},
		{"GET", "/db/info", "", `{"members":[{"ID":9900000000000000001,"name":"cp-1-ab","clientURLs":["https://10.0.0.1:2379"]},{"ID":2,"isLearner":true}]}`,
			func(ctx context.Context, c *Client) (any, error) { return c.DBInfo(ctx) },
			func(v any) bool {
				m := v.([]Member)
				return len(m) == 2 && m[0].ID == 9900000000000000001 && m[0].ClientURLs[0] == "https://10.0.0.1:2379" && m[1].IsLearner
			}},
		{"PUT", "/v1-rke2/cert/cacerts", "{}", "", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.ReplaceAuthorities(ctx, []byte("{}"), false)
		}, nil},
		{"PUT", "/v1-rke2/cert/cacerts?force=true", "{}", "", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.ReplaceAuthorities(ctx, []byte("{}"), true)
		}, nil},
		{"PUT", "/v1-rke2/token", `{"newToken":"next"}`, "", func(ctx context.Context, c *Client) (any, error) { return nil, c.ReplaceToken(ctx, "next") }, nil},
		{"DELETE", "/v1-rke2/token", "", "", func(ctx context.Context, c *Client) (any, error) { return nil, c.FinishToken(ctx) }, nil},
		{"GET", "/v1-rke2/encrypt/status", "", "{}", func(ctx context.Context, c *Client) (any, error) { return c.EncryptStatus(ctx) }, text("{}")},
		{"PUT", "/v1-rke2/encrypt/config", `{"enable":true}`, "", func(ctx context.Context, c *Client) (any, error) {
			return nil, c.ChangeEncryption(ctx, []byte(`{"enable":true}`))
		}, nil},
		{"POST", "/db/snapshot", `{"operation":"list"}`, "{}", func(ctx context.Context, c *Client) (any, error) {
			return c.Snapshot(ctx, []byte(`{"operation":"list"}`))
		}, text("{}")},
	} {
		t.Run(c.path, func(t *testing.T) {
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if got := r.Method + " " + r.URL.RequestURI(); got != c.method+" "+c.path || string(body) != c.body {
					t.Errorf("got %s with %q, want %s %s with %q", got, body, c.method, c.path, c.body)
				}
				io.WriteString(w, c.answer)
			})
			got, err := c.ask(t.Context(), client)
			if err != nil || c.want != nil && !c.want(got) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func text(want string) func(any) bool { return func(v any) bool { return string(v.([]byte)) == want } }

func TestRefusals(t *testing.T) {
	const status = `{"kind":"Status","apiVersion":"v1","message":"the very reason","code":0}`
	for _, c := range []struct {
		code int
		body string
		kind error
		says string
	}{
		{503, status, ErrNotReady, "503 Service Unavailable: the very reason"},
		{502, "", ErrNotReady, "no reason given"},
		{429, status, ErrBusy, "the very reason"},
		{401, status, ErrUnauthorized, "the very reason"},
		{403, status, ErrForbidden, "the very reason"},
		{404, "page\x1b[31m not found", ErrAbsent, `"page [31m not found"`},
		{400, status, nil, "/v1-rke2/config: 400 Bad Request: the very reason"},
		{302, "", nil, "302 Found"},
		{500, `{"message":"` + strings.Repeat("x", 1000) + `"}`, nil, strings.Repeat("x", 300) + "..."},
		{200, strings.Repeat("x", maxAnswer+1), nil, "larger than"},
	} {
		t.Run(http.StatusText(c.code), func(t *testing.T) {
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.WriteHeader(c.code)
				io.WriteString(w, c.body)
			})
			_, err := client.Config(t.Context())
			var refused *Error
			if !errors.As(err, &refused) || refused.Code != c.code || refused.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %d, %v and %q", err, c.code, c.kind, c.says)
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("%v is not %v", err, c.kind)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := client.Config(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("cut connection: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Config(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("given up: got %v", err)
	}
	for name, answer := range map[string]string{"no JSON": "pong", "another shape": `{"a":1}`} {
		client := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) })
		if _, err := client.APIServers(t.Context()); err == nil || !strings.Contains(err.Error(), "not what such a server gives") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestSnapshotTakesItsTime: longer than any other question, and its answer may be larger.
func TestSnapshotTakesItsTime(t *testing.T) {
	late, large := make(chan struct{}), strings.Repeat("x", maxAnswer+1)
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-late
		io.WriteString(w, large)
	})
	client.http.Timeout = 50 * time.Millisecond
	if _, err := client.Config(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("another question: got %v", err)
	}
	close(late)
	got, err := client.Snapshot(t.Context(), nil)
	if err != nil || string(got) != large {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if client.http.Timeout == 0 {
		t.Error("every question is patient now")
	}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a key, as a server would.
func issue(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSign(t *testing.T) {
	node := Node{Name: "agent-1", Password: "node-secret", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")}}
	for _, kind := range Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			key := newKey(t)
			var issued []byte
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/v1-rke2/"+string(kind)+".crt" {
					t.Errorf("got %s %s", r.Method, r.URL.Path)
				}
				for name, want := range map[string]string{"rke2-Node-Name": "agent-1", "rke2-Node-Password": "node-secret", "rke2-Node-IP": "10.0.0.9,fd00::9"} {
					if got := r.Header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				body, _ := io.ReadAll(r.Body)
				request, err := x509.ParseCertificateRequest(body)
				if err != nil || request.CheckSignature() != nil || request.Subject.String() != "" {
					t.Errorf("the request is no plain signing request: %v", err)
					return
				}
				issued = issue(t, request.PublicKey)
				w.Write(issued)
			})
			got, err := client.Sign(t.Context(), kind, node, key)
			if err != nil || !bytes.Equal(got, issued) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestSignTakesNoOtherKey(t *testing.T) {
	for name, answer := range map[string][]byte{
		"another key's": issue(t, newKey(t).Public()), "nothing": nil, "a key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY"}),
		"garbage": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) })
		if _, err := client.Sign(t.Context(), ClientKubelet, Node{Name: "a"}, newKey(t)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
