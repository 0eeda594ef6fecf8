package loadbalancer

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServing(t *testing.T) {
	code := http.StatusOK
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "https://")
	file := filepath.Join(t.TempDir(), "ca.crt")
	probe := Serving(file, "/readyz")
	if err := probe(t.Context(), address); !errors.Is(err, ErrUnknown) {
		t.Errorf("before there is an authority: got %v, want %v", err, ErrUnknown)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code  int
		works bool
	}{{200, true}, {401, true}, {404, true}, {500, false}, {503, false}} {
		code = c.code
		if err := probe(t.Context(), address); (err == nil) != c.works {
			t.Errorf("answer %d: got %v, want working: %v", c.code, err, c.works)
		}
	}
	server.Close()
	if err := probe(t.Context(), address); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("nobody there: got %v, want that it does not work", err)
	}
}
