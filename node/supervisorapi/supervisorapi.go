// Package supervisorapi is the listener on :9345 with which nodes join a cluster: RKE2's supervisor API (k3s
// pkg/server/handlers, pkg/server/auth). It is the only listener of node itself, so all limits of a hostile network
// are kept here, in limits.go.
//
// It knows no cluster: what it answers comes from functions that node/server gives it, and until Install has given
// them every path answers 503 "starting". It never hands out a private key but inside server-bootstrap, and only to
// who proves the server token; its errors never carry details, which go to the log.
package supervisorapi

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// DefaultAddress is the address of the listener: RKE2's supervisor port on every address.
const DefaultAddress = ":9345"

// Config is what the listener needs before the cluster runs.
type Config struct {
	Address     string                           // empty: DefaultAddress
	Certificate func() (*tls.Certificate, error) // asked at every handshake, so that renewal needs no restart
	ClientCA    []byte                           // PEM bundle that client certificates must chain to
	Limits      Limits                           // zero fields: DefaultLimits
	Log         *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Server is the listener.
type Server struct {
	config    Config
	hashKey   [32]byte // keys the digests of passwords in memory
	installed atomic.Pointer[installed]
	requests  *buckets // all requests, by address
	failures  *buckets // wrong credentials, by address
	gates     gates
}

// New checks the configuration; nothing listens yet.
func New(c Config) (*Server, error) {
	if c.Certificate == nil || c.Log == nil {
		return nil, errors.New("supervisor api: Certificate and Log must be set")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(c.ClientCA) {
		return nil, errors.New("supervisor api: ClientCA holds no certificate in PEM form")
	}
	s := &Server{config: c}
	if s.config.Address == "" {
		s.config.Address = DefaultAddress
	}
	if s.config.Now == nil {
		s.config.Now = time.Now
	}
	s.config.Limits = c.Limits.withDefaults()
	l := s.config.Limits
	s.requests = newBuckets(l.RequestsPerSecond, l.RequestBurst, l.Addresses)
	s.failures = newBuckets(float64(l.FailuresPerMinute)/60, l.FailuresPerMinute, l.Addresses)
	s.gates = newGates(l)
	_, _ = rand.Read(s.hashKey[:]) // never fails (crypto/rand)
	return s, nil
}

// Install puts the handlers in place. A second call replaces them whole, for another CA or other users: requests that
// run end under the old ones, and no connection is cut.
func (s *Server) Install(h Handlers) error {
	if h.Ready == nil || h.APIServers == nil || h.Bootstrap == nil || len(h.CACerts) == 0 {
		return errors.New("supervisor api: Ready, APIServers, Bootstrap and CACerts must be set")
	}
	if len(h.ClientCA) == 0 {
		h.ClientCA = s.config.ClientCA
	}
	in := &installed{accounts: s.accounts(h.Users), clientCAs: x509.NewCertPool(), bootstrapToken: h.BootstrapToken, noEtcd: h.NoEtcd, noAPI: h.NoAPI}
	if !in.clientCAs.AppendCertsFromPEM(h.ClientCA) {
		return errors.New("supervisor api: ClientCA holds no certificate in PEM form")
	}
	in.routes, in.connect = s.routes(h), s.egress(h)
	s.installed.Store(in)
	return nil
}

// Run listens and serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Address)
	if err != nil {
		return fmt.Errorf("supervisor api: %w", err)
	}
	return s.Serve(ctx, l)
}

// Serve serves on l, which it closes, until ctx ends. Requests that run then have a few seconds to end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	const grace = 5 * time.Second
	lim := s.config.Limits
	srv := &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: lim.HeaderTimeout,
		ReadTimeout:       lim.ReadTimeout,
		WriteTimeout:      lim.WriteTimeout,
		IdleTimeout:       lim.IdleTimeout,
		// net/http reads 4 KiB beyond what it is told.
		MaxHeaderBytes: max(1, lim.HeaderBytes-4096),
		Protocols:      new(http.Protocols),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// Verified with each request: agents without one use the token. No authorities are named, so that clients
			// show what they have while one authority follows another.
			ClientAuth:     tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.config.Certificate() },
		},
		ErrorLog:    slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug), // handshakes of strangers
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withRelease,
	}
	// HTTP/1.1 alone: its timeouts are per connection, where HTTP/2's leave room for slow strangers.
	srv.Protocols.SetHTTP1(true)

	done := make(chan error, 1)
	go func() {
		done <- srv.ServeTLS(newLimitListener(l, lim.ConnectionsPerAddress, lim.Connections), "", "")
	}()
	s.config.Log.Info("supervisor api listens", "address", l.Addr().String())
	select {
	case err := <-done:
		return fmt.Errorf("supervisor api: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("supervisor api: %w", err)
	}
	return nil
}
