package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"
)

// dialWebsocket opens what a node would open, and leaves the rest to the test.
func dialWebsocket(t *testing.T, a *authority, address, node string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	conf, _ := a.node(node)()
	d := websocket.Dialer{TLSClientConfig: conf, HandshakeTimeout: patience}
	ws, answer, err := d.Dial("wss://"+address+Path, nil)
	if err == nil {
		t.Cleanup(func() { _ = ws.Close() })
	}
	return ws, answer, err
}

// upgradeAndHang takes websockets and never reads nor writes.
func upgradeAndHang(t *testing.T) http.Handler {
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		<-done
	})
}

// TestAgainstRemotedialerServer is a node of ours that joined a server of RKE2.
func TestAgainstRemotedialerServer(t *testing.T) {
	a := newAuthority(t)
	bare := remotedialer.New(func(r *http.Request) (string, bool, error) {
		node, ok := strings.CutPrefix(r.TLS.PeerCertificates[0].Subject.CommonName, "system:node:")
		return node, ok && r.URL.Path == "/v1-rke2/connect", nil
	}, remotedialer.DefaultErrorWriter)
	h := a.serve("127.0.0.1:0", bare)
	port, _ := listen(t, echo)
	states, stop := client(t, Config{Server: h.address, TLS: a.node("w1"), Allow: Loopback(port)})
	want(t, states, true)
	eventually(t, "session", func() bool { return bare.HasSession("w1") })
	dial := bare.Dialer("w1")
	conn, err := dial(t.Context(), "tcp", loop(port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Fatalf("echo = %q, %v", got, err)
	}
	wrong, err := dial(t.Context(), "tcp", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Read(got); err == nil || !strings.HasPrefix(err.Error(), "connect not allowed") {
		t.Errorf("Read = %v; want connect not allowed", err)
	}
	if !bare.HasSession("w1") {
		t.Error("the refusal ended the session")
	}
	_ = conn.Close()
	stop()
	eventually(t, "no session", func() bool { return !bare.HasSession("w1") })
}

// TestAgainstRemotedialerClient is a node of RKE2 that joined a server of ours.
func TestAgainstRemotedialerClient(t *testing.T) {
	a := newAuthority(t)
	port, _ := listen(t, echo)
	s := server(t, ServerConfig{})
	h := a.serve("127.0.0.1:0", supervisor(s))
	conf, _ := a.node("w1")()
	sessions := make(chan *remotedialer.Session, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- remotedialer.ConnectToProxy(t.Context(), "wss://"+h.address+"/v1-rke2/connect", http.Header{}, Loopback(port),
			&websocket.Dialer{TLSClientConfig: conf}, func(_ context.Context, one *remotedialer.Session) error { sessions <- one; return nil })
	}()
	one := <-sessions
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	conn, err := s.Dial(t.Context(), "w1", "tcp", loop(port))
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, strings.Repeat("hello", 100_000))
	_ = conn.Close()
	// The other way round nothing is allowed: a node does not get at what listens on the server's loopback.
	back, seen := listen(t, echo)
	if _, err := one.Dial(t.Context(), "tcp", loop(back)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the tunnel of a node that wants to dial the server lives on")
	}
	eventually(t, "no tunnel", func() bool { return !s.Has("w1") })
	if seen() != 0 {
		t.Error("the server dialled for a node")
	}
}

// message is one of remotedialer's, taken apart by hand.
type message struct {
	id, conn, kind, deadline int64
	payload                  []byte
}

func decode(t *testing.T, b []byte) message {
	t.Helper()
	r := bytes.NewReader(b)
	var m message
	fields := []*int64{&m.id, &m.conn, &m.kind}
	for i := 0; i < len(fields); i++ {
		v, err := binary.ReadVarint(r)
		if err != nil {
			t.Fatalf("message %x: %v", b, err)
		}
		*fields[i] = v
		if i == 2 && (v == 1 || v == 2) {
			fields = append(fields, &m.deadline)
		}
	}
	m.payload, _ = io.ReadAll(r)
	return m
}

func encode(conn, kind int64, payload string) []byte {
	b := binary.AppendVarint(nil, 7)
	b = binary.AppendVarint(b, conn)
	b = binary.AppendVarint(b, kind)
	if kind == 1 || kind == 2 {
		b = binary.AppendVarint(b, 15000)
	}
	return append(b, payload...)
}

// TestWire checks the bytes that a server of ours sends and takes, without any code of remotedialer's at the far end.
func TestWire(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{})
	ws, _, err := dialWebsocket(t, a, a.serve("127.0.0.1:0", supervisor(s)).address, "w1")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "tunnel", func() bool { return s.Has("w1") })
	conn, err := s.Dial(t.Context(), "w1", "tcp", "127.0.0.1:10250")
	if err != nil {
		t.Fatal(err)
	}
	next := func(kind int64, payload string) message {
		t.Helper()
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		frame, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		m := decode(t, b)
		if frame != websocket.BinaryMessage || m.kind != kind || string(m.payload) != payload || (kind <= 2) != (m.deadline == 15000) {
			t.Fatalf("frame %d, message %+v (%q); want type %d with %q", frame, m, m.payload, kind, payload)
		}
		return m
	}
	send := func(b []byte) {
		t.Helper()
		if err := ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
			t.Fatal(err)
		}
	}
	id := next(2, "tcp/127.0.0.1:10250").conn
	if _, err := io.WriteString(conn, "GET"); err != nil {
		t.Fatal(err)
	}
	if m := next(1, "GET"); m.conn != id {
		t.Errorf("data of connection %d; want %d", m.conn, id)
	}
	send(encode(id, 1, "200"))
	got := make([]byte, 3)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "200" {
		t.Errorf("read %q, %v", got, err)
	}
	send(encode(id, 3, "EOF"))
	if _, err := conn.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("Read = %v; want EOF", err)
	}
	next(3, "EOF") // remotedialer answers an end in kind
	_ = conn.Close()

	other, err := s.Dial(t.Context(), "w1", "tcp", "127.0.0.1:10250")
	if err != nil {
		t.Fatal(err)
	}
	next(2, "tcp/127.0.0.1:10250")
	send(encode(0, 8, "")) // "I have no connections"
	if _, err := other.Read(got); err == nil {
		t.Error("a stream that the node does not have can be read")
	}
	send([]byte{0x80}) // half a number
	eventually(t, "a node that sends no messages is sent away", func() bool { return !s.Has("w1") })
}
