// Package gate is the door between a server's own clients and its kube-apiserver: a TCP listener on loopback that
// holds connections until the apiserver is ready, then passes them on.
//
// It exists for speed: a client that is refused (kubelet's registration, any informer) backs off, up to 7 s and 30 s,
// long after the server has come up; a client that is held goes on in the instant of readiness. A kubelet that finds
// volumes of an earlier boot is the exception: between two rounds of mounting it asks for its Node, so that holding it
// would keep etcd's own pod from starting. For that time the gate does not listen: a connection that is
// ended, in whatever way, is tried again by itself for ten seconds, one that is refused is not.
//
// It never looks into a connection: TLS stays end to end. Its readiness comes from node/server; kubelet and kube-proxy
// are its users.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A held connection costs two file descriptors at most; local clients hold a handful.
const maxConnections = 1024

// dialTimeout bounds a connection attempt to an apiserver on this machine.
const dialTimeout = 5 * time.Second

// brief is how long the first bytes of a connection are awaited that is to be closed.
const brief = 250 * time.Millisecond

// Config says where to listen and where to.
type Config struct {
	Listen string          // loopback address, such as 127.0.0.1:6444
	Target string          // the apiserver, such as 127.0.0.1:6443
	Ready  <-chan struct{} // closed when Target serves
	// Patient is closed when connections may be held until Target serves, and the gate listens; nil: from the start
	// (kubelet's volume reconciler, updateReconstructedFromNodeStatus).
	Patient <-chan struct{}
	Log     *slog.Logger
}

// Gate is the listener.
type Gate struct {
	cfg      Config
	listener net.Listener
	slots    chan struct{}

	mu     sync.Mutex // guards what follows
	target string     // where connections go; empty: nowhere
	passed map[net.Conn]bool
}

// New opens the listener, so that clients may be started as soon as it returns; with Patient, Run opens it.
func New(cfg Config) (*Gate, error) {
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("gate address %q: %w", cfg.Listen, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("gate address %q: not a loopback address", cfg.Listen)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{cfg: cfg, slots: make(chan struct{}, maxConnections), target: cfg.Target, passed: map[net.Conn]bool{}}
	if cfg.Patient != nil {
		return g, nil
	}
	return g, g.open()
}

func (g *Gate) open() error {
	listener, err := net.Listen("tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	g.listener = listener
	return nil
}

// Addr is where the gate listens, once New has opened it.
func (g *Gate) Addr() net.Addr { return g.listener.Addr() }

// Redirect has connections go to another target from now on, or nowhere while it is empty, and ends those that there
// are: their clients, who find that target, must not wait for one that is about to go.
func (g *Gate) Redirect(target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.target == target {
		return
	}
	g.target = target
	for conn := range g.passed {
		conn.Close()
	}
	clear(g.passed)
}

// Target is where connections go; empty: nowhere.
func (g *Gate) Target() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.target
}

// Connections is how many are passed on now.
func (g *Gate) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.passed)
}

// enter notes a connection to be passed on, and tells where to; ok is false for nowhere.
func (g *Gate) enter(client net.Conn) (target string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.target == "" {
		return "", false
	}
	g.passed[client] = true
	return g.target, true
}

func (g *Gate) leave(client net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.passed, client)
}

// Run passes connections on until ctx is done, then closes all of them and returns.
func (g *Gate) Run(ctx context.Context) error {
	if g.listener == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-g.cfg.Patient:
		case <-g.cfg.Ready:
		}
		if err := g.open(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { g.listener.Close() })()
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("gate: %w", err)
			}
			g.cfg.Log.Warn("accept", "error", err)
			continue
		}
		select {
		case g.slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		group.Go(func() {
			defer func() { <-g.slots }()
			defer conn.Close()
			if err := g.pass(ctx, conn); err != nil {
				g.cfg.Log.Debug("connection", "error", err)
			}
		})
	}
}

// pass holds client until the target is ready, then copies both ways until either side ends.
func (g *Gate) pass(ctx context.Context, client net.Conn) error {
	if !g.hold(ctx) {
		return nil
	}
	target, ok := g.enter(client)
	if !ok {
		listen(client)
		return nil
	}
	defer g.leave(client)
	dialer := net.Dialer{Timeout: dialTimeout}
	server, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		listen(client)
		return fmt.Errorf("dial %s: %w", target, err)
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()

	var back sync.WaitGroup
	back.Go(func() { copyHalf(client, server) })
	copyHalf(server, client)
	back.Wait()
	return nil
}

// hold returns when the target is ready, or false when the connection is to be closed before.
func (g *Gate) hold(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-g.cfg.Ready:
		return true
	}
}

// listen hears what a client says first, before its connection is closed. Closed with these bytes unread it would be
// reset, which clients take for a passing fault and try again on the spot, for ten seconds.
func listen(client net.Conn) {
	_ = client.SetReadDeadline(time.Now().Add(brief))
	_, _ = client.Read(make([]byte, 16<<10)) // the most that a TLS client says before it is answered
}

// copyHalf copies until src ends and then ends dst's writing side, so that a half-closed connection stays whole.
func copyHalf(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(*net.TCPConn); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	dst.Close()
	src.Close()
}
