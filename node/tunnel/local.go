package tunnel

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// gate dials for a session what its server asks for, if allowed.
//
// remotedialer ends the whole session when its authorizer says no ("connect not allowed", v0.6.1 session_serve.go), and
// with it everybody's streams. So its authorizer lets everything pass and the gate refuses: the one stream gets the
// error, nothing was dialled, the tunnel stays.
type gate struct {
	session context.Context // ends with the session; the context of dial ends with the dialling
	allow   func(network, address string) bool
	refused func(network, address string)
	streams *streams
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !g.allow(network, address) {
		g.refused(network, address)
		return nil, fmt.Errorf("connect not allowed: %s %s", network, address)
	}
	if err := g.streams.enter(); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		g.streams.leave()
		return nil, err
	}
	c := &local{Conn: conn}
	c.mu.Lock() // the session may end right now, and Close needs leave
	stop := context.AfterFunc(g.session, func() { _ = c.Close() })
	c.leave = func() { stop(); g.streams.leave() }
	c.mu.Unlock()
	return c, nil
}

// local is a connection to the kubelet that remotedialer copies to and from a tunnel.
//
// remotedialer's copying to the tunnel waits for the other side to resume a paused stream, and neither the end of the
// stream nor that of the session wakes it (v0.6.1 back_pressure.go: only connection.Close does, and that comes after the
// copying): each such stream would leak two goroutines and a connection. io.Copy lets its source do the copying
// (io.WriterTo), so local learns what it writes to, and closes that together with itself.
type local struct {
	net.Conn
	leave func()

	mu      sync.Mutex
	closed  bool
	copying bool
	far     io.Closer // the tunnel's connection while WriteTo runs
}

// WriteTo copies what the kubelet sends to w until either ends.
func (l *local) WriteTo(w io.Writer) (int64, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, net.ErrClosed
	}
	l.copying = true
	l.far, _ = w.(io.Closer)
	l.mu.Unlock()
	n, err := io.Copy(w, l.Conn)
	l.mu.Lock()
	l.copying, l.far = false, nil
	left := l.closed
	l.mu.Unlock()
	if left {
		l.leave()
	}
	return n, err
}

// Close ends the connection, and the copying if it still runs.
func (l *local) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	far, copying := l.far, l.copying
	l.mu.Unlock()
	err := l.Conn.Close()
	if far != nil {
		_ = far.Close()
	}
	if !copying {
		l.leave()
	}
	return err
}
