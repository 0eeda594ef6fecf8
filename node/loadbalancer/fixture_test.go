package loadbalancer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// backend is a real server that answers each line with its address, and can be killed and revived.
type backend struct {
	t       testing.TB
	address string
	taken   chan struct{} // one for each connection
	mu      sync.Mutex
	listen  net.Listener
	conns   map[net.Conn]bool
	group   sync.WaitGroup
}

func startBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{t: t, address: "127.0.0.1:0", taken: make(chan struct{}, 4096)}
	b.revive()
	b.address = b.listen.Addr().String()
	t.Cleanup(b.kill)
	return b
}

func (b *backend) revive() {
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listen, b.conns = l, map[net.Conn]bool{}
	b.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			if b.listen != l {
				c.Close()
			}
			b.conns[c] = true
			b.mu.Unlock()
			b.taken <- struct{}{}
			b.group.Go(func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "%s from %s\n", s.Text(), l.Addr())
				}
				io.WriteString(c, "bye\n")
			})
		}
	})
}

// kill ends the server as a power cut seen from its own machine does: listener and connections at once.
func (b *backend) kill() {
	b.mu.Lock()
	l := b.listen
	b.listen = nil
	for c := range b.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	b.mu.Unlock()
	if l != nil {
		l.Close()
	}
	b.group.Wait()
}

// deadAddress is one where nobody listens.
func deadAddress(t testing.TB) string {
	t.Helper()
	b := startBackend(t)
	b.kill()
	return b.address
}

// start runs a load balancer; the test ends it, at the latest at its end.
func start(t testing.TB, cfg Config, change func(*Balancer)) (*Balancer, func()) {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil after cancel", err)
		}
	})
	t.Cleanup(stop)
	return b, stop
}

// client is one connection through the load balancer.
type client struct {
	*net.TCPConn
	lines *bufio.Reader
}

func connect(t testing.TB, b *Balancer) *client {
	t.Helper()
	c, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newClient(c)
}

// newClient gives up where a test would hang.
func newClient(c net.Conn) *client {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *client) ask() (string, error) {
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}

func (c *client) expect(t testing.TB, from *backend) {
	t.Helper()
	got, err := c.ask()
	if want := "hello from " + from.address + "\n"; err != nil || got != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// expectCut waits for the connection's end, however it comes.
func (c *client) expectCut(t testing.TB) {
	t.Helper()
	var timeout net.Error
	if line, err := c.lines.ReadString('\n'); err == nil {
		t.Fatalf("got %q, want the end of the connection", line)
	} else if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
}

// await waits until the servers are as wanted, "address:STATE" in the order of dialling.
func await(t testing.TB, b *Balancer, want ...string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		var got []string
		for _, s := range b.Servers() {
			got = append(got, fmt.Sprintf("%s:%s", s.Address, s.State))
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("got %v, want %v", got, want)
		case <-look.C:
		}
	}
}
