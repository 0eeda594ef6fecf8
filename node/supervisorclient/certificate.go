package supervisorclient

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"keelson/node/token"
)

// Kind is one of the certificates that a server issues to a node, as its path is called.
type Kind string

// The certificates of a node, in the order in which RKE2's agents ask for them.
const (
	ServingKubelet   Kind = "serving-kubelet"
	ClientKubelet    Kind = "client-kubelet"
	ClientKubeProxy  Kind = "client-kube-proxy"
	ClientController Kind = "client-rke2-controller"
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{ServingKubelet, ClientKubelet, ClientKubeProxy, ClientController} }

// Node is who asks for a certificate.
type Node struct {
	Name      string
	Password  token.Secret // of this machine, which binds the name to it
	Addresses []netip.Addr
}

// Sign has the server issue a certificate for key, and returns it with the chain behind it, PEM. The request holds
// nothing but the public key: the server decides what stands in the certificate.
func (c *Client) Sign(ctx context.Context, kind Kind, node Node, key crypto.Signer) ([]byte, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	path := prefix + "/" + string(kind) + ".crt"
	data, err := c.do(ctx, question{method: http.MethodPost, path: path, body: request, header: node.header()})
	if err != nil {
		return nil, err
	}
	if err := fits(data, key); err != nil {
		return nil, &Error{Server: c.access.Server, Path: path, Code: http.StatusOK, Message: err.Error()}
	}
	return data, nil
}

// header is how RKE2's agents say who they are (k3s pkg/agent/config, pkg/server/handlers).
func (n Node) header() http.Header {
	var addresses []string
	for _, a := range n.Addresses {
		addresses = append(addresses, a.String())
	}
	h := http.Header{}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("rke2-Node-Name", n.Name)
	h.Set("rke2-Node-Password", n.Password.Reveal())
	h.Set("rke2-Node-IP", strings.Join(addresses, ","))
	return h
}

// fits tells whether an answer begins with a certificate for key. A server of an old kind would answer with a key of its
// own making, which is of no use here.
func fits(data []byte, key crypto.Signer) error {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("the answer does not begin with a certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the answer's certificate cannot be read: %w", err)
	}
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return errors.New("the certificate is for another key than the one it was asked for")
	}
	return nil
}
