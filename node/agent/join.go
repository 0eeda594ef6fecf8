package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"keelson/node/host"
	"keelson/node/supervisorclient"
	"keelson/node/token"
	"keelson/node/trust"
)

// findCluster comes to trust a server. From then on every question goes through the load balancer, to whichever server
// lives.
func (a *Agent) findCluster(ctx context.Context) error {
	err := a.persist(ctx, "the cluster", a.trustServer)
	if err != nil {
		return err
	}
	a.client = supervisorclient.New(a.access, a.show)
	a.bare = supervisorclient.New(a.access, nil)
	a.milestone("cluster found")
	return nil
}

// trustServer asks the server of the settings, so that what is wrong is told in its name, and where that one does not
// answer, any that this machine remembers.
func (a *Agent) trustServer(ctx context.Context) error {
	access, err := a.validate(ctx, a.cfg.Settings.Server)
	if errors.Is(err, trust.ErrUnreachable) && a.remembersOthers() {
		if other, second := a.validate(ctx, a.balancerURL()); second == nil {
			access, err = other, nil
		}
	}
	if err != nil {
		return err
	}
	if access.TrustedOnFirstUse {
		a.firstUsed = access.CAHash
		a.console("the cluster's authority " + access.CAHash + " is trusted because it was the first one seen; a token with its hash would leave nothing to chance")
	}
	a.access, err = access.At(a.balancerURL())
	return err
}

func (a *Agent) balancerURL() string { return "https://" + a.supervisors.Address() }

func (a *Agent) remembersOthers() bool {
	for _, s := range a.supervisors.Servers() {
		if s.Address != a.join {
			return true
		}
	}
	return false
}

// validate holds a server against the token, and against the authorities known since an earlier start. A node that has
// joined before shows its certificate as well, for its token may have ended since; a server that no longer knows the
// node takes the token alone.
func (a *Agent) validate(ctx context.Context, server string) (trust.Access, error) {
	known, err := os.ReadFile(a.agent("server-ca.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trust.Access{}, fmt.Errorf("read server CA: %w", err)
	}
	c := trust.Config{
		Server: server, Token: token.Secret(a.cfg.Settings.Token), User: token.UserNode, CA: known,
		PinFile: a.agent("etc", trust.PinName), RequireHash: a.cfg.Settings.RequireTokenCAHash, Log: a.log,
	}
	if a.hasCertificate() {
		c.Certificate = a.show
	}
	access, err := trust.Validate(ctx, c)
	if c.Certificate != nil && (errors.Is(err, trust.ErrWrongToken) || errors.Is(err, trust.ErrBootstrapToken)) {
		c.Certificate = nil
		return trust.Validate(ctx, c)
	}
	return access, err
}

// show gives this node's certificate to connections, read at every handshake so that a renewed one is used; where there
// is none that holds, it shows none.
func (a *Agent) show() (*tls.Certificate, error) {
	none := new(tls.Certificate)
	cert, err := tls.LoadX509KeyPair(a.agent("client-kubelet.crt"), a.agent("client-kubelet.key"))
	if err != nil {
		return none, nil
	}
	if now := a.now(); now.Before(cert.Leaf.NotBefore) || now.After(cert.Leaf.NotAfter) {
		return none, nil
	}
	if cert.Leaf.Subject.CommonName != "system:node:"+a.settings.NodeName {
		return none, nil // of the name that the machine had before
	}
	return &cert, nil
}

func (a *Agent) hasCertificate() bool {
	cert, err := a.show()
	return err == nil && len(cert.Certificate) > 0
}

// ask asks with certificate and token, and where that is not taken (the Node was deleted, say), with the token alone.
func (a *Agent) ask(try func(*supervisorclient.Client) error) error {
	err := try(a.client)
	if errors.Is(err, supervisorclient.ErrUnauthorized) && a.hasCertificate() {
		return try(a.bare)
	}
	return err
}

// readCluster takes over what the cluster has decided.
func (a *Agent) readCluster(ctx context.Context) error {
	return a.persist(ctx, "the cluster's settings", func(ctx context.Context) error {
		return a.ask(func(c *supervisorclient.Client) error {
			content, err := c.Config(ctx)
			if err != nil {
				return err
			}
			d, err := parseDocument(content)
			if err != nil {
				return err
			}
			settings, err := d.lay(a.settings)
			if err != nil {
				return marked{err, errSettings}
			}
			// The cluster's families are known now, and the machine may have had an address of one alone.
			if !settings.Enough(a.host) {
				if a.host, err = host.Wait(ctx, host.Patience, settings.Enough); err != nil {
					return err
				}
			}
			if settings, err = settings.Resolve(a.host); err != nil {
				return marked{err, errSettings}
			}
			a.settings, a.port = settings, d.port()
			return nil
		})
	})
}

// awaitCluster returns when etcd and kube-apiserver run somewhere: the gate before kube-proxy. The answer that says "not
// yet" has a kind of its own; RKE2's agents look for a text in it that is never there, and go on too early.
func (a *Agent) awaitCluster(ctx context.Context) error {
	return a.persist(ctx, "the control plane", func(ctx context.Context) error {
		return a.ask(func(c *supervisorclient.Client) error { return c.Ready(ctx) })
	})
}
