package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leafSpec is one certificate to be issued.
type leafSpec struct {
	path  string // without .crt and .key
	ca    string
	cn    string
	org   string
	usage []x509.ExtKeyUsage
	names []string // DNS names and addresses
	mode  fs.FileMode
}

// leafSpecs lists every certificate of a server and its node.
func leafSpecs(p Params) []leafSpec {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

	local := []string{"localhost", "127.0.0.1", "::1"}
	node := slices.Concat(local, []string{p.NodeName}, texts(p.Addresses))
	machine := slices.Concat(node, p.SANs)
	apiserver := slices.Concat(
		[]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + p.ClusterDomain},
		machine, texts(p.ServiceIPs))
	if short, _, long := strings.Cut(p.NodeName, "."); long {
		apiserver = append(apiserver, short)
	}
	etcd := append(slices.Clone(machine), "kine.sock")

	specs := []leafSpec{
		{path: p.tls("client-admin"), ca: "client-ca", cn: "system:admin", org: "system:masters", usage: client},
		{path: p.tls("client-supervisor"), ca: "client-ca", cn: "system:rke2-supervisor", org: "system:masters", usage: client},
		{path: p.tls("client-controller"), ca: "client-ca", cn: "system:kube-controller-manager", usage: client},
		{path: p.tls("client-scheduler"), ca: "client-ca", cn: "system:kube-scheduler", usage: client},
		{path: p.tls("client-kube-apiserver"), ca: "client-ca", cn: "system:apiserver", org: "system:masters", usage: client},
		{path: p.tls("client-rke2-cloud-controller"), ca: "client-ca", cn: "rke2-cloud-controller-manager", usage: client},
		{path: p.tls("client-auth-proxy"), ca: "request-header-ca", cn: "system:auth-proxy", usage: client},
		{path: p.tls("serving-kube-apiserver"), ca: "server-ca", cn: "kube-apiserver", usage: server, names: apiserver},
		{path: p.tls("kube-scheduler", "kube-scheduler"), ca: "server-ca", cn: "kube-scheduler", usage: server, names: local},
		{path: p.tls("kube-controller-manager", "kube-controller-manager"), ca: "server-ca", cn: "kube-controller-manager", usage: server, names: local},
		{path: p.tls("etcd", "client"), ca: "etcd/server-ca", cn: "etcd-client", usage: client},
		{path: p.tls("etcd", "server-client"), ca: "etcd/server-ca", cn: "etcd-server", usage: both, names: etcd},
		{path: p.tls("etcd", "peer-server-client"), ca: "etcd/peer-ca", cn: "etcd-peer", usage: both, names: etcd},
	}
	for i := range specs {
		specs[i].mode = 0o644
	}
	agent := func(name string) string { return filepath.Join(p.AgentDir, name) }
	return append(specs,
		leafSpec{path: agent("client-kubelet"), ca: "client-ca", cn: "system:node:" + p.NodeName, org: "system:nodes", usage: client, mode: 0o600},
		leafSpec{path: agent("serving-kubelet"), ca: "server-ca", cn: p.NodeName, usage: server, names: node, mode: 0o600},
		leafSpec{path: agent("client-kube-proxy"), ca: "client-ca", cn: "system:kube-proxy", usage: client, mode: 0o600},
		leafSpec{path: agent("client-rke2-controller"), ca: "client-ca", cn: "system:rke2-controller", usage: client, mode: 0o600},
	)
}

// ensureLeaf keeps a good certificate and issues anew otherwise. The key is reused. It tells when the certificate
// becomes due.
func ensureLeaf(b *batch, p Params, spec leafSpec, ca *authority) (due time.Time, err error) {
	var key crypto.Signer
	keyPEM, err := readOptional(spec.path + ".key")
	if err != nil {
		return due, fmt.Errorf("load key: %w", err)
	}
	if keyPEM != nil {
		// A leaf's key that cannot be read is worth nothing: a new one is made, and a new certificate with it.
		if key, err = parseKey(keyPEM); err != nil {
			key = nil
		}
	}
	if key == nil {
		if key, keyPEM, err = newKey(); err != nil {
			return due, err
		}
	}
	chain, err := readOptional(spec.path + ".crt")
	if err != nil {
		return due, fmt.Errorf("load certificate: %w", err)
	}
	cert := spec.good(chain, key, ca, p.Now)
	if cert == nil {
		if chain, err = spec.issue(key.Public(), ca, p.Now); err != nil {
			return due, err
		}
		certs, err := parseCerts(chain)
		if err != nil {
			return due, fmt.Errorf("issue %s: %w", spec.cn, err)
		}
		cert = certs[0]
	}
	b.put(spec.path+".key", keyPEM, 0o600)
	b.put(spec.path+".crt", chain, spec.mode)
	return DueAt(cert), nil
}

// good returns the certificate at the head of chain if it is still the one that is wanted.
func (s leafSpec) good(chain []byte, key crypto.Signer, ca *authority, now time.Time) *x509.Certificate {
	certs, err := parseCerts(chain)
	if err != nil || !bytes.HasSuffix(chain, ca.bundle) || len(chain) == len(ca.bundle) {
		return nil
	}
	c := certs[0]
	var org []string
	if s.org != "" {
		org = []string{s.org}
	}
	names, ips := split(s.names)
	missing := slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(c.DNSNames, n) }) ||
		slices.ContainsFunc(ips, func(ip net.IP) bool { return !slices.ContainsFunc(c.IPAddresses, ip.Equal) })
	switch {
	case now.Before(c.NotBefore), !now.Before(DueAt(c)):
	case c.Subject.CommonName != s.cn, !slices.Equal(c.Subject.Organization, org), !slices.Equal(c.ExtKeyUsage, s.usage):
	case missing, !samePublic(c.PublicKey, key.Public()), c.CheckSignatureFrom(ca.cert) != nil:
	default:
		return c
	}
	return nil
}

// issue signs a certificate and puts the authority's bundle behind it.
func (s leafSpec) issue(public crypto.PublicKey, ca *authority, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.cn},
		NotBefore:    latest(now.Add(-backdate), ca.cert.NotBefore).UTC(),
		NotAfter:     earliest(now.Add(leafLife), ca.cert.NotAfter).UTC(),
		KeyUsage:     x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  s.usage,
	}
	if s.org != "" {
		tmpl.Subject.Organization = []string{s.org}
	}
	tmpl.DNSNames, tmpl.IPAddresses = split(s.names)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", s.cn, err)
	}
	return slices.Concat(certPEM(der), ca.bundle), nil
}

// DueAt is when a certificate is to be re-issued: 120 days before its end, as in RKE2, or after two thirds of its
// life, whichever comes first. One with a life of less than half a year (the authority is about to end) goes by its
// life alone.
func DueAt(c *x509.Certificate) time.Time {
	const window = 120 * 24 * time.Hour
	life := c.NotAfter.Sub(c.NotBefore)
	due := c.NotBefore.Add(life / 3 * 2)
	if life < 182*24*time.Hour {
		return due
	}
	return earliest(due, c.NotAfter.Add(-window))
}

// split parts names from addresses and drops what comes twice.
func split(all []string) (names []string, ips []net.IP) {
	for _, s := range all {
		if a, err := netip.ParseAddr(s); err == nil {
			ip := net.IP(a.Unmap().AsSlice())
			if !slices.ContainsFunc(ips, ip.Equal) {
				ips = append(ips, ip)
			}
		} else if s != "" && !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return names, ips
}

func texts(all []netip.Addr) []string {
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = a.String()
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
