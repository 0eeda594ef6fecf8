package tunnel

import (
	"net"
	"sync/atomic"
	"time"
)

// line is the connection under a websocket. Once started it keeps the deadlines itself: reading fails when no byte has
// come for a while, writing when one write hangs, and either ends the connection. The deadlines that websocket and
// remotedialer set from then on are ignored: they are set without a lock, apply to whole minutes, and some writes of
// remotedialer have none (v0.6.1 wsconn.go, setupDeadline and WriteMessage).
type line struct {
	net.Conn
	silence, write atomic.Int64 // nanoseconds; 0 before start
}

// start ends the handshake's part: from here the deadlines are the line's own.
func (l *line) start(silence, write time.Duration) {
	l.silence.Store(int64(silence))
	l.write.Store(int64(write))
}

func (l *line) Read(b []byte) (int, error) {
	if d := time.Duration(l.silence.Load()); d > 0 {
		if err := l.Conn.SetReadDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	return l.Conn.Read(b)
}

func (l *line) Write(b []byte) (int, error) {
	d := time.Duration(l.write.Load())
	if d > 0 {
		if err := l.Conn.SetWriteDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	n, err := l.Conn.Write(b)
	if err != nil && d > 0 {
		_ = l.Conn.Close() // a TLS record was cut, and the reader should not wait for its own deadline
	}
	return n, err
}

func (l *line) SetDeadline(t time.Time) error {
	if l.silence.Load() > 0 {
		return nil
	}
	return l.Conn.SetDeadline(t)
}

func (l *line) SetReadDeadline(t time.Time) error {
	if l.silence.Load() > 0 {
		return nil
	}
	return l.Conn.SetReadDeadline(t)
}

func (l *line) SetWriteDeadline(t time.Time) error {
	if l.silence.Load() > 0 {
		return nil
	}
	return l.Conn.SetWriteDeadline(t)
}
