package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// NodeCertificate is one of the certificates that a server issues to a node, as its path at :9345 is called.
type NodeCertificate string

// The certificates of a node.
const (
	ServingKubelet   NodeCertificate = "serving-kubelet"
	ClientKubelet    NodeCertificate = "client-kubelet"
	ClientKubeProxy  NodeCertificate = "client-kube-proxy"
	ClientController NodeCertificate = "client-rke2-controller"
)

// ErrRequest is a signing request that its sender must mend.
var ErrRequest = errors.New("signing request cannot be taken")

// maxRequest is more than a request with the largest key takes.
const maxRequest = 16 << 10

// Sign issues a certificate for the key of a signing request (PKCS#10, DER; RFC 2986) with the authorities of serverDir,
// and returns it with the chain behind it, PEM. Only the key of the request is used, once its signature has proven that
// the sender has it. Node and addresses are for the caller to have checked.
func Sign(serverDir string, kind NodeCertificate, node string, addresses []netip.Addr, request []byte, now time.Time) ([]byte, error) {
	client, server := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	var spec leafSpec
	switch kind {
	case ServingKubelet:
		names := slices.Concat([]string{"localhost", "127.0.0.1", "::1", node}, texts(addresses))
		spec = leafSpec{ca: "server-ca", cn: node, usage: server, names: names}
	case ClientKubelet:
		spec = leafSpec{ca: "client-ca", cn: "system:node:" + node, org: "system:nodes", usage: client}
	case ClientKubeProxy:
		spec = leafSpec{ca: "client-ca", cn: "system:kube-proxy", usage: client}
	case ClientController:
		spec = leafSpec{ca: "client-ca", cn: "system:rke2-controller", usage: client}
	default:
		return nil, fmt.Errorf("sign certificate %q: there is none of that kind", kind)
	}
	public, err := requestKey(request)
	if err != nil {
		return nil, err
	}
	// ClusterExists: an authority that is not there is lost, and none is made. Nothing of the batch is written.
	p := Params{ServerDir: serverDir, ClusterExists: true, Now: now}
	ca, err := ensureAuthority(new(batch), p, authoritySpec{file: spec.ca})
	if err != nil {
		return nil, err
	}
	return spec.issue(public, ca, now)
}

// requestKey returns the key of a request whose sender has it. Its kind and size are looked at first: checking a
// signature of a huge key costs more than making it.
func requestKey(der []byte) (crypto.PublicKey, error) {
	const leastRSA, mostRSA = 2048, 4096
	if len(der) > maxRequest {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrRequest, maxRequest)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, key.Curve) {
			return nil, fmt.Errorf("%w: its key is on curve %s; use P-256", ErrRequest, key.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < leastRSA || bits > mostRSA {
			return nil, fmt.Errorf("%w: its RSA key has %d bits; use %d to %d", ErrRequest, bits, leastRSA, mostRSA)
		}
	default:
		return nil, fmt.Errorf("%w: its key is a %T; use ECDSA P-256", ErrRequest, key)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return request.PublicKey, nil
}
