package tunnel

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestStreamThroughTunnel(t *testing.T) {
	a := newAuthority(t)
	ended := make(chan struct{}, 1)
	port, _ := listen(t, func(c net.Conn) { echo(c); ended <- struct{}{} })
	s := server(t, ServerConfig{})
	states, stop := client(t, Config{Server: a.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "w1 has a tunnel", func() bool { return s.Has("w1") })
	if s.Has("w2") {
		t.Error("w2 has a tunnel")
	}
	conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, "hello")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	want(t, ended, struct{}{}) // the kubelet's side sees the end
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a closed stream can be read")
	}
	stop()
	eventually(t, "the tunnel is gone", func() bool { return !s.Has("w1") })
	if _, err := s.Dial(t.Context(), "w1", "tcp", loop(port)); !errors.Is(err, ErrNoTunnel) {
		t.Errorf("Dial = %v; want ErrNoTunnel", err)
	}
	select {
	case up := <-states:
		t.Errorf("OnState(%v) of an end that was asked for", up)
	default:
	}
}

func TestManyStreams(t *testing.T) {
	a := newAuthority(t)
	port, _ := listen(t, echo)
	s := server(t, ServerConfig{})
	states, stop := client(t, Config{Server: a.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			data := make([]byte, 300<<10)
			src := rand.NewChaCha8([32]byte{byte(i)})
			_, _ = src.Read(data)
			conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			wg.Go(func() {
				if _, err := conn.Write(data); err != nil {
					t.Error(err)
				}
			})
			got := make([]byte, len(data))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("stream %d: %v, equal %v", i, err, bytes.Equal(got, data))
			}
		})
	}
	wg.Wait()
	stop()
}

// TestRefusedAddress: what is not allowed is not dialled, and the tunnel and its other streams do not suffer.
func TestRefusedAddress(t *testing.T) {
	a := newAuthority(t)
	port, _ := listen(t, echo)
	secret, seen := listen(t, echo)
	s := server(t, ServerConfig{})
	states, _ := client(t, Config{Server: a.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	good, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	for _, c := range []struct{ network, address string }{
		{"tcp", loop(secret)}, {"tcp4", loop(port)}, {"tcp", strings.Replace(loop(port), "127.0.0.1", "localhost", 1)}, {"unix", "/run/x"}, {"tcp", "no address"},
	} {
		conn, err := s.Dial(t.Context(), "w1", c.network, c.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "connect not allowed") {
			t.Errorf("%s %s: Read = %v; want connect not allowed", c.network, c.address, err)
		}
		_ = conn.Close()
	}
	if n := seen(); n != 0 {
		t.Errorf("%d connections to a port that is not allowed", n)
	}
	roundTrip(t, good, "still here")
	if len(states) != 0 {
		t.Error("the tunnel went down")
	}
}

func TestServerDeath(t *testing.T) {
	for name, end := range map[string]func(*host){"cut": func(h *host) { h.kill() }, "quit": func(h *host) { h.quit() }} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			port, _ := listen(t, echo)
			s := server(t, ServerConfig{})
			h := a.serve("127.0.0.1:0", supervisor(s))
			states, _ := client(t, Config{Server: h.address, TLS: a.node("w1"), Allow: Loopback(port)})
			want(t, states, true)
			eventually(t, "tunnel", func() bool { return s.Has("w1") })
			conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, conn, "x")
			begin := time.Now()
			end(h)
			want(t, states, false)
			if d := time.Since(begin); d > time.Second {
				t.Errorf("noticed after %v; want at once", d)
			}
			eventually(t, "the server's side is gone", func() bool { return !s.Has("w1") })
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("a stream outlived its tunnel")
			}
			h.kill()
			a.serve(h.address, supervisor(s)) // it comes back
			want(t, states, true)
		})
	}
}

// TestSilentServer is a server that loses power: nothing comes, and nothing says so.
func TestSilentServer(t *testing.T) {
	a := newAuthority(t)
	h := a.serve("127.0.0.1:0", upgradeAndHang(t))
	states, stop := client(t, Config{Server: h.address, TLS: a.node("w1"), Silence: 150 * time.Millisecond})
	want(t, states, true)
	want(t, states, false)
	stop()
}

func TestHangingHandshake(t *testing.T) {
	a := newAuthority(t)
	accepted := make(chan struct{}, 100)
	port, _ := listen(t, func(c net.Conn) { accepted <- struct{}{}; _, _ = io.Copy(io.Discard, c) })
	states, stop := client(t, Config{Server: loop(port), TLS: a.node("w1")})
	want(t, accepted, struct{}{})
	begin := time.Now()
	stop()
	if d := time.Since(begin); d > handshakeTimeout/2 {
		t.Errorf("Run ended after %v; want at once", d)
	}
	if len(states) != 0 {
		t.Error("a handshake that was cut short is no state")
	}
}

// TestRenewedCertificate: the next attempt uses what TLS then gives.
func TestRenewedCertificate(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{})
	h := a.serve("127.0.0.1:0", supervisor(s))
	var mu sync.Mutex
	current := a.node("old")
	states, _ := client(t, Config{Server: h.address, TLS: func() (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return current()
	}})
	want(t, states, true)
	eventually(t, "old", func() bool { return s.Has("old") })
	mu.Lock()
	current = a.node("new")
	mu.Unlock()
	h.kill()
	want(t, states, false)
	a.serve(h.address, supervisor(s))
	want(t, states, true)
	eventually(t, "new", func() bool { return s.Has("new") && !s.Has("old") })
}

func TestNothingLeft(t *testing.T) {
	a := newAuthority(t)
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		port, _ := listen(t, echo)
		s := server(t, ServerConfig{})
		inner := &authority{t: t, cert: a.cert, key: a.key, pool: a.pool}
		states, stop := client(t, Config{Server: inner.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
		want(t, states, true)
		eventually(t, "tunnel", func() bool { return s.Has("w1") })
		for range 10 {
			conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, conn, "x")
		}
		stop()
	})
	eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before })
}

// TestDeadlines: remotedialer's own would pass the first case and fail the others.
func TestDeadlines(t *testing.T) {
	a := newAuthority(t)
	port, _ := listen(t, echo)
	s := server(t, ServerConfig{})
	states, _ := client(t, Config{Server: a.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	conn, err := s.Dial(context.Background(), "w1", "tcp", loop(port))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(-time.Second))
	if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write after the deadline = %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after the deadline = %v", err)
	}
	roundTrip(t, conn, "with a new deadline")
	until := time.Now().Add(20 * time.Millisecond)
	_ = conn.SetWriteDeadline(until)
	if _, err := conn.Write([]byte("in time")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deadline of a finished write has passed", func() bool { return time.Since(until) > 20*time.Millisecond })
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.ReadFull(conn, make([]byte, len("in time"))); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, "still open")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Read that waits = %v; want a timeout", err)
	}
	if err := conn.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetDeadline of an ended stream = %v", err)
	}
}
