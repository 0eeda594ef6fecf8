package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// verify judges a connection by the authorities that are believed.
func (v *validation) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return v.fail(ErrNotSupervisor, errors.New("it shows no certificate"), "")
	}
	if err := v.chain(state.PeerCertificates, v.Now()); err != nil {
		return v.badCertificate(state.PeerCertificates, err)
	}
	return nil
}

// chain verifies certificates for the server's host at a moment.
func (v *validation) chain(certs []*x509.Certificate, at time.Time) error {
	u, err := url.Parse(v.access.Server)
	if err != nil {
		return err
	}
	opts := x509.VerifyOptions{DNSName: u.Hostname(), CurrentTime: at, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	opts.Roots.AppendCertsFromPEM(v.access.CA)
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err = certs[0].Verify(opts)
	return err
}

// badCertificate says why a chain is not believed: the clock, the name, or the authority.
func (v *validation) badCertificate(certs []*x509.Certificate, err error) error {
	leaf := certs[0]
	// If there is a moment at which all would be well, it is the clock.
	every := append(slices.Clone(certs), bundle(v.access.CA)...)
	from, to := every[0].NotBefore, every[0].NotAfter
	for _, c := range every {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	var host x509.HostnameError
	switch now := v.Now(); {
	case v.chain(certs, from) == nil && (now.Before(from) || now.After(to)):
		state := "is not valid before " + clock(from)
		if now.After(to) {
			state = "was valid until " + clock(to)
		}
		return v.fail(ErrClock, fmt.Errorf("the certificate of %s %s, and this machine's clock says %s", subject(leaf), state, clock(now)),
			"set this machine's clock; if it is right, look at clock and certificates of the server")
	case errors.As(err, &host):
		return v.fail(ErrCertificate, fmt.Errorf("it is for %s, not for %s", names(leaf), host.Host),
			"use an address that the certificate names, or add this one to tls-san in the servers' settings")
	default:
		return v.fail(ErrCertificate, fmt.Errorf("it shows one of %s, issued by %q, which the cluster's authorities do not vouch for", subject(leaf), leaf.Issuer),
			"check the address: another machine, or a proxy that ends TLS, may be answering")
	}
}

// unanswered says why a request had no answer.
func (v *validation) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask %s: %w", v.access.Server, ctx.Err())
	}
	var wrapped *url.Error // repeats method and URL
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var bad *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &bad) && len(bad.UnverifiedCertificates) > 0:
		return v.badCertificate(bad.UnverifiedCertificates, bad.Err)
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return v.fail(ErrNotSupervisor, errors.New("it does not speak TLS"), "check host and port of the address; the supervisor's port is 9345")
	case errors.As(err, &alert):
		return v.fail(ErrNotSupervisor, fmt.Errorf("it ends the handshake: %w", err), "check host and port of the address; the supervisor's port is 9345")
	case errors.As(err, &dns):
		return v.fail(ErrUnreachable, err, "check the name and this machine's DNS servers")
	case errors.Is(err, syscall.ECONNREFUSED):
		return v.fail(ErrUnreachable, err, "the machine is there but nothing listens on the port: the server is not up yet, or the port is not 9345")
	case errors.As(err, &timeout) && timeout.Timeout():
		return v.fail(ErrUnreachable, err, "check the address, and that no firewall drops connections to port 9345")
	default:
		return v.fail(ErrUnreachable, err, "check the address and the network")
	}
}

func bundle(data []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return certs
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
}

// subject names a certificate. Quotes keep what a stranger wrote from looking like our words.
func subject(c *x509.Certificate) string { return fmt.Sprintf("%q", short(c.Subject.String())) }

// names are whom a certificate is for.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "nobody"
	}
	return fmt.Sprintf("%q", short(strings.Join(all, ", ")))
}
