package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Serving is the certificate of the supervisor's listener. It lives in memory, is issued by the server CA on disk,
// and is issued anew when it becomes due or the names change, without a restart.
type Serving struct {
	params Params
	now    func() time.Time

	mu   sync.Mutex // guards what follows
	cert *tls.Certificate
	due  time.Time
}

// NewServing issues the first certificate. The authority must be there: call Ensure before. Now nil is time.Now.
func NewServing(p Params, now func() time.Time) (*Serving, error) {
	if now == nil {
		now = time.Now
	}
	s := &Serving{params: p, now: now}
	if _, err := s.Certificate(); err != nil {
		return nil, err
	}
	return s, nil
}

// Certificate gives the certificate of the moment. Where a new one cannot be issued, the old one serves on while it
// is valid.
func (s *Serving) Certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.cert != nil && now.Before(s.due) {
		return s.cert, nil
	}
	cert, err := s.issue(now)
	if err != nil {
		if s.cert != nil && now.Before(s.cert.Leaf.NotAfter) {
			return s.cert, nil
		}
		return nil, err
	}
	s.cert, s.due = cert, DueAt(cert.Leaf)
	return cert, nil
}

func (s *Serving) issue(now time.Time) (*tls.Certificate, error) {
	p := s.params
	p.Now = now
	var b batch // nothing is written: the authority exists
	spec := authoritySpec{"server-ca", "rke2-server"}
	if data, err := readOptional(p.tls("server-ca.crt")); err != nil || data == nil {
		return nil, fmt.Errorf("issue supervisor certificate: no server CA in %s: %w", p.tls(), err)
	}
	ca, err := ensureAuthority(&b, p, spec)
	if err != nil {
		return nil, fmt.Errorf("issue supervisor certificate: %w", err)
	}
	key, _, err := newKey()
	if err != nil {
		return nil, err
	}
	names := slices.Concat([]string{"localhost", "127.0.0.1", "::1", p.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + p.ClusterDomain},
		texts(p.Addresses), p.SANs, texts(p.ServiceIPs))
	leaf := leafSpec{cn: "rke2", org: "rke2", usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, names: names}
	chain, err := leaf.issue(key.Public(), ca, now)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(chain)
	if err != nil {
		return nil, fmt.Errorf("issue supervisor certificate: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}
