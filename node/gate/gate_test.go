package gate

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// upper is a server that answers each line in capitals; it counts what it accepted.
func upper(t *testing.T) (addr string, accepted chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted = make(chan struct{}, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					io.WriteString(c, strings.ToUpper(s.Text())+"\n")
				}
				io.WriteString(c, "bye\n")
			}()
		}
	}()
	return l.Addr().String(), accepted
}

func start(t *testing.T, target string, ready <-chan struct{}) (*Gate, func()) {
	t.Helper()
	return startWith(t, Config{Target: target, Ready: ready})
}

func startWith(t *testing.T, c Config) (*Gate, func()) {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil after cancel", err)
		}
	}
	return g, stop
}

func dial(t *testing.T, g *Gate) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestGateHoldsUntilReady(t *testing.T) {
	target, accepted := upper(t)
	ready := make(chan struct{})
	g, stop := start(t, target, ready)
	defer stop()
	c := dial(t, g)
	if _, err := io.WriteString(c, "held\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-accepted:
		t.Fatal("the connection reached the server before it was ready")
	default:
	}
	close(ready)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "HELD\n" {
		t.Errorf("got %q, %v; want HELD", line, err)
	}
}

func TestGateKeepsHalfClosedConnections(t *testing.T) {
	target, _ := upper(t)
	ready := make(chan struct{})
	close(ready)
	g, stop := start(t, target, ready)
	defer stop()
	c := dial(t, g)
	io.WriteString(c, "one\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "ONE\nbye\n" {
		t.Errorf("got %q, %v; want the answer and the farewell", got, err)
	}
}

func TestGateStopsWithHeldConnections(t *testing.T) {
	g, stop := start(t, "127.0.0.1:1", make(chan struct{}))
	c := dial(t, g)
	io.WriteString(c, "x\n")
	stop()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the held connection is still open after Run returned")
	}
}

func TestGateClosesWhenTheServerIsGone(t *testing.T) {
	ready := make(chan struct{})
	close(ready)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	g, stop := start(t, dead, ready)
	defer stop()
	if _, err := dial(t, g).Read(make([]byte, 1)); err == nil {
		t.Error("got data from a server that is not there")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct{ name, listen, want string }{
		{"every interface", "0.0.0.0:0", "not a loopback address"},
		{"a name", "localhost:0", "not a loopback address"},
		{"no port", "127.0.0.1", "missing port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(Config{Listen: c.listen})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// Before it may be patient, nobody listens; from then on connections are held.
func TestGateListensWhenItMayBePatient(t *testing.T) {
	target, accepted := upper(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	ready, patient := make(chan struct{}), make(chan struct{})
	g, err := New(Config{Listen: address, Target: target, Ready: ready, Patient: patient})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, want a refusal", err)
	}
	close(patient)
	var c net.Conn
	for c == nil { // it opens any moment
		c, _ = net.Dial("tcp", address)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "held\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(3 * brief)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want the connection to be held", err)
	}
	close(ready)
	<-accepted
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "HELD\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// Redirected, the gate ends what it has passed on, and the next connections go elsewhere, nowhere, and back.
func TestRedirect(t *testing.T) {
	own, _ := upper(t)
	other, accepted := upper(t)
	ready := make(chan struct{})
	close(ready)
	g, stop := start(t, own, ready)
	defer stop()
	says := func(c *net.TCPConn) (string, error) {
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return "", err
		}
		return bufio.NewReader(c).ReadString('\n')
	}
	before := dial(t, g)
	if line, err := says(before); err != nil || line != "HELLO\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	g.Redirect(other)
	if _, err := before.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of before goes on")
	}
	if line, err := says(dial(t, g)); err != nil || line != "HELLO\n" {
		t.Errorf("elsewhere: got %q, %v", line, err)
	}
	<-accepted
	g.Redirect("")
	c := dial(t, g)
	if _, err := says(c); err != io.EOF {
		t.Errorf("nowhere: got %v, want the connection to end in good order", err)
	}
	g.Redirect(own)
	g.Redirect(own)
	if line, err := says(dial(t, g)); err != nil || line != "HELLO\n" {
		t.Errorf("back: got %q, %v", line, err)
	}
	select {
	case <-accepted:
		t.Error("the other target has got it")
	default:
	}
}
