package trust

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"
)

// Access is a trusted server, and the right to ask it.
type Access struct {
	Server            string // https://host:port
	CA                []byte // authorities of servers, PEM
	CAHash            string // what a token for this cluster pins
	TrustedOnFirstUse bool   // the authority was believed because it was the first seen, now or at an earlier start

	authorize func(*http.Request) // no field that holds the secret: fmt would print it
	timeout   time.Duration
}

// String implements fmt.Stringer.
func (a Access) String() string { return a.Server + " with authority " + a.CAHash }

// At gives the same access at another address, such as another server's or the load balancer's.
func (a Access) At(server string) (Access, error) {
	base, err := baseURL(server)
	if err != nil {
		return Access{}, &Error{Kind: ErrAddress, Server: server, Detail: err, Do: "write it as https://host:9345"}
	}
	a.Server = base
	return a, nil
}

// TLS makes the configuration of connections to the cluster's servers. show may be nil.
func (a Access) TLS(show Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(a.CA)
	if show != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show() }
	}
	return c
}

// Client makes a client that believes the cluster's servers only and follows no redirection, which would carry the
// token elsewhere. show may be nil. It ends with the program: its idle connections are few and close by themselves.
func (a Access) Client(show Certificate) *http.Client {
	timeout := a.timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig:     a.TLS(show),
			TLSHandshakeTimeout: timeout,
			MaxIdleConns:        2,
			IdleConnTimeout:     30 * time.Second,
		},
	}
}

// Authorize puts the token on a request.
func (a Access) Authorize(r *http.Request) {
	if a.authorize != nil {
		a.authorize(r)
	}
}
