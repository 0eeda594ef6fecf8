package tunnel

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestPausedStream: a reader that stops makes the far side pause, holds up nobody else, and when it leaves, all that
// belonged to its stream ends. remotedialer alone would keep the paused copying, with its connection, for ever.
func TestPausedStream(t *testing.T) {
	a := newAuthority(t)
	for _, end := range []string{"stream", "client", "server"} {
		t.Run(end, func(t *testing.T) {
			a := &authority{t: t, cert: a.cert, key: a.key, pool: a.pool}
			stalled, ended := make(chan struct{}), make(chan struct{})
			port, _ := listen(t, func(c net.Conn) {
				// Paused is when a write to the full connection does not get on.
				b, once := make([]byte, 64<<10), true
				for {
					_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
					_, err := c.Write(b)
					if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
						if once {
							close(stalled)
							once = false
						}
						continue
					}
					if err != nil {
						close(ended)
						return
					}
				}
			})
			other, _ := listen(t, echo)
			s := server(t, ServerConfig{})
			h := a.serve("127.0.0.1:0", supervisor(s))
			allow := Loopback(port, other)
			states, stop := client(t, Config{Server: h.address, TLS: a.node("w1"), Allow: allow})
			want(t, states, true)
			eventually(t, "tunnel", func() bool { return s.Has("w1") })
			conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			want(t, stalled, struct{}{})
			beside, err := s.Dial(t.Context(), "w1", "tcp", loop(other))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, beside, "beside a stream that is paused")
			switch end {
			case "stream":
				_ = conn.Close()
			case "client":
				stop() // returns with everything ended
			case "server":
				h.kill()
			}
			want(t, ended, struct{}{})
		})
	}
}

// TestSlowNode: a node that reads nothing is given up when a write hangs, and with it the streams that wait.
func TestSlowNode(t *testing.T) {
	far, near := net.Pipe() // has no buffer at all
	defer far.Close()
	l := &line{Conn: near}
	l.start(time.Minute, 50*time.Millisecond)
	reading := make(chan error, 1)
	go func() { _, err := l.Read(make([]byte, 1)); reading <- err }()
	_, err := l.Write([]byte("x"))
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Errorf("Write = %v; want a timeout", err)
	}
	select {
	case err := <-reading:
		if err == nil {
			t.Error("the reader of a line that was given up got a byte")
		}
	case <-time.After(patience):
		t.Error("the reader of a line that was given up waits")
	}
}

func TestLineKeepsItsDeadlines(t *testing.T) {
	far, near := net.Pipe()
	defer far.Close()
	l := &line{Conn: near}
	past := time.Now().Add(-time.Second)
	if err := l.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(make([]byte, 1)); err == nil {
		t.Error("the deadline of the handshake does not count")
	}
	l.start(patience, patience)
	for _, set := range []func(time.Time) error{l.SetDeadline, l.SetReadDeadline, l.SetWriteDeadline} {
		if err := set(past); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = far.Write([]byte("x")) }()
	if _, err := l.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read = %v; others' deadlines must not count", err)
	}
	go func() { _, _ = far.Read(make([]byte, 1)) }()
	if _, err := l.Write([]byte("x")); err != nil {
		t.Errorf("Write = %v; others' deadlines must not count", err)
	}
}

// TestSilentNode is a node that loses power.
func TestSilentNode(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{Silence: 150 * time.Millisecond})
	if _, _, err := dialWebsocket(t, a, a.serve("127.0.0.1:0", supervisor(s)).address, "w1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	conn, err := s.Dial(t.Context(), "w1", "tcp", "127.0.0.1:10250")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived its silent node")
	}
	eventually(t, "no tunnel", func() bool { return !s.Has("w1") })
}
