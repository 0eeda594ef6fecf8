package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"keelson/node/file"
	"keelson/node/supervisorclient"
	"keelson/node/trust"
)

// obtain gets authorities and certificates. The kubelet's two are asked for at each start: with them the server checks
// the node's password, which is what keeps the name this machine's even after its Node was deleted.
func (a *Agent) obtain(ctx context.Context) error {
	err := a.persist(ctx, "certificates", func(ctx context.Context) error {
		_, _, err := a.refresh(ctx, a.now(), true)
		return err
	})
	if err == nil {
		a.milestone("cluster joined")
	}
	return err
}

// authorities are the bundles that the node's certificates are judged by, PEM.
type authorities struct{ client, server []byte }

// refresh brings authorities and certificates up to date, in one batch of writes, and tells what it wrote and when the
// first certificate becomes due. register asks for the kubelet's anew whatever they are like.
func (a *Agent) refresh(ctx context.Context, now time.Time, register bool) (written []string, due time.Time, err error) {
	var cas authorities
	err = a.ask(func(c *supervisorclient.Client) (err error) {
		if cas.client, err = c.ClientCA(ctx); err != nil {
			return err
		}
		cas.server, err = c.ServerCA(ctx)
		return err
	})
	if err != nil {
		return nil, due, err
	}
	changed := []file.File{
		{Path: a.agent("client-ca.crt"), Data: cas.client, Mode: 0o600},
		{Path: a.agent("server-ca.crt"), Data: cas.server, Mode: 0o600},
	}
	for _, kind := range supervisorclient.Kinds() {
		kubelets := kind == supervisorclient.ServingKubelet || kind == supervisorclient.ClientKubelet
		pair, at, err := a.ensure(ctx, kind, cas, now, register && kubelets)
		if err != nil {
			return nil, due, err
		}
		if due.IsZero() || at.Before(due) {
			due = at
		}
		changed = append(changed, pair...)
	}
	for _, f := range changed {
		if !file.Same(f) {
			written = append(written, f.Path)
		}
	}
	if len(written) == 0 {
		return nil, due, nil
	}
	if err := file.WriteAll(changed); err != nil {
		return nil, due, fmt.Errorf("keep certificates: %w", err)
	}
	// What was trusted on first use goes on being so under the cluster's new authority.
	if pin := a.agent("etc", trust.PinName); exists(pin) {
		if err := trust.SavePin(pin, cas.server); err != nil {
			return nil, due, err
		}
	}
	return written, due, nil
}

// ensure gives one key and certificate as they should be on disk: those that are there while they are good, and
// otherwise a new certificate for the key, which is made here and never leaves the machine.
func (a *Agent) ensure(ctx context.Context, kind supervisorclient.Kind, cas authorities, now time.Time, anew bool) ([]file.File, time.Time, error) {
	keyPath, certPath := a.agent(string(kind)+".key"), a.agent(string(kind)+".crt")
	key, keyPEM, err := loadOrMakeKey(keyPath)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("key of %s: %w", kind, err)
	}
	chain, err := os.ReadFile(certPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	leaf, bad := a.judge(kind, chain, key, cas, now)
	if anew || bad != nil || !now.Before(dueAt(leaf)) || !byFirst(leaf, kind, cas) {
		if chain, err = a.sign(ctx, kind, key); err != nil {
			return nil, time.Time{}, err
		}
		if leaf, err = a.judge(kind, chain, key, cas, now); err != nil {
			return nil, time.Time{}, fmt.Errorf("the server's certificate %s cannot be used: %w", kind, err)
		}
	}
	return []file.File{{Path: keyPath, Data: keyPEM, Mode: 0o600}, {Path: certPath, Data: chain, Mode: 0o600}}, dueAt(leaf), nil
}

func (a *Agent) sign(ctx context.Context, kind supervisorclient.Kind, key crypto.Signer) ([]byte, error) {
	node := supervisorclient.Node{Name: a.settings.NodeName, Password: a.password, Addresses: a.settings.NodeIP}
	var chain []byte
	err := a.ask(func(c *supervisorclient.Client) (err error) {
		chain, err = c.Sign(ctx, kind, node, key)
		return err
	})
	if errors.Is(err, supervisorclient.ErrForbidden) {
		return nil, fmt.Errorf("%w; if another machine had the name %s and this one replaces it, delete that node (kubectl delete node %[2]s), and if not, set another node-name here", err, node.Name)
	}
	return chain, err
}

// judge returns the certificate at the head of chain if it is one that this node can use for key.
func (a *Agent) judge(kind supervisorclient.Kind, chain []byte, key crypto.Signer, cas authorities, now time.Time) (*x509.Certificate, error) {
	certs, err := cert.ParseCertsPEM(chain)
	if err != nil {
		return nil, err
	}
	leaf, roots := certs[0], x509.NewCertPool()
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	ca, name := cas.client, ""
	opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	switch kind {
	case supervisorclient.ServingKubelet:
		ca, name = cas.server, a.settings.NodeName
		opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case supervisorclient.ClientKubelet:
		name = "system:node:" + a.settings.NodeName
	case supervisorclient.ClientKubeProxy:
		name = "system:kube-proxy"
	case supervisorclient.ClientController:
		name = "system:rke2-controller"
	}
	roots.AppendCertsFromPEM(ca)
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return nil, err
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(key.Public()):
		return nil, errors.New("it is for another key")
	case leaf.Subject.CommonName != name:
		return nil, fmt.Errorf("it is for %q, and %q is wanted", leaf.Subject.CommonName, name)
	}
	if kind == supervisorclient.ServingKubelet {
		for _, ip := range a.settings.NodeIP {
			if err := leaf.VerifyHostname(ip.String()); err != nil {
				return nil, err
			}
		}
	}
	return leaf, nil
}

// byFirst tells whether the first authority of the bundle issued a certificate: after a change of authority the old one
// stays behind it for a while, and certificates should move on before it goes.
func byFirst(leaf *x509.Certificate, kind supervisorclient.Kind, cas authorities) bool {
	bundle := cas.client
	if kind == supervisorclient.ServingKubelet {
		bundle = cas.server
	}
	certs, err := cert.ParseCertsPEM(bundle)
	return err == nil && bytes.Equal(certs[0].SubjectKeyId, leaf.AuthorityKeyId)
}

// dueAt is when a certificate is to be renewed: at two thirds of its life.
func dueAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

// loadOrMakeKey reads a key (ECDSA P-256), or makes one: where there is none, or one that cannot be read, which is worth
// nothing.
func loadOrMakeKey(path string) (crypto.Signer, []byte, error) {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if key, err := parseKey(content); err == nil {
		return key, content, nil
	}
	if content, err = keyutil.MakeEllipticPrivateKeyPEM(); err != nil {
		return nil, nil, err
	}
	key, err := parseKey(content)
	return key, content, err
}

func parseKey(content []byte) (crypto.Signer, error) {
	key, err := keyutil.ParsePrivateKeyPEM(content)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
