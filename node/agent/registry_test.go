package agent

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/config"
)

// An agent of a cluster with the embedded registry listens for nodes and for its own containerd, which asks it first;
// its listener goes on under renewed certificates.
func TestEmbeddedRegistry(t *testing.T) {
	c := newCluster(t, 1)
	m := newMachine(t)
	ctx := within(t)
	a, _ := m.start(t, c, func(settings *config.Config) {
		settings.PrivateRegistry = filepath.Join(m.dir, "registries.yaml")
	})
	if err := os.WriteFile(a.cfg.Settings.PrivateRegistry, []byte("mirrors: {docker.io: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	a.places.listen = "127.0.0.1:" + port
	if err := steps(t, ctx, a, joining()...); err != nil {
		t.Fatal(err)
	}
	if a.settings.EmbeddedRegistry {
		t.Fatal("the cluster has none")
	}
	if err := steps(t, ctx, a, "registry"); err != nil || a.registry != nil {
		t.Fatalf("without it: %v, %v", a.registry, err)
	}
	if err := a.registry.install(); err != nil {
		t.Errorf("nothing to install: %v", err)
	}

	a.settings.EmbeddedRegistry = true // what /v1-rke2/config says: TestDocument
	if err := steps(t, ctx, a, "registry"); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(a.agent("etc", "containerd", "certs.d", "docker.io", "hosts.toml"))
	if err != nil || !strings.Contains(string(hosts), "https://127.0.0.1:9345/v2") {
		t.Errorf("hosts.toml: %s, %v", hosts, err)
	}
	ask := func(pair *tls.Certificate, path string) int {
		t.Helper()
		pool := x509.NewCertPool()
		ca, err := os.ReadFile(a.agent("server-ca.crt"))
		if err != nil || !pool.AppendCertsFromPEM(ca) {
			t.Fatal("no authority: ", err)
		}
		settings := &tls.Config{RootCAs: pool, ServerName: "10.0.2.15"} // the fixture signs no other name
		if pair != nil {
			settings.Certificates = []tls.Certificate{*pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
		for { // the listener opens in the background
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:"+port+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(r)
			if err != nil && strings.Contains(err.Error(), "connection refused") {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			return res.StatusCode
		}
	}
	pair := func(name string) *tls.Certificate {
		t.Helper()
		p, err := tls.LoadX509KeyPair(a.agent(name+".crt"), a.agent(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return &p
	}
	for _, again := range []string{"at first", "after a renewal"} {
		for _, q := range []struct {
			name string
			pair *tls.Certificate
			path string
			code int
		}{
			{"containerd", pair("client-rke2-controller"), "/v2/", 200},
			{"a node", pair("client-kubelet"), "/v2/", 200},
			{"a node, of an image that nobody has", pair("client-kubelet"), "/v2/a/manifests/1?ns=docker.io", 404},
			{"kube-proxy", pair("client-kube-proxy"), "/v2/", 403},
			{"nobody", nil, "/v2/", 403},
			{"nobody, settings", nil, "/v1-rke2/config", 403},
		} {
			if got := ask(q.pair, q.path); got != q.code {
				t.Errorf("%s: %s: got %d, want %d", again, q.name, got, q.code)
			}
		}
		if err := a.registry.install(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(a.agent("client-ca.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.registry.install(); err == nil {
		t.Error("an authority that is none: no error")
	}
}

// freePort is one that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
