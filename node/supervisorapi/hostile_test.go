package supervisorapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestGuessing: after a handful of wrong passwords even the right one is not looked at, until time has passed.
// TestSilentConnectionsAreClosed: neither half a handshake nor half a header keeps a connection.
// TestJoinUnderFire floods the listener with wrong tokens and silent connections of other addresses; a right token
// is answered all the same. (Addresses of 127.0.0.0/8 stand for machines.)
func TestGuessing(t *testing.T) {
	limits := unlimited()
	limits.FailuresPerMinute = 5
	b := start(t, limits)
	b.install(t)
	try := func(password string) int {
		t.Helper()
		res, _ := b.do(t, credential{user: "server", password: password}, "GET", "/v1-rke2/server-bootstrap", nil)
		return res.StatusCode
	}
	if got := try(serverPassword); got != 200 {
		t.Fatalf("right at first: %d", got)
	}
	for i := range 5 {
		if got := try("wrong"); got != 401 {
			t.Fatalf("wrong %d: %d", i, got)
		}
	}
	if wrong, right := try("wrong"), try(serverPassword); wrong != 429 || right != 429 {
		t.Errorf("beyond the limit: wrong %d, right %d", wrong, right)
	}
	if res, _ := b.do(t, credential{}, "GET", "/cacerts", nil); res.StatusCode != 200 {
		t.Errorf("public path: %d", res.StatusCode)
	}
	b.clock.Add(13) // one failure is forgotten every twelve seconds
	if got := try(serverPassword); got != 200 {
		t.Errorf("after a while: %d", got)
	}
}

func TestRequestRate(t *testing.T) {
	limits := unlimited()
	limits.RequestsPerSecond, limits.RequestBurst = 0.001, 3
	b := start(t, limits)
	b.install(t)
	var got []int
	for range 5 {
		res, _ := b.do(t, credential{}, "GET", "/ping", nil)
		got = append(got, res.StatusCode)
	}
	if fmt.Sprint(got) != "[200 200 200 429 429]" {
		t.Errorf("got %v", got)
	}
}

func TestSizes(t *testing.T) {
	b := start(t, unlimited())
	b.install(t)
	agent := credential{user: "node", password: agentPassword}
	if res, _ := b.do(t, agent, "GET", "/ping", strings.NewReader(strings.Repeat("x", 65<<10))); res.StatusCode != 413 {
		t.Errorf("large body: %d", res.StatusCode)
	}
	if res, _ := b.do(t, agent, "GET", "/"+strings.Repeat("x", 17<<10), nil); res.StatusCode != 431 {
		t.Errorf("large header: %d", res.StatusCode)
	}
	if res, _ := b.do(t, agent, "GET", "/"+strings.Repeat("x", 11<<10), nil); res.StatusCode != 404 {
		t.Errorf("header within the limit: %d", res.StatusCode)
	}
}

func TestOnlyTLS13(t *testing.T) {
	b := start(t, unlimited())
	conn, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	limits := unlimited()
	limits.HeaderTimeout = 200 * time.Millisecond
	b := start(t, limits)
	address := strings.TrimPrefix(b.url, "https://")
	plain, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secure.Write([]byte("GET /ping HTTP/1.1\r\nHost: x\r\nX-")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]net.Conn{"half a handshake": plain, "half a header": secure} {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still open", name)
		}
	}
}

func TestConnectionsOfOneAddress(t *testing.T) {
	limits := unlimited()
	limits.ConnectionsPerAddress = 3
	b := start(t, limits)
	b.install(t)
	address := strings.TrimPrefix(b.url, "https://")
	dial := func() (*tls.Conn, error) {
		return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	}
	var held []*tls.Conn
	for i := range 3 {
		c, err := dial()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		held = append(held, c)
	}
	if c, err := dial(); err == nil {
		c.Close()
		t.Error("a fourth connection was served")
	}
	// The held ones still work, and one that ends makes room.
	if _, err := held[0].Write([]byte("GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(held[0]).ReadString('\n')
	if err != nil || !strings.Contains(line, "200") {
		t.Errorf("held connection: %q, %v", line, err)
	}
	held[0].Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := dial()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room after one ended: %v", err)
		}
	}
}

func TestJoinUnderFire(t *testing.T) {
	b := start(t, Limits{})
	b.install(t)
	ctx, cancel := context.WithCancel(t.Context())
	var fire sync.WaitGroup
	for i := range 8 {
		fire.Go(func() {
			from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
			tr := &http.Transport{DialContext: from.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer tr.CloseIdleConnections()
			for ctx.Err() == nil {
				if c, err := from.DialContext(ctx, "tcp", strings.TrimPrefix(b.url, "https://")); err == nil {
					defer c.Close() // held open, silent
				}
				req, _ := http.NewRequestWithContext(ctx, "GET", b.url+"/v1-rke2/server-bootstrap", nil)
				req.SetBasicAuth("server", "wrong")
				if res, err := (&http.Client{Transport: tr}).Do(req); err == nil {
					res.Body.Close()
				}
			}
		})
	}
	begin := time.Now()
	for range 10 {
		res, _ := b.do(t, credential{user: "server", password: serverPassword}, "GET", "/v1-rke2/server-bootstrap", nil)
		if res.StatusCode != 200 {
			t.Errorf("got %d", res.StatusCode)
		}
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("ten joins took %v", took)
	}
	cancel()
	fire.Wait()
}
