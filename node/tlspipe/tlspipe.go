// Package tlspipe is `node tls`: one TLS connection for PID 1, which links no
// TLS of its own.
//
// PID 1 starts it as nobody, with a socket as standard input that carries what
// is inside the TLS connection both ways, a pipe as standard output for one
// line of report, and a pipe as file 3 with further certificates to trust. It
// reads no file but the image's certificates and resolv.conf, and ends with its
// connection. The other end is init/tlschild; package testvm/https holds the
// two together.
package tlspipe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Certificates is the file that they come by.
const Certificates = 3

// Connected is the report of success.
const Connected = "connected\n"

// handshake bounds connecting, longest bounds all of it: PID 1 waits for no
// answer as long as that.
const (
	handshake       = 8 * time.Second
	longest         = time.Minute
	maxCertificates = 4 << 20
)

// Main does what the arguments of the verb say, by the files that PID 1 gave.
func Main(ctx context.Context, args []string, report io.Writer) error {
	only := len(args) == 2 && args[1] == "--only-given"
	if len(args) != 1 && !only {
		return errors.New("tls: usage: node tls HOST:PORT [--only-given]; PID 1 uses it")
	}
	// Whatever a server makes of this process, it gains no rights.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	certs := os.NewFile(Certificates, "certificates")
	roots, err := Roots(certs, only)
	if err != nil {
		return err
	}
	socket := os.NewFile(0, "socket")
	inner, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("tls: standard input: %w", err)
	}
	socket.Close()
	return Run(ctx, args[0], roots, inner, report)
}

// Roots reads the certificates to trust: those given, and unless they are to be
// alone those of the image.
func Roots(given io.Reader, only bool) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !only {
		image, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("certificates of the image: %w", err)
		}
		pool = image
	}
	data, err := io.ReadAll(io.LimitReader(given, maxCertificates))
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if strings.TrimSpace(string(data)) != "" && !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("certificates: there is none in what ca_certs gives")
	}
	return pool, nil
}

// Run connects, reports, and carries bytes until one side ends.
func Run(ctx context.Context, address string, roots *x509.CertPool, inner net.Conn, report io.Writer) error {
	defer inner.Close()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	connect, done := context.WithTimeout(ctx, handshake)
	defer done()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
	outer, err := dialer.DialContext(connect, "tcp", address)
	if err != nil {
		return explain(err)
	}
	defer outer.Close()
	defer context.AfterFunc(ctx, func() { outer.Close(); inner.Close() })()
	if _, err := io.WriteString(report, Connected); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(outer, inner)
		sent <- err
		outer.Close() // PID 1 has gone
	}()
	_, err = io.Copy(inner, outer)
	inner.Close()
	<-sent
	return err
}

// explain says what to do about the errors that people meet.
func explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w; give its authority by ca_certs in a source that is attached to the machine", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w; look at the machine's clock as well", err)
	}
	return err
}
