package tunnel

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"keelson/node/config"
)

// Egress answers CONNECT host:port as kube-apiserver sends it (HTTP/1.1, with its target in the request line and the
// Host header 127.0.0.1: k8s.io/apiserver pkg/server/egressselector, tunnelHTTPConnect). A node's kubelet is reached
// through its tunnel; pods, services, webhooks elsewhere, this machine itself and nodes without a tunnel are dialled.
//
// It checks nobody: who gets here may open any TCP connection that this machine can, so the caller lets in
// system:masters alone, which is kube-apiserver.
func (s *Server) Egress() http.Handler { return http.HandlerFunc(s.connect) }

func (s *Server) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		w.Header().Set("Allow", http.MethodConnect)
		refuse(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	host, port, err := ParseAddress(r.Host) // net/http: the target of CONNECT
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case s.egress <- struct{}{}:
		defer func() { <-s.egress }()
	default:
		refuse(w, http.StatusServiceUnavailable, "too many connections through this server")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	up, code, err := s.reach(ctx, host, port)
	cancel()
	if err != nil {
		s.config.Log.Debug("connection refused", "target", r.Host, "error", err)
		refuse(w, code, err.Error())
		return
	}
	defer up.Close()
	down, buffers, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusHTTPVersionNotSupported, "CONNECT needs HTTP/1.1")
		return
	}
	defer down.Close()
	// Nothing that hangs for hours is wrong with kubectl exec; only the answer itself has a deadline.
	_ = down.SetDeadline(time.Now().Add(writeTimeout))
	if _, err := io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	_ = down.SetDeadline(time.Time{})
	splice(r.Context(), down, buffers.Reader, up)
}

// reach finds the way to a target. The code is for the case of an error.
func (s *Server) reach(ctx context.Context, host string, port uint16) (net.Conn, int, error) {
	target := net.JoinHostPort(host, strconv.Itoa(int(port)))
	direct := func() (net.Conn, error) {
		return (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", target)
	}
	node, ok := s.config.NodeOf(host)
	if !ok || s.config.Mode == config.EgressDisabled || node == s.config.Self || !slices.Contains(s.config.Ports, port) {
		conn, err := direct()
		if err != nil {
			return nil, http.StatusBadGateway, fmt.Errorf("%s: %w", target, err)
		}
		return conn, 0, nil
	}
	// The kubelet of every node answers on its loopback, and agents allow nothing else (k3s: "always dial kubelet via
	// the loopback address").
	conn, missing := s.Dial(ctx, node, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if missing == nil {
		return conn, 0, nil
	}
	conn, err := direct()
	if err != nil {
		return nil, http.StatusServiceUnavailable, fmt.Errorf("%w, and %s cannot be dialled: %w", missing, target, err)
	}
	return conn, 0, nil
}

// splice copies both ways until one way ends, then closes both connections and waits for the other way. TLS inside
// has its own end, so nothing is lost with the way that is cut.
func splice(ctx context.Context, down net.Conn, first *bufio.Reader, up net.Conn) {
	end := func() { _ = up.Close(); _ = down.Close() }
	defer context.AfterFunc(ctx, end)()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		_, _ = io.Copy(up, first)
	}()
	_, _ = io.Copy(down, up)
	end()
	<-done
}

// status is the JSON of an error, as the other answers of the supervisor: metav1.Status.
type status struct {
	Kind       string   `json:"kind"`
	APIVersion string   `json:"apiVersion"`
	Metadata   struct{} `json:"metadata"`
	Status     string   `json:"status"`
	Message    string   `json:"message"`
	Reason     string   `json:"reason"`
	Code       int      `json:"code"`
}

// refuse answers with an error and ends the connection. Of the answer to a CONNECT kube-apiserver shows the status line
// alone, so where the connection can be had, the reason stands there too (RFC 9112 4: any text).
func refuse(w http.ResponseWriter, code int, message string) {
	body, _ := json.Marshal(status{Kind: "Status", APIVersion: "v1", Status: "Failure", Message: message,
		Reason: strings.ReplaceAll(http.StatusText(code), " ", ""), Code: code}) // strings and numbers always marshal
	body = append(body, '\n')
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		w.WriteHeader(code)
		_, _ = w.Write(body)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(writeTimeout))
	header := "Content-Type: application/json\r\n"
	for name, values := range w.Header() { // Allow, Upgrade: set by this package and the websocket's alone
		header += name + ": " + phrase(strings.Join(values, ", ")) + "\r\n"
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", code, phrase(message), header, len(body), body)
}

// phrase keeps of a text what a line of HTTP may hold.
func phrase(s string) string {
	const most = 300
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, s)
	return s[:min(len(s), most)]
}
