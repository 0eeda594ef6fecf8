package chartsource

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxRedirects is how often an answer may lead elsewhere.
const maxRedirects = 5

// trust is whom a request's servers are believed to be.
func (r Request) trust() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: r.SkipVerify}
	if len(r.CA) == 0 {
		return config, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(r.CA) {
		return nil, errors.New("spec.repoCA: has no certificate in PEM")
	}
	config.RootCAs = roots
	return config, nil
}

// client makes a client for one chart, whose connections do not outlive it.
func (r Request) client() (*http.Client, error) {
	trust, err := r.trust()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true, DisableKeepAlives: true,
			TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: time.Minute,
		},
		CheckRedirect: r.redirect,
	}, nil
}

// redirect follows an answer that leads elsewhere, but from encryption to none.
func (r Request) redirect(next *http.Request, before []*http.Request) error {
	if len(before) > maxRedirects {
		return fmt.Errorf("led elsewhere more than %d times", maxRedirects)
	}
	if next.URL.Scheme != "https" && before[len(before)-1].URL.Scheme == "https" && !r.PlainHTTP {
		return errors.New("led from https to a connection without encryption; spec.plainHTTP allows that")
	}
	if r.PassCredentials && r.Username != "" {
		next.SetBasicAuth(r.Username, r.Password) // net/http has left them out where the host is another
	}
	return nil
}

// get asks for a file. Credentials go along where allowed says so.
func (r Request) get(ctx context.Context, client *http.Client, address *url.URL, allowed bool, most int64) ([]byte, error) {
	if address.Scheme != "https" && address.Scheme != "http" || address.Host == "" {
		return nil, fmt.Errorf("%s: is no address by https or http", address.Redacted())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	if allowed && r.Username != "" {
		req.SetBasicAuth(r.Username, r.Password)
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err // names the address, redacted
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: answered %s", address.Redacted(), answer.Status)
	}
	content, err := limited(answer.Body, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address.Redacted(), err)
	}
	return content, nil
}

// web gets a chart by its own address.
func (s *Source) web(ctx context.Context, r Request) ([]byte, error) {
	client, err := r.client()
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(r.Chart)
	if err != nil {
		return nil, errors.New("spec.chart: is no address")
	}
	return r.get(ctx, client, address, true, maxArchive)
}

// repository gets a chart that a repository's index names.
func (s *Source) repository(ctx context.Context, r Request) ([]byte, error) {
	client, err := r.client()
	if err != nil {
		return nil, err
	}
	repo, err := url.Parse(strings.TrimSuffix(r.Repo, "/") + "/")
	if err != nil {
		return nil, errors.New("spec.repo: is no address")
	}
	index, err := r.get(ctx, client, repo.JoinPath("index.yaml"), true, maxIndex)
	if err != nil {
		return nil, err
	}
	found, err := find(index, r.Chart, r.Version)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, text := range found.URLs {
		to, err := url.Parse(text)
		if err != nil {
			problems = append(problems, errors.New("its index has an address that is none"))
			continue
		}
		to = repo.ResolveReference(to)
		archive, err := r.get(ctx, client, to, r.PassCredentials || to.Scheme == repo.Scheme && to.Host == repo.Host, maxArchive)
		if err == nil {
			err = matches(archive, found.Digest)
		}
		if err == nil {
			return archive, nil
		}
		problems = append(problems, err)
	}
	return nil, errors.Join(problems...)
}

// matches compares an archive with the digest that an index gives, if it gives one.
func matches(archive []byte, digest string) error {
	want := strings.TrimPrefix(strings.ToLower(digest), "sha256:")
	if want == "" {
		return nil
	}
	sum := sha256.Sum256(archive)
	if got := hex.EncodeToString(sum[:]); got != want {
		return fmt.Errorf("the archive has SHA-256 %s, and the repository's index says %q", got, digest)
	}
	return nil
}
