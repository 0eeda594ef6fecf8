package tlspipe

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func server(t *testing.T) (*httptest.Server, []byte) {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "from "+r.Host) }))
	t.Cleanup(srv.Close)
	return srv, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
}

func TestRun(t *testing.T) {
	srv, cert := server(t)
	roots, err := Roots(bytes.NewReader(cert), true)
	if err != nil {
		t.Fatal(err)
	}
	inner, mine := net.Pipe()
	var report bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), srv.Listener.Addr().String(), roots, inner, &report) }()
	io.WriteString(mine, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(mine)
	if err != nil || !strings.HasSuffix(string(answer), "\r\n\r\nfrom example.com") {
		t.Errorf("got %q %v", answer, err)
	}
	mine.Close()
	if err := <-ended; err != nil || report.String() != Connected {
		t.Errorf("got %v, report %q", err, report.String())
	}
}

// A server that the machine has no reason to trust gets nothing.
func TestRefused(t *testing.T) {
	srv, cert := server(t)
	none, err := Roots(strings.NewReader(" \n"), true)
	if err != nil {
		t.Fatal(err)
	}
	known, err := Roots(bytes.NewReader(cert), true)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"give its authority by ca_certs": run(t.Context(), t, srv.Listener.Addr().String(), none),
		"localhost":                      run(t.Context(), t, "localhost:"+port, known),
		"first record does not look":     run(t.Context(), t, plain.Listener.Addr().String(), known),
		"missing port":                   run(t.Context(), t, "seed.example", known),
		"operation was canceled":         run(ended, t, srv.Listener.Addr().String(), known),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

func run(ctx context.Context, t *testing.T, address string, roots *x509.CertPool) error {
	t.Helper()
	inner, mine := net.Pipe()
	var report bytes.Buffer
	err := Run(ctx, address, roots, inner, &report)
	if report.Len() != 0 {
		t.Errorf("%s: report %q", address, report.String())
	}
	if n, rerr := mine.Read(make([]byte, 1)); n != 0 || rerr == nil {
		t.Errorf("%s: the connection is still there", address)
	}
	return err
}

func TestRoots(t *testing.T) {
	if _, err := Roots(strings.NewReader("no certificate"), true); err == nil || !strings.Contains(err.Error(), "there is none in what ca_certs gives") {
		t.Errorf("got %v", err)
	}
	_, cert := server(t)
	beside, err := Roots(bytes.NewReader(cert), false)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := Roots(bytes.NewReader(cert), true)
	if err != nil {
		t.Fatal(err)
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if none := x509.NewCertPool(); !system.Equal(none) && beside.Equal(alone) || beside.Equal(system) {
		t.Error("want the certificates of the image beside those given")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"a:1", "--other"}, {"a:1", "--only-given", "x"}} {
		if err := Main(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), "usage: node tls") {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
