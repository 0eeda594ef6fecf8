package certificate

import (
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/storetest"
	"keelson/node/succession"
	"keelson/node/token"
	"keelson/node/trust"
)

// cluster is a server that answers what a rotation asks, with the record in memory.
type cluster struct {
	store *storetest.Memory
	force string
	bare  bool // answers without a Status
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != token.UserServer || password != "pass" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1-rke2/readyz":
		io.WriteString(w, "ok")
	case "GET /v1-rke2/server-bootstrap":
		d, err := bootstrapdata.Load(r.Context(), c.store, "pass")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		plain, _ := d.Encode()
		w.Write(plain)
	case "PUT /v1-rke2/cert/cacerts":
		c.force = r.URL.Query().Get("force")
		plain, _ := io.ReadAll(r.Body)
		if _, err := succession.Apply(r.Context(), c.store, "pass", plain, start().Add(time.Hour), c.force != ""); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			if !c.bare {
				io.WriteString(w, `{"kind":"Status","message":"refuse new authorities: they are not heirs"}`)
			}
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// serve starts a cluster with the files of a server and gives an operator's access to it.
func serve(t *testing.T) (*cluster, string, trust.Access) {
	t.Helper()
	dir := filepath.Join(machine(t), "server")
	c := &cluster{store: &storetest.Memory{}}
	if _, err := bootstrapdata.Sync(t.Context(), c.store, "pass", dir); err != nil {
		t.Fatal(err)
	}
	var s *httptest.Server
	mux := http.NewServeMux()
	mux.Handle("/", c)
	mux.HandleFunc("/cacerts", func(w http.ResponseWriter, _ *http.Request) {
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	})
	s = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	access, err := trust.Validate(t.Context(), trust.Config{
		Server: s.URL, Token: "pass", User: token.UserServer, PinFile: filepath.Join(t.TempDir(), "pin"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, dir, access
}

func TestMadeAuthoritiesReachTheRecord(t *testing.T) {
	c, _, access := serve(t)
	next, err := MakeAuthorities(t.Context(), access, start().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := Rotate(t.Context(), access, next, false); err != nil {
		t.Fatal(err)
	}
	record, err := bootstrapdata.Load(t.Context(), c.store, "pass")
	if err != nil || record.Generation() != 2 || string(record["ServerCA"].Content) != string(next["ServerCA"].Content) {
		t.Errorf("the record is of generation %d, %v; want 2, with the new authorities", record.Generation(), err)
	}
	if c.force != "" {
		t.Error("it was forced")
	}
	if err := Rotate(t.Context(), access, next, true); err != nil || c.force != "true" {
		t.Errorf("with force: %v, asked with %q", err, c.force)
	}
}

func TestRefusalIsToldInTheServersWords(t *testing.T) {
	c, _, access := serve(t)
	foreign, err := LoadAuthorities(filepath.Join(machine(t), "server", "tls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Rotate(t.Context(), access, foreign, false); err == nil || !strings.Contains(err.Error(), "400 Bad Request: refuse new authorities: they are not heirs") {
		t.Errorf("got %v", err)
	}
	c.bare = true
	if err := Rotate(t.Context(), access, foreign, false); err == nil || !strings.Contains(err.Error(), "cert/cacerts: 400 Bad Request: no reason given") {
		t.Errorf("without words: got %v", err)
	}
}

func TestLoadAuthorities(t *testing.T) {
	tls := filepath.Join(machine(t), "server", "tls")
	next, err := LoadAuthorities(tls)
	if err != nil || len(next) != 11 {
		t.Fatalf("got %d files, %v, want five pairs and the service key", len(next), err)
	}
	for _, name := range []string{"client-ca.crt", "client-ca.key"} {
		if err := os.Remove(filepath.Join(tls, name)); err != nil {
			t.Fatal(err)
		}
	}
	if next, err = LoadAuthorities(tls); err != nil || len(next) != 9 {
		t.Errorf("got %d files, %v, want what is there", len(next), err)
	}
	if _, err := LoadAuthorities(t.TempDir()); err == nil || !strings.Contains(err.Error(), "laid out as") {
		t.Errorf("empty folder: got %v", err)
	}
	if err := os.Mkdir(filepath.Join(tls, "client-ca.crt"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthorities(tls); err == nil || !strings.Contains(err.Error(), "client-ca.crt") {
		t.Errorf("unreadable: got %v", err)
	}
}
