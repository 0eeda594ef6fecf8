package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStopped is no supervisor behind the socket.
var ErrStopped = errors.New("node does not run")

// Bounds of the socket. A report is asked for by a person, or by a program every few seconds.
const (
	mostClients = 8
	headerBytes = 4 << 10
	readLimit   = 5 * time.Second
	partLimit   = 3 * time.Second // for all that is asked for one report
	writeLimit  = 10 * time.Second
	mostReport  = 1 << 20
	path        = "/status"
)

// Listen opens the socket for this user alone: in a folder that nobody else may enter, from before the socket is there.
func Listen(socket string) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open status socket: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open status socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed
		return nil, fmt.Errorf("open status socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("open status socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open status socket: %w", err), l.Close())
	}
	return &gate{Listener: l, slots: make(chan struct{}, mostClients)}, nil
}

// Open opens the socket and returns what answers on it until a context ends: nil where no socket is wanted ("") or none can
// be had. That is told and stops nobody, since a supervisor is one without it all the same.
func Open(socket string, report func(context.Context) Report, log *slog.Logger) func(context.Context) error {
	if socket == "" {
		return nil
	}
	listener, err := Listen(socket)
	if err != nil {
		log.Error("node status is not served", "error", err)
		return nil
	}
	return func(ctx context.Context) error { return Serve(ctx, listener, report, log) }
}

// Serve answers with reports until ctx ends.
func Serve(ctx context.Context, l net.Listener, report func(context.Context) Report, log *slog.Logger) error {
	return serve(ctx, l, report, log, readLimit)
}

func serve(ctx context.Context, l net.Listener, report func(context.Context) Report, log *slog.Logger, patience time.Duration) error {
	turn := make(chan struct{}, 1) // one report at a time: each asks etcd
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), partLimit)
		defer cancel()
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(report(ctx)); err != nil {
			log.Debug("status", "error", err)
		}
	})
	server := &http.Server{
		Handler: http.MaxBytesHandler(mux, 0), ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: writeLimit, IdleTimeout: patience,
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("status socket: %w", err)
	}
	return nil
}

// gate turns away clients beyond a number, and those of other users, who cannot have opened the socket themselves.
type gate struct {
	net.Listener
	slots chan struct{}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !ours(c) {
			_ = c.Close()
			continue
		}
		select {
		case g.slots <- struct{}{}:
			return &slotted{Conn: c, leave: sync.OnceFunc(func() { <-g.slots })}, nil
		default:
			_ = c.Close()
		}
	}
}

type slotted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (s *slotted) Close() error {
	s.leave()
	return s.Conn.Close()
}

// ours tells whether the process that connected is this user's (unix(7), SO_PEERCRED).
func ours(c net.Conn) bool {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && asked == nil && int(peer.Uid) == os.Geteuid()
}

// Ask reads the running supervisor's report; ErrStopped where none runs.
func Ask(ctx context.Context, socket string) (Report, error) {
	var r Report
	ctx, cancel := context.WithTimeout(ctx, readLimit+writeLimit)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path, nil)
	if err != nil {
		return r, fmt.Errorf("ask node: %w", err)
	}
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return r, ErrStopped
	case errors.Is(err, fs.ErrPermission):
		return r, fmt.Errorf("ask node: only root may: %w", err)
	case err != nil:
		return r, fmt.Errorf("ask node: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return r, fmt.Errorf("ask node: it answers %s", answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, mostReport)).Decode(&r); err != nil {
		return r, fmt.Errorf("read node's answer: %w", err)
	}
	return r, nil
}
