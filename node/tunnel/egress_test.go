package tunnel

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/egressselector"
)

// named is a listener that says its name and echoes.
func named(name string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, name); echo(c) }
}

// asAPIServer dials as kube-apiserver would: with its own code, from a file as EgressConfig renders it.
func asAPIServer(t *testing.T, a *authority, address string) func(target string) (net.Conn, error) {
	t.Helper()
	cert, key, ca := a.files(a.issue("system:apiserver", "system:masters"))
	file := filepath.Join(t.TempDir(), "egress.yaml")
	text := strings.Replace(string(EgressConfig(cert, key, ca)), "127.0.0.1:9345", address, 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		t.Fatal(err)
	}
	selector, err := egressselector.NewEgressSelector(conf)
	if err != nil {
		t.Fatal(err)
	}
	dial, err := selector.Lookup(egressselector.Cluster.AsNetworkContext())
	if err != nil || dial == nil {
		t.Fatalf("no way into the cluster: %v", err)
	}
	return func(target string) (net.Conn, error) {
		conn, err := dial(t.Context(), "tcp", target)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		return conn, err
	}
}

func TestEgress(t *testing.T) {
	a := newAuthority(t)
	kubelet, _ := listen(t, named("kubelet"))
	pod, _ := listen(t, named("pod"))
	closed, _ := listen(t, echo)
	for _, mode := range []string{"agent", "disabled"} {
		t.Run(mode, func(t *testing.T) {
			a := &authority{t: t, cert: a.cert, key: a.key, pool: a.pool}
			s := server(t, ServerConfig{Mode: mode, Self: "cp", Ports: []uint16{kubelet, closed}, NodeOf: func(host string) (string, bool) {
				node, ok := map[string]string{
					"w1": "w1", "192.0.2.1": "w1", "2001:db8::1": "w1", // cannot be dialled: only a tunnel leads there
					"127.0.0.1": "cp", "LocalHost": "w3", "w4.invalid": "w4",
				}[host]
				return node, ok
			}})
			h := a.serve("127.0.0.1:0", supervisor(s))
			states, _ := client(t, Config{Server: h.address, TLS: a.node("w1"), Allow: Loopback(kubelet)})
			want(t, states, true)
			eventually(t, "tunnel", func() bool { return s.Has("w1") })
			dial := asAPIServer(t, a, h.address)
			k, p := fmt.Sprint(kubelet), fmt.Sprint(pod)
			for _, c := range []struct{ name, target, want, fails string }{
				{"node by name", "w1:" + k, "kubelet", ""},
				{"node by address", "192.0.2.1:" + k, "kubelet", ""},
				{"node by IPv6 address", "[2001:db8::1]:" + k, "kubelet", ""},
				{"this machine", "127.0.0.1:" + k, "kubelet", ""},
				{"this machine, other port", "127.0.0.1:" + p, "pod", ""},
				{"a pod", "localhost:" + p, "pod", ""},
				{"node without tunnel that can be dialled", "LocalHost:" + k, "kubelet", ""},
				{"node without tunnel that cannot", "w4.invalid:" + k, "", "code 503: 503 tunnel to node w4: node has no tunnel to this server, and w4.invalid:" + k + " cannot be dialled"},
				{"nobody there", "127.0.0.2:1", "", "code 502: 502 127.0.0.2:1: "},
				{"no address", "w_1:99999", "", "code 400"},
			} {
				if mode == "disabled" && strings.HasPrefix(c.name, "node by") {
					continue // would be dialled, and the test must not wait for that
				}
				if mode == "disabled" && c.fails != "" {
					c.fails = strings.Replace(c.fails, "503: 503 tunnel to node w4: node has no tunnel to this server, and", "502: 502", 1)
					c.fails = strings.TrimSuffix(c.fails, " cannot be dialled")
				}
				conn, err := dial(c.target)
				if c.fails != "" {
					if err == nil || !strings.Contains(err.Error(), c.fails) {
						t.Errorf("%s: %v; want %q", c.name, err, c.fails)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					continue
				}
				got := make([]byte, len(c.want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != c.want {
					t.Errorf("%s: reached %q, %v; want %q", c.name, got, err, c.want)
				}
				roundTrip(t, conn, "through "+c.name)
				_ = conn.Close()
			}
		})
	}
}

// TestEgressEnds: an end on either side ends the other, and one of the supervisor ends both.
func TestEgressEnds(t *testing.T) {
	a := newAuthority(t)
	ended := make(chan struct{}, 10)
	port, _ := listen(t, func(c net.Conn) { echo(c); ended <- struct{}{} })
	brief, _ := listen(t, func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("bye", 100_000)) })
	s := server(t, ServerConfig{MaxEgress: 2})
	h := a.serve("127.0.0.1:0", supervisor(s))
	dial := asAPIServer(t, a, h.address)
	conn, err := dial(loop(brief))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || len(got) != 300_000 {
		t.Errorf("read %d bytes, %v; want all that was sent", len(got), err)
	}
	if conn, err = dial(loop(port)); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, "x")
	_ = conn.Close()
	want(t, ended, struct{}{})
	eventually(t, "both have left", func() bool { return len(s.egress) == 0 })
	for range 2 {
		if conn, err = dial(loop(port)); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, conn, "x")
	}
	if _, err := dial(loop(port)); err == nil || !strings.Contains(err.Error(), "503 too many connections") {
		t.Errorf("third connection: %v; want 503", err)
	}
	h.quit()
	want(t, ended, struct{}{})
	want(t, ended, struct{}{})
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the supervisor")
	}
}

// TestEgressRefusals are answers that kube-apiserver never sees.
func TestEgressRefusals(t *testing.T) {
	a := newAuthority(t)
	s := server(t, ServerConfig{})
	h := a.serve("127.0.0.1:0", supervisor(s))
	for _, c := range []struct {
		request string
		code    int
	}{
		{"CONNECT 127.0.0.1:http HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"CONNECT [fe80::1%25lo]:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"CONNECT [::1] HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
		{"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n", 502},
	} {
		conn, err := tls.Dial("tcp", h.address, &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue("kube-apiserver", "system:masters")}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, c.request); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", c.request, err)
		}
		if answer.StatusCode != c.code || !answer.Close {
			t.Errorf("%q: %s, close %v; want %d", c.request, answer.Status, answer.Close, c.code)
		}
		var st status
		if err := json.NewDecoder(answer.Body).Decode(&st); c.code != 400 && (err != nil || st.Kind != "Status" || st.Code != c.code || st.Message == "") {
			t.Errorf("%q: body %+v, %v; want a Status", c.request, st, err)
		}
		if c.code == 405 && answer.Header.Get("Allow") != "CONNECT" {
			t.Errorf("405 allows %q", answer.Header.Get("Allow"))
		}
		_ = conn.Close()
	}
}

func TestPhrase(t *testing.T) {
	for in, want := range map[string]string{
		"plain text": "plain text", "a\r\nSet-Cookie: x": "a  Set-Cookie: x", "ü\x1b": "  ", strings.Repeat("x", 400): strings.Repeat("x", 300),
	} {
		if got := phrase(in); got != want {
			t.Errorf("phrase(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestRefuseWithoutConnection(t *testing.T) {
	w := &plainWriter{header: http.Header{}}
	refuse(w, http.StatusServiceUnavailable, "why")
	if w.code != 503 || w.header.Get("Connection") != "close" || !strings.Contains(w.body, `"message":"why"`) {
		t.Errorf("answer %+v", w)
	}
}

// plainWriter cannot be hijacked.
type plainWriter struct {
	header http.Header
	code   int
	body   string
}

func (w *plainWriter) Header() http.Header { return w.header }

func (w *plainWriter) WriteHeader(code int) { w.code = code }

func (w *plainWriter) Write(b []byte) (int, error) { w.body += string(b); return len(b), nil }
