package https

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"keelson/init/metadata"
	"keelson/init/service"
	"keelson/init/source"
	"keelson/init/tlschild"
	"keelson/init/userdata"
	"keelson/node/command"
)

// TestMain is the node as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "tls" {
		os.Exit(command.Main(os.Args[1:], "test", os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func secure(t *testing.T) func(context.Context, string, userdata.CACerts) (net.Conn, error) {
	t.Helper()
	r := service.NewReaper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	program := node(t)
	child := tlschild.Config{Program: program, Reaper: r, Own: os.Getuid() != 0}
	return func(ctx context.Context, address string, trust userdata.CACerts) (net.Conn, error) {
		return child.Dial(ctx, address, tlschild.Roots{PEM: tlschild.Trusted(trust.Trusted), Alone: trust.RemoveDefaults})
	}
}

// node is this test's program where nobody, whom the child is, can reach it.
func node(t *testing.T) string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/node", data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir + "/node"
}

func seedServer(t *testing.T) (address, cert string) {
	t.Helper()
	large := strings.Repeat("# 0123456789\n", 100_000)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/seed/user-data":
			fmt.Fprintf(w, "#cloud-config\nhostname: by-https\n%s", large)
		case "/seed/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

// A seed by https, whose authority the kernel's command line cannot give but a
// volume can: what the earlier sources say is trusted for the later ones.
func TestSeedByHTTPS(t *testing.T) {
	address, cert := seedServer(t)
	dir := t.TempDir()
	ca := "#cloud-config\nca_certs:\n  remove_defaults: true\n  trusted:\n    - |\n      " + strings.ReplaceAll(strings.TrimSpace(cert), "\n", "\n      ") + "\n"
	if err := os.WriteFile(dir+"/vendor-data", []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := source.Config{
		Say:     func(line string) { t.Log(line) },
		Cmdline: "ds=nocloud;s=" + address + "/seed", Secure: secure(t),
		Volumes: func() ([]source.Volume, error) {
			return []source.Volume{{Device: "/dev/vdb", FSType: "vfat", Label: "CIDATA"}}, nil
		},
		Mount: func(source.Volume) (source.Mounted, error) {
			return source.Mounted{Dir: dir, Close: func() error { return nil }}, nil
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	docs, err := source.Collect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	config, problems := userdata.Load(docs)
	if userdata.Refused(problems) || config.Hostname != "by-https" || len(docs.User[0].Data) < 1_300_000 {
		t.Errorf("got %q %v", config.Hostname, problems)
	}
}

// Without its authority the server is not believed, and the words say what to do.
func TestUnknownAuthority(t *testing.T) {
	address, cert := seedServer(t)
	dial := secure(t)
	client := func(trust userdata.CACerts) *metadata.Client {
		return &metadata.Client{Secure: func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address, trust) }}
	}
	_, err := client(userdata.CACerts{}).Get(t.Context(), address+"/seed/user-data", nil)
	if err == nil || !strings.Contains(err.Error(), "give its authority by ca_certs") {
		t.Errorf("got %v", err)
	}
	trusting := client(userdata.CACerts{Trusted: []string{cert}})
	if _, err = trusting.Get(t.Context(), address+"/seed/away", nil); !errors.Is(err, metadata.ErrFinal) || !strings.Contains(err.Error(), "not https") {
		t.Errorf("got %v, want no way to http", err)
	}
	if _, err = trusting.Get(t.Context(), address+"/other", nil); !errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err = trusting.Get(t.Context(), "https://127.0.0.1:1/", nil); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}
