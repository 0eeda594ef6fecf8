package trust

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"keelson/node/token"
)

// Limits of what a server that nobody trusts yet may send.
const (
	bundleBytes = 1 << 20
	quoteBytes  = 120
)

// downloaded is a bundle with the connection that brought it.
type downloaded struct {
	bundle []byte
	state  tls.ConnectionState
	date   time.Time
}

// download fetches /cacerts from whoever answers.
func (v *validation) download(ctx context.Context) (downloaded, error) {
	transport := &http.Transport{
		// Nothing is sent here but a path; verify judges the connection when the bundle is known.
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true},
		TLSHandshakeTimeout: v.Timeout,
		DisableKeepAlives:   true,
	}
	client := &http.Client{
		Transport:     transport,
		Timeout:       v.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, body, err := v.get(ctx, client, "/cacerts", false)
	if err != nil {
		return downloaded{}, err
	}
	if answer.StatusCode != http.StatusOK {
		return downloaded{}, v.refused(answer, body)
	}
	if _, err := token.CAHash(body); err != nil {
		return downloaded{}, v.fail(ErrNotSupervisor, what(answer, body), "check host and port of the address; the supervisor's port is 9345")
	}
	return downloaded{bundle: body, state: *answer.TLS, date: date(answer)}, nil
}

// probe shows the token. The server judges it before it says how ready it is.
func (v *validation) probe(ctx context.Context) error {
	client := v.access.Client(v.Certificate)
	defer client.CloseIdleConnections()
	answer, body, err := v.get(ctx, client, "/v1-rke2/readyz", true)
	if err != nil {
		return err
	}
	said := status(body)
	switch code := answer.StatusCode; {
	case code == http.StatusUnauthorized && v.token.BootstrapID != "" && said != nil && strings.Contains(said.Error(), "expired at"):
		// Servers of Keelson tell it while they remember the token (jointoken.Expired).
		return v.fail(ErrBootstrapToken, said, "and set that one as token in this machine's settings")
	case code == http.StatusUnauthorized && v.token.BootstrapID != "":
		return v.fail(ErrBootstrapToken, said, fmt.Sprintf("token %s is unknown or expired long ago, or no kube-apiserver can be asked for it yet; `node token list` on a server shows those that hold, `node token create` makes one", v.token.BootstrapID))
	case code == http.StatusUnauthorized:
		return v.fail(ErrWrongToken, said, "copy the token from /var/lib/rancher/rke2/server/token of a server; after a rotation the one before it is taken for a while only")
	case code == http.StatusForbidden && v.User == token.UserServer:
		// The password is right: a wrong one is 401. Servers may not ask for readiness, which is for agents.
	case code == http.StatusForbidden:
		return v.fail(ErrForbidden, said, "check that it is a token for agents")
	case code == http.StatusServiceUnavailable && said != nil && !strings.Contains(said.Error(), "starting"):
		// It knows us, and its own cluster is not up yet: who joins may well be what it waits for.
	case code == http.StatusInternalServerError && said != nil:
		// The same, in older RKE2 (spec: 3.1).
	case code == http.StatusOK:
	default:
		return v.refused(answer, body)
	}
	return v.skew(date(answer))
}

// get asks for a path and reads the answer, bounded.
func (v *validation) get(ctx context.Context, client *http.Client, path string, authorize bool) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.access.Server+path, nil)
	if err != nil {
		return nil, nil, v.fail(ErrAddress, errors.New("it is not a URL"), "write it as https://host:9345")
	}
	if authorize {
		v.access.Authorize(r)
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, nil, v.unanswered(ctx, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, bundleBytes))
	if err != nil {
		return nil, nil, v.unanswered(ctx, err)
	}
	return answer, body, nil
}

// refused is an answer that is none of those that a supervisor gives.
func (v *validation) refused(answer *http.Response, body []byte) error {
	said := status(body)
	switch answer.StatusCode {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if said == nil {
			said = what(answer, body)
		}
		return v.fail(ErrNotReady, said, "it is asked again; if this stays, look at the log of node there")
	case http.StatusUnauthorized, http.StatusForbidden:
		if said != nil {
			return v.fail(ErrNotSupervisor, what(answer, body), "this looks like a kube-apiserver; the supervisor's port is 9345")
		}
	}
	return v.fail(ErrNotSupervisor, what(answer, body), "check host and port of the address; the supervisor's port is 9345")
}

// what tells what has answered, in words that a log can bear.
func what(answer *http.Response, body []byte) error {
	text := fmt.Sprintf("the answer is %q", answer.Status)
	if t := answer.Header.Get("Content-Type"); t != "" {
		text += fmt.Sprintf(" of type %q", short(t))
	}
	if s := answer.Header.Get("Server"); s != "" {
		text += fmt.Sprintf(" from %q", short(s))
	}
	if l := answer.Header.Get("Location"); l != "" {
		text += fmt.Sprintf(" leading to %q", short(l))
	}
	if len(body) > 0 {
		text += fmt.Sprintf(" and begins %q", short(strings.TrimSpace(string(body))))
	}
	if answer.TLS != nil && len(answer.TLS.PeerCertificates) > 0 {
		text += ", with the certificate of " + subject(answer.TLS.PeerCertificates[0])
	}
	return errors.New(text)
}

func short(s string) string {
	if len(s) > quoteBytes {
		return s[:quoteBytes] + "..."
	}
	return s
}

// status reads the message of a metav1.Status (k8s.io/apimachinery), nil where the body is none.
func status(body []byte) error {
	var s struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &s) != nil || s.Kind != "Status" || s.Message == "" {
		return nil
	}
	return fmt.Errorf("it says %q", short(s.Message))
}

// date is the server's clock, zero where it does not tell.
func date(answer *http.Response) time.Time {
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return at
}
