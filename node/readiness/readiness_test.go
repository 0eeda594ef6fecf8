package readiness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func server(t *testing.T, h http.HandlerFunc) Config {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return Config{URL: s.URL, TLS: &tls.Config{RootCAs: pool}}
}

func TestWaitReturnsWhenReady(t *testing.T) {
	var asked atomic.Int32
	cfg := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("path: got %s, want /readyz", r.URL.Path)
		}
		if asked.Add(1) < 3 {
			http.Error(w, "[-]etcd failed", http.StatusInternalServerError)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := Wait(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if got := asked.Load(); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
}

func TestWaitKeepsOneConnection(t *testing.T) {
	peers := make(chan string, 8)
	var asked atomic.Int32
	cfg := server(t, func(w http.ResponseWriter, r *http.Request) {
		peers <- r.RemoteAddr
		if asked.Add(1) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if err := Wait(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	first := <-peers
	for range 3 {
		if next := <-peers; next != first {
			t.Errorf("asked from %s after %s, want the same connection", next, first)
		}
	}
}

func TestWaitSaysWhatTheServerLacked(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	shutdown := errors.New("shutting down")
	cfg := server(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "[-]poststarthook/rbac failed", http.StatusInternalServerError)
		cancel(shutdown)
	})
	err := Wait(ctx, cfg)
	if !errors.Is(err, shutdown) {
		t.Errorf("got %v, want the cause of the end", err)
	}
}

func TestWaitTrustsOnlyTheGivenAuthority(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	cfg := server(t, func(http.ResponseWriter, *http.Request) {})
	cfg.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	err := Wait(ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want a certificate error", err)
	}
}
