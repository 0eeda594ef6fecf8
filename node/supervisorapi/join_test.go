package supervisorapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/encryption"
	"keelson/node/pki"
	"keelson/node/token"
)

// TestOutsiderWithTheTokenJoins does what a joining server does, with nothing but the text of the token file: it
// pins the CA, takes the bootstrap data, and has every authority of the cluster on its own disk.
func TestOutsiderWithTheTokenJoins(t *testing.T) {
	first := filepath.Join(t.TempDir(), "server")
	passwords, err := token.EnsurePasswd(first, "", "agents-only", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encryption.Ensure(first, "aescbc"); err != nil {
		t.Fatal(err)
	}
	p := pki.Params{ServerDir: first, AgentDir: first + "/../agent", NodeName: "first", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ClusterDomain: "cluster.local"}
	if _, err := pki.Ensure(p); err != nil {
		t.Fatal(err)
	}
	bundle := readFile(t, filepath.Join(first, "tls/server-ca.crt"))
	if err := token.EnsureFiles(first, bundle, passwords); err != nil {
		t.Fatal(err)
	}
	store := &storetest.Memory{}
	if _, err := bootstrapdata.Sync(t.Context(), store, passwords.Server, first); err != nil {
		t.Fatal(err)
	}
	url := serveCluster(t, p, bundle, store)

	// From here on, the outsider.
	full, err := token.Parse(token.Secret(strings.TrimSpace(string(readFile(t, filepath.Join(first, "token"))))))
	if err != nil {
		t.Fatal(err)
	}
	cacerts := get(t, &tls.Config{InsecureSkipVerify: true}, url+"/cacerts", "", "")
	if hash, err := token.CAHash(cacerts); err != nil || hash != full.CAHash {
		t.Fatalf("CA hash is %s, %v; the token says %s", hash, err, full.CAHash)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cacerts)
	data, err := bootstrapdata.Decode(get(t, &tls.Config{RootCAs: pool}, url+"/v1-rke2/server-bootstrap", full.User, full.Password.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "server")
	if _, err := bootstrapdata.Reconcile(second, data); err != nil {
		t.Fatal(err)
	}
	for _, e := range bootstrapdata.Entries() {
		if got, want := readFile(t, filepath.Join(second, e.Path)), readFile(t, filepath.Join(first, e.Path)); string(got) != string(want) {
			t.Errorf("%s differs", e.Path)
		}
	}
	p.ServerDir, p.AgentDir, p.NodeName, p.ClusterExists = second, second+"/../agent", "second", true
	if _, err := pki.Ensure(p); err != nil {
		t.Errorf("certificates of the second server: %v", err)
	}
	kubelet, err := tls.LoadX509KeyPair(p.AgentDir+"/client-kubelet.crt", p.AgentDir+"/client-kubelet.key")
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{kubelet}}
	if got := get(t, conf, url+"/v1-rke2/readyz", "", ""); string(got) != "ok" {
		t.Errorf("readyz with the second server's kubelet certificate: %q", got)
	}
}

func serveCluster(t *testing.T, p pki.Params, bundle []byte, store bootstrapdata.Store) string {
	t.Helper()
	serving, err := pki.NewServing(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Certificate: serving.Certificate, ClientCA: readFile(t, filepath.Join(p.ServerDir, "tls/client-ca.crt")), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	users, err := token.LoadPasswd(filepath.Join(p.ServerDir, "cred/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Install(Handlers{CACerts: bundle, Users: users,
		Ready:      func() bool { return true },
		APIServers: func(context.Context) ([]string, error) { return nil, nil },
		Bootstrap: func(ctx context.Context, password token.Secret) ([]byte, error) {
			return bootstrapdata.Serve(ctx, store, password, p.ServerDir)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, s)
}

func get(t *testing.T, conf *tls.Config, url, user, password string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	tr := &http.Transport{TLSClientConfig: conf}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %d %s %v", url, res.StatusCode, body, err)
	}
	return body
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRunNeedsItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := start(t, unlimited())
	b.config.Address = l.Addr().String()
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}
