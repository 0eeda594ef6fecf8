package supervisorapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// from sends a request past the network, as one that came from an address.
func (b *bench) from(address, path string, who credential) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = address
	r.TLS = nil // no certificate is shown
	if who.user != "" {
		r.SetBasicAuth(who.user, who.password)
	}
	w := httptest.NewRecorder()
	b.serve(w, r)
	return w
}

// TestMembersFromAfar: a program of this machine asks for etcd's members without being anybody, and nobody else does.
func TestMembersFromAfar(t *testing.T) {
	b := start(t, unlimited())
	if err := b.Install(b.everything(t)); err != nil {
		t.Fatal(err)
	}
	nobody, server := credential{}, credential{user: "server", password: serverPassword}
	for _, c := range []struct {
		address string
		who     credential
		path    string
		code    int
	}{
		{"127.0.0.1:1", nobody, "/db/info", 200},
		{"127.8.0.1:1", nobody, "/db/info", 200},
		{"[::ffff:127.0.0.1]:1", nobody, "/db/info", 200},
		{"10.0.0.9:1", nobody, "/db/info", 403},
		{"10.0.0.9:1", credential{user: "node", password: agentPassword}, "/db/info", 403},
		{"10.0.0.9:1", credential{user: "server", password: "guess"}, "/db/info", 401},
		{"10.0.0.9:1", server, "/db/info", 200},
		{"[fd00::9]:1", nobody, "/db/info", 403},
		{"not an address", nobody, "/db/info", 403},
		{"127.0.0.1:1", nobody, "/v1-rke2/server-bootstrap", 403}, // it opens nothing else
		{"127.0.0.1:1", nobody, "/v1-rke2/encrypt/status", 403},
	} {
		if w := b.from(c.address, c.path, c.who); w.Code != c.code {
			t.Errorf("%s from %s as %q: got %d %s, want %d", c.path, c.address, c.who.user, w.Code, w.Body, c.code)
		}
	}
}

// TestBudgets: an etcd or kube-apiserver that is silent holds an answer no longer than RKE2's clients wait.
func TestBudgets(t *testing.T) {
	b := start(t, unlimited())
	h := b.everything(t)
	silent := func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	h.Members = func(ctx context.Context) (any, error) { return nil, silent(ctx) }
	h.APIServers = func(ctx context.Context) ([]string, error) { return nil, silent(ctx) }
	if err := b.Install(h); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, area string
		who        credential
		most       time.Duration
	}{
		{"/db/info", "db/info", credential{user: "server", password: serverPassword}, 2 * time.Second},
		{"/v1-rke2/apiservers", "apiservers", credential{user: "node", password: agentPassword}, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			w := b.from("10.0.0.9:1", c.path, c.who)
			if took := time.Since(began); w.Code != 500 || !strings.Contains(w.Body.String(), c.area+" error ID") || took != c.most {
				t.Errorf("%s: got %d %s after %s, want an error after %s", c.path, w.Code, w.Body, took, c.most)
			}
		})
	}
}
