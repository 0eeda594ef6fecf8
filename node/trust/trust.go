// Package trust is how a machine comes to trust a server of its cluster: it fetches the server's authorities, holds
// them against what the token pins, and finds out whether the server takes the token.
//
// The order is RKE2's (k3s pkg/clientaccess), but stricter: authorities that the operating system trusts are worth
// nothing here, only the part of a bundle that the token's hash vouches for is believed, and without a hash in the
// token the first authority seen is remembered and binding ever after. It asks for nothing but /cacerts and readyz,
// and it never sends a token over a connection whose certificate it has not verified. Its input is the settings and
// the network; node/agent, node/server, node/supervisorclient and the operator's commands use the Access it gives.
package trust

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keelson/node/token"
)

// DefaultTimeout is how long one request may take (k3s: the same).
const DefaultTimeout = 10 * time.Second

// DefaultMaxSkew is how far the server's clock may be from ours.
const DefaultMaxSkew = 10 * time.Minute

// Certificate gives the client certificate to show, asked at every handshake, so that renewal needs no restart.
type Certificate func() (*tls.Certificate, error)

// Config is what Validate needs.
type Config struct {
	Server      string       // https://host:port
	Token       token.Secret // in any of its forms
	User        string       // token.UserServer or token.UserNode, whatever the token says
	CA          []byte       // authorities known already, PEM; where the token's hash fits them nothing is downloaded
	PinFile     string       // remembers the authority that was trusted on first use
	RequireHash bool         // refuse a token without a hash (require-token-ca-hash)
	Certificate Certificate  // nil: none is shown
	Timeout     time.Duration
	MaxSkew     time.Duration // 0: DefaultMaxSkew; negative: any
	Log         *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Validate finds out whether the server is the cluster's and takes the token. The error is an *Error, save for
// mistakes of the caller.
func Validate(ctx context.Context, c Config) (Access, error) {
	v, err := newValidation(c)
	if err != nil {
		return Access{}, err
	}
	pinned, err := v.pinned()
	if err != nil {
		return Access{}, err
	}
	if err := v.authorities(ctx, pinned); err != nil {
		return Access{}, err
	}
	if err := v.probe(ctx); err != nil {
		return Access{}, err
	}
	if v.access.TrustedOnFirstUse && pinned == "" {
		if err := savePin(c.PinFile, v.access.CAHash); err != nil {
			return Access{}, err
		}
		c.Log.Warn("the server's authority is trusted because it is the first one seen; a token with the hash of the authority, from the servers' file /var/lib/rancher/rke2/server/token, leaves nothing to chance",
			"server", v.access.Server, "ca_hash", v.access.CAHash, "remembered_in", c.PinFile)
	}
	return v.access, nil
}

// validation is one run of Validate.
type validation struct {
	Config
	token  token.Token
	access Access
}

func newValidation(c Config) (*validation, error) {
	if c.Log == nil || c.User != token.UserServer && c.User != token.UserNode {
		return nil, errors.New("trust: Log and User must be set")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxSkew == 0 {
		c.MaxSkew = DefaultMaxSkew
	}
	v := &validation{Config: c}
	base, err := baseURL(c.Server)
	if err != nil {
		return nil, v.fail(ErrAddress, err, "write it as https://host:9345")
	}
	v.access = Access{Server: base, timeout: c.Timeout}
	if v.token, err = token.Parse(c.Token); err != nil {
		return nil, v.fail(ErrToken, err, "copy the token from /var/lib/rancher/rke2/server/token of a server")
	}
	if v.access.authorize, err = v.authorization(); err != nil {
		return nil, v.fail(ErrToken, err, "set the token from /var/lib/rancher/rke2/server/token of a server")
	}
	if v.token.CAHash == "" && c.RequireHash {
		return nil, v.fail(ErrHashRequired, nil, "set the whole token, which begins with K10, from /var/lib/rancher/rke2/server/token of a server, or remove require-token-ca-hash")
	}
	return v, nil
}

// authorization puts the proof of the token on requests.
func (v *validation) authorization() (func(*http.Request), error) {
	t, user := v.token, v.User
	switch {
	case t.BootstrapID != "" && user == token.UserServer:
		return nil, errors.New("a bootstrap token joins agents, not servers")
	case t.BootstrapID != "":
		return func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+t.BootstrapID+"."+t.BootstrapSecret.Reveal())
		}, nil
	default:
		return func(r *http.Request) { r.SetBasicAuth(user, t.Password.Reveal()) }, nil
	}
}

// baseURL takes scheme and host of a server's URL; its path does not count, as in RKE2.
func baseURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("it is not a URL") // the parser's error quotes it
	case u.Scheme != "https":
		return "", fmt.Errorf("its scheme is %q, and only https is served", u.Scheme)
	case u.Hostname() == "":
		return "", errors.New("it names no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", errors.New("it holds more than scheme, host and port")
	}
	return "https://" + u.Host, nil
}

// pinned is the hash that must be the authority's; empty: none is known yet.
func (v *validation) pinned() (string, error) {
	if v.token.CAHash != "" {
		return strings.ToLower(v.token.CAHash), nil
	}
	v.access.TrustedOnFirstUse = true
	if len(v.CA) > 0 { // what the machine already knows needs no pin
		v.access.TrustedOnFirstUse = false
		hash, err := token.CAHash(v.CA)
		if err != nil {
			return "", fmt.Errorf("trust: known authorities: %w", err)
		}
		return hash, nil
	}
	if v.PinFile == "" {
		return "", v.fail(ErrHashRequired, nil, "set the whole token, which begins with K10, from /var/lib/rancher/rke2/server/token of a server")
	}
	return LoadPin(v.PinFile)
}

// authorities settles which authorities to believe.
func (v *validation) authorities(ctx context.Context, pinned string) error {
	if len(v.CA) > 0 && v.believe(v.CA, pinned) == nil {
		return nil
	}
	got, err := v.download(ctx)
	if err != nil {
		return err
	}
	if err := v.believe(got.bundle, pinned); err != nil {
		return err
	}
	// The very connection that brought the bundle must be vouched for by it. A second connection, as RKE2 makes,
	// might end at another machine.
	if err := v.verify(got.state); err != nil {
		return err
	}
	return v.skew(got.date)
}

// believe takes what the hash of a bundle vouches for, if it is the hash that is expected.
func (v *validation) believe(bundle []byte, pinned string) error {
	hash, vouched, err := token.Pin(bundle)
	if err != nil {
		return v.fail(ErrNotSupervisor, err, "")
	}
	if pinned != "" && subtle.ConstantTimeCompare([]byte(hash), []byte(pinned)) != 1 {
		return v.wrongHash(hash, pinned)
	}
	v.access.CA, v.access.CAHash = vouched, hash
	return nil
}

func (v *validation) wrongHash(got, want string) error {
	if v.token.CAHash == "" && len(v.CA) == 0 {
		return v.fail(ErrCAHash, fmt.Errorf("it has authority %s, and %s was trusted on first use", got, want),
			"if the cluster's authority was really changed, set the whole token from /var/lib/rancher/rke2/server/token of a server, or remove "+v.PinFile+"; if not, check the address: another machine may be answering")
	}
	return v.fail(ErrCAHash, fmt.Errorf("it has authority %s, and the token names %s", got, want),
		"copy the token anew from /var/lib/rancher/rke2/server/token of a server of this cluster, and check the address")
}

// skew refuses a server whose clock is far from ours: certificates and bootstrap tokens would fail in odd ways.
func (v *validation) skew(server time.Time) error {
	if server.IsZero() || v.MaxSkew < 0 {
		return nil
	}
	now := v.Now()
	if off := now.Sub(server).Abs(); off > v.MaxSkew {
		return v.fail(ErrClock, fmt.Errorf("this machine's clock says %s and the server's %s", clock(now), clock(server)), "set the clocks; time servers do it for good")
	}
	return nil
}
