package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestNewServer(t *testing.T) {
	nodeOf := func(string) (string, bool) { return "", false }
	for _, c := range []struct {
		config ServerConfig
		err    string
	}{
		{ServerConfig{NodeOf: nodeOf}, ""},
		{ServerConfig{NodeOf: nodeOf, Mode: "agent"}, ""},
		{ServerConfig{NodeOf: nodeOf, Mode: "disabled"}, ""},
		{ServerConfig{NodeOf: nodeOf, Mode: "cluster"}, `egress-selector-mode "cluster" is not supported: write agent or disabled`},
		{ServerConfig{NodeOf: nodeOf, Mode: "pod"}, `"pod" is not supported`},
		{ServerConfig{}, "NodeOf must be set"},
	} {
		_, err := NewServer(c.config)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("NewServer(mode %q) = %v; want %q", c.config.Mode, err, c.err)
		}
	}
}

func TestTooManyTunnels(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{MaxSessions: 2})
	h := a.serve("127.0.0.1:0", supervisor(s))
	first, _, err := dialWebsocket(t, a, h.address, "w1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := dialWebsocket(t, a, h.address, "w2"); err != nil {
		t.Fatal(err)
	}
	_, answer, err := dialWebsocket(t, a, h.address, "w3")
	if !errors.Is(err, websocket.ErrBadHandshake) || answer.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("third tunnel: %v, %v; want 503", answer, err)
	}
	body, _ := io.ReadAll(answer.Body)
	var st status
	if err := json.Unmarshal(body, &st); err != nil || st.Kind != "Status" || st.Code != 503 || !strings.Contains(st.Message, "2 tunnels") {
		t.Errorf("body %q; want a Status that says why (%v)", body, err)
	}
	_ = first.Close()
	eventually(t, "a place is free", func() bool { return !s.Has("w1") })
	eventually(t, "w3 gets it", func() bool {
		_, _, err := dialWebsocket(t, a, h.address, "w3")
		return err == nil
	})
}

// TestTunnelsOfOneNode: the newest is used, for the others may be left from before a power cut; and they are bounded.
func TestTunnelsOfOneNode(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{MaxPerNode: 2})
	h := a.serve("127.0.0.1:0", supervisor(s))
	count := func(n int) func() bool {
		return func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.nodes["w1"]) == n }
	}
	open := func(n int) *websocket.Conn {
		ws, _, err := dialWebsocket(t, a, h.address, "w1")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "another tunnel", count(n))
		return ws
	}
	first := open(1)
	second := open(2)
	asked(t, s, second)
	third, _, err := dialWebsocket(t, a, h.address, "w1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.ReadMessage(); err == nil {
		t.Error("the oldest tunnel lives on")
	}
	eventually(t, "two are left", count(2))
	asked(t, s, third)
	_ = third.Close()
	eventually(t, "one is left", count(1))
	asked(t, s, second)
	if !s.Has("w1") {
		t.Error("the node has lost its tunnel")
	}
}

// asked opens a stream, and wants the node to be asked through ws; what earlier streams left there is skipped.
func asked(t *testing.T, s *Server, ws *websocket.Conn) {
	t.Helper()
	conn, err := s.Dial(t.Context(), "w1", "tcp", "127.0.0.1:10250")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if decode(t, b).kind == 2 {
			return
		}
	}
}

func TestHugeMessage(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{Silence: time.Hour})
	ws, _, err := dialWebsocket(t, a, a.serve("127.0.0.1:0", supervisor(s)).address, "w1")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	_ = ws.WriteMessage(websocket.BinaryMessage, encode(0, 8, strings.Repeat("x", maxMessage))) // may be cut while it writes
	eventually(t, "no tunnel", func() bool { return !s.Has("w1") })
}

func TestNoWebsocket(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{})
	h := a.serve("127.0.0.1:0", supervisor(s))
	conf, _ := a.node("w1")()
	c := http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	answer, err := c.Get("https://" + h.address + Path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "websocket") {
		t.Errorf("GET = %s %q; want 400 and why", answer.Status, body)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := &streams{most: 2}
	for range 2 {
		if err := s.enter(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.enter(); !errors.Is(err, errStreams) {
		t.Errorf("third stream: %v; want %v", err, errStreams)
	}
	s.leave()
	if err := s.enter(); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	ended := make(chan struct{})
	go func() { s.end(); close(ended) }()
	eventually(t, "nobody gets in any more", func() bool { return errors.Is(s.enterAndLeave(), errEnded) })
	select {
	case <-ended:
		t.Error("end did not wait")
	default:
	}
	s.leave()
	s.leave()
	want(t, ended, struct{}{})
}

func (s *streams) enterAndLeave() error {
	err := s.enter()
	if err == nil {
		s.leave()
	}
	return err
}

// TestStreamsOfATunnel: a server that asks for more than a node carries gets an error for each, from the node.
func TestStreamsOfATunnel(t *testing.T) {
	a := newAuthority(t)
	port, seen := listen(t, echo)
	s := server(t, ServerConfig{})
	states, _ := client(t, Config{Server: a.serve("127.0.0.1:0", supervisor(s)).address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	for range maxStreams {
		if _, err := s.Dial(t.Context(), "w1", "tcp", loop(port)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Dial(t.Context(), "w1", "tcp", loop(port)); !errors.Is(err, errStreams) {
		t.Errorf("Dial = %v; want %v", err, errStreams)
	}
	eventually(t, "all are dialled", func() bool { return seen() == maxStreams })
}

// TestDialAtTheEnd: a session that ends while its server's wish is dialled leaves no connection behind.
func TestDialAtTheEnd(t *testing.T) {
	port, _ := listen(t, echo)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	g := &gate{session: ended, allow: Loopback(port), streams: &streams{most: 1}, refused: func(string, string) {}}
	for range 200 {
		conn, err := g.dial(t.Context(), "tcp", loop(port))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "its place is free again", func() bool { g.streams.mu.Lock(); defer g.streams.mu.Unlock(); return g.streams.open == 0 })
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("Read = %v; want a closed connection", err)
		}
		if _, err := conn.(io.WriterTo).WriteTo(io.Discard); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("WriteTo = %v; want a closed connection", err)
		}
	}
	g.streams.end()
	if _, err := g.dial(t.Context(), "tcp", loop(port)); !errors.Is(err, errEnded) {
		t.Errorf("dial = %v; want %v", err, errEnded)
	}
}
