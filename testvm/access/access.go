// Package access lets an outsider who holds the cluster's token become its
// administrator, as a joining server does: it takes the server's CA from
// /cacerts, the client CA and its key from /v1-rke2/server-bootstrap, and
// signs itself a certificate.
//
// There is no other way into a machine: no shell, no file to copy. Package
// machine uses it for its kubeconfig. It is written from the protocol
// (RKE2's supervisor API, k3s pkg/server/handlers and pkg/clientaccess) and
// shares no code with node/ on purpose, so that a mistake on one side shows.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Server is the supervisor of a cluster's server.
type Server struct {
	URL   string // https://127.0.0.1:<port of 9345>
	Token string // K10<hash>::server:<password>, or the password alone
}

// Bootstrap is what a joining server is given, as far as it is needed here.
type Bootstrap struct {
	ServerCA    []byte // PEM, what the apiserver's certificate is checked with
	ClientCA    []byte // PEM
	ClientCAKey []byte // PEM
	ServerCAKey []byte // PEM; of use to who plays a server
}

// ErrNotReady is returned while the server does not answer yet.
var ErrNotReady = errors.New("the supervisor is not ready")

const (
	answerLimit = 10 * time.Second // k3s: the client of pkg/clientaccess
	sizeLimit   = 4 << 20
)

// Fetch asks the server. Without a hash in the token, the CA that answers is
// trusted: the callers own the machine and talk to it over loopback.
func (s Server) Fetch(ctx context.Context) (*Bootstrap, error) {
	cas, body, err := s.ask(ctx, "/v1-rke2/server-bootstrap")
	if err != nil {
		return nil, err
	}
	b, err := LoadBootstrap(body)
	if err != nil {
		return nil, err
	}
	if string(b.ServerCA) != string(cas) {
		return nil, errors.New("server-bootstrap: its ServerCA is not the one of /cacerts")
	}
	return b, nil
}

// Member is one of etcd, as the supervisor tells it.
type Member struct {
	Name       string   `json:"name"` // empty until it has started
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	Learner    bool     `json:"isLearner"`
}

// Members are those of the cluster's etcd, as this server sees them.
func (s Server) Members(ctx context.Context) ([]Member, error) {
	_, body, err := s.ask(ctx, "/db/info")
	if err != nil {
		return nil, err
	}
	var info struct{ Members []Member }
	if err := json.Unmarshal(body, &info); err != nil {
		return nil, fmt.Errorf("read db/info: %w", err)
	}
	return info.Members, nil
}

// ask takes the server's CA, checks it as far as the token says, and asks for a path as a server would.
func (s Server) ask(ctx context.Context, path string) (cas, body []byte, err error) {
	hash, password, err := split(s.Token)
	if err != nil {
		return nil, nil, err
	}
	unverified := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if cas, err = s.get(ctx, "/cacerts", "", unverified); err != nil {
		return nil, nil, err
	}
	if got := sha256.Sum256(cas); hash != "" && hash != hex.EncodeToString(got[:]) {
		return nil, nil, fmt.Errorf("check the server's CA: its hash is %x, the token says %s", got, hash)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cas) {
		return nil, nil, errors.New("check the server's CA: /cacerts holds no certificate")
	}
	body, err = s.get(ctx, path, password, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	return cas, body, err
}

// again is how often Await looks: nothing outside tells when a listener opens.
const again = 200 * time.Millisecond

// Await asks until the server answers, something is wrong for good, or ended says that the machine is gone.
func (s Server) Await(ctx context.Context, ended <-chan struct{}) (*Bootstrap, error) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		b, err := s.Fetch(ctx)
		if !errors.Is(err, ErrNotReady) {
			return b, err
		}
		select {
		case <-tick.C:
		case <-ended:
			return nil, fmt.Errorf("%w: the machine ended", err)
		case <-ctx.Done():
			return nil, err
		}
	}
}

// get asks for one path; with a password as the user "server".
func (s Server) get(ctx context.Context, path, password string, trust *tls.Config) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	if password != "" {
		req.SetBasicAuth("server", password)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		// A certificate that does not hold will not hold later either.
		var bad *tls.CertificateVerificationError
		if errors.As(err, &bad) {
			return nil, fmt.Errorf("ask for %s: %w", path, err)
		}
		return nil, fmt.Errorf("ask for %s: %w: %w", path, ErrNotReady, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, sizeLimit))
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w: %w", path, ErrNotReady, err)
	}
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("ask for %s: %w: %s", path, ErrNotReady, excerpt(body))
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("ask for %s: %s: %s", path, resp.Status, excerpt(body))
	}
	return body, nil
}

func excerpt(body []byte) string { return strings.TrimSpace(string(body[:min(len(body), 300)])) }

// LoadBootstrap reads the answer of /v1-rke2/server-bootstrap: an object of
// names with their content in base64 (k3s pkg/bootstrap).
func LoadBootstrap(body []byte) (*Bootstrap, error) {
	var files map[string]struct{ Content []byte }
	if err := json.Unmarshal(body, &files); err != nil {
		return nil, fmt.Errorf("read server-bootstrap: %w", err)
	}
	b := &Bootstrap{
		ServerCA: files["ServerCA"].Content, ClientCA: files["ClientCA"].Content, ClientCAKey: files["ClientCAKey"].Content,
		ServerCAKey: files["ServerCAKey"].Content,
	}
	for name, content := range map[string][]byte{"ServerCA": b.ServerCA, "ClientCA": b.ClientCA, "ClientCAKey": b.ClientCAKey} {
		if len(content) == 0 {
			return nil, fmt.Errorf("read server-bootstrap: it holds no %s", name)
		}
	}
	return b, nil
}

// split takes a server token apart: K10<hash>::<user>:<password>, or a
// password alone.
func split(token string) (hash, password string, err error) {
	rest, full := strings.CutPrefix(token, "K10")
	if token == "" {
		return "", "", errors.New("read token: it is empty")
	}
	if !full {
		return "", token, nil
	}
	hash, credentials, ok := strings.Cut(rest, "::")
	if !ok || len(hash) != 64 {
		return "", "", errors.New("read token: K10 must be followed by the CA's hash of 64 digits and `::`")
	}
	_, password, ok = strings.Cut(credentials, ":")
	if !ok || password == "" {
		return "", "", errors.New("read token: want `server:<password>` after `::`")
	}
	return hash, password, nil
}
