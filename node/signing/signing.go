// Package signing decides what nodes may have a certificate for, and issues it (spec 3.1 and 4.2; k3s
// pkg/server/handlers).
//
// A request proves that its sender has the key, and nothing else of it is used. Who asks, and whether a name is theirs,
// node/supervisorapi and its check of node passwords have found out before; what no node may be called at all is decided
// here. node/pki keeps the authorities and makes the certificate; they are read each time, so that a change of them
// holds at once.
package signing

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keelson/node/pki"
)

// NodePrefix begins the user name of a node's kubelet.
const NodePrefix = "system:node:"

// ErrRequest is what its sender must mend; pki.ErrRequest is another.
var ErrRequest = errors.New("certificate cannot be issued")

// Signer issues certificates with the authorities of a server.
type Signer struct {
	ServerDir string

	// ServiceNetworks and ClusterDomain are what no node may take for itself: with a certificate of the server CA for
	// the kubernetes Service it would be kube-apiserver to every pod.
	ServiceNetworks []netip.Prefix
	ClusterDomain   string

	Now func() time.Time // nil: time.Now
}

// Sign issues the certificate of a kind for the key of a request (PKCS#10, DER), and returns it with its chain, PEM.
// Node and addresses matter to the kubelet's two alone.
func (s Signer) Sign(kind pki.NodeCertificate, node string, addresses []netip.Addr, request []byte) ([]byte, error) {
	if OfNode(kind) {
		if err := s.checkNode(node); err != nil {
			return nil, err
		}
	}
	if kind != pki.ServingKubelet {
		addresses = nil
	}
	for _, a := range addresses {
		if err := s.checkAddress(a); err != nil {
			return nil, err
		}
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return pki.Sign(s.ServerDir, kind, node, addresses, request, now())
}

// OfNode tells whether a certificate speaks for one node, and so needs the node's password.
func OfNode(kind pki.NodeCertificate) bool {
	return kind == pki.ServingKubelet || kind == pki.ClientKubelet
}

// checkNode refuses what is no name of a Node (RFC 1123, as kube-apiserver checks it), and what is the name of
// something else in the cluster.
func (s Signer) checkNode(node string) error {
	if !ValidNode(node) {
		return fmt.Errorf("%w: node name is not a DNS name of lower case letters, digits, dots and dashes", ErrRequest)
	}
	domain := s.ClusterDomain
	if slices.Contains([]string{"localhost", "kubernetes", "kubernetes.default", "kine.sock"}, node) ||
		strings.HasSuffix(node, ".svc") || domain != "" && strings.HasSuffix(node, ".svc."+domain) {
		return fmt.Errorf("%w: %s is the name of a part of every cluster; call the node otherwise", ErrRequest, node)
	}
	if _, err := netip.ParseAddr(node); err == nil {
		return fmt.Errorf("%w: the node's name is an address; call the node otherwise", ErrRequest)
	}
	return nil
}

func (s Signer) checkAddress(a netip.Addr) error {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return fmt.Errorf("%w: %s is not an address of a node", ErrRequest, a)
	}
	for _, n := range s.ServiceNetworks {
		if n.Contains(a) {
			return fmt.Errorf("%w: %s belongs to the cluster's Services", ErrRequest, a)
		}
	}
	return nil
}

// ValidNode tells whether name can be the name of a Node (RFC 1123; k8s.io/apimachinery IsDNS1123Subdomain).
func ValidNode(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return false
			}
		}
	}
	return true
}
