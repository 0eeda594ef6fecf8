// Package supervisorclient asks a server of the cluster on :9345: RKE2's supervisor API from the other side (k3s
// pkg/clientaccess, pkg/agent/config).
//
// It believes whom package trust has found trustworthy, makes one request a call, and retries nothing: node/agent and
// node/server decide what to wait for. What it returns is what the server said; files are written by its callers. Keys
// never leave the machine: certificates are asked for with a signing request.
package supervisorclient

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"keelson/node/token"
	"keelson/node/trust"
)

const prefix = "/v1-rke2"

// Bounds of an answer: the largest of fixed kind, a bootstrap record, is some 30 KiB; a list of snapshots has a KiB each.
const (
	maxAnswer    = 4 << 20
	maxSnapshots = 64 << 20
)

// What a server says no with. Callers decide by them whether waiting helps.
var (
	ErrNotReady     = errors.New("not ready")              // 503: it is starting, or its cluster is
	ErrBusy         = errors.New("busy")                   // 429
	ErrUnauthorized = errors.New("credentials not taken")  // 401
	ErrForbidden    = errors.New("not allowed")            // 403
	ErrAbsent       = errors.New("not served there")       // 404
	ErrUnreachable  = errors.New("server does not answer") // no answer at all
)

// Error is an answer that is no success, in the server's words.
type Error struct {
	Server, Path string
	Kind         error // one of the errors above, or nil
	Code         int   // 0 without an answer
	Message      string
}

// Error implements error.
func (e *Error) Error() string {
	text := "ask " + e.Server + " for " + e.Path + ": "
	if e.Code != 0 {
		text += fmt.Sprintf("%d %s: ", e.Code, http.StatusText(e.Code))
	}
	return text + e.Message
}

// Unwrap implements the interface of errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

// Client asks one server, or the load balancer before several.
type Client struct {
	access trust.Access
	http   *http.Client
}

// New makes a client. show gives the certificate to show, and may be nil: the token of access is shown then.
func New(access trust.Access, show trust.Certificate) *Client {
	return &Client{access: access, http: access.Client(show)}
}

// Server is the URL that the client asks.
func (c *Client) Server() string { return c.access.Server }

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Config reads the cluster's settings (/v1-rke2/config), as the JSON document that they are served in.
func (c *Client) Config(ctx context.Context) ([]byte, error) { return c.get(ctx, prefix+"/config") }

// ServerBootstrap reads the bootstrap record, in plain.
func (c *Client) ServerBootstrap(ctx context.Context) ([]byte, error) {
	return c.get(ctx, prefix+"/server-bootstrap")
}

// ClientCA and ServerCA read the authorities of clients and of servers, PEM.
func (c *Client) ClientCA(ctx context.Context) ([]byte, error) {
	return c.get(ctx, prefix+"/client-ca.crt")
}

// ServerCA reads the authority of servers.
func (c *Client) ServerCA(ctx context.Context) ([]byte, error) {
	return c.get(ctx, prefix+"/server-ca.crt")
}

// Ready asks whether etcd and kube-apiserver run; ErrNotReady is the answer no.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.get(ctx, prefix+"/readyz")
	return err
}

// APIServers lists the cluster's kube-apiservers as host:port.
func (c *Client) APIServers(ctx context.Context) ([]string, error) {
	var all []string
	return all, c.getJSON(ctx, prefix+"/apiservers", &all)
}

// Member is a member of etcd, as its protobuf looks in JSON.
type Member struct {
	ID         uint64   `json:"ID"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// DBInfo lists etcd's members.
func (c *Client) DBInfo(ctx context.Context) ([]Member, error) {
	members, _, err := c.ClusterInfo(ctx)
	return members, err
}

// ClusterInfo lists etcd's members, and reads what a server of ours says of its cluster beside them; empty where it is
// another's.
func (c *Client) ClusterInfo(ctx context.Context) ([]Member, json.RawMessage, error) {
	var answer struct {
		Members []Member        `json:"members"`
		Keelson json.RawMessage `json:"keelson"`
	}
	err := c.getJSON(ctx, "/db/info", &answer)
	return answer.Members, answer.Keelson, err
}

// ReplaceAuthorities sends a new set of authorities, the JSON of bootstrap data.
func (c *Client) ReplaceAuthorities(ctx context.Context, plain []byte, force bool) error {
	path := prefix + "/cert/cacerts"
	if force {
		path += "?" + url.Values{"force": {"true"}}.Encode()
	}
	_, err := c.do(ctx, question{method: http.MethodPut, path: path, body: plain})
	return err
}

// ReplaceToken asks for another server token; empty lets the server make one.
func (c *Client) ReplaceToken(ctx context.Context, next token.Secret) error {
	body, err := json.Marshal(map[string]string{"newToken": next.Reveal()})
	if err != nil {
		return fmt.Errorf("render request: %w", err)
	}
	_, err = c.do(ctx, question{method: http.MethodPut, path: prefix + "/token", body: body, header: ofJSON()})
	return err
}

// FinishToken ends the time in which the token before the last is honoured: Keelson's own.
func (c *Client) FinishToken(ctx context.Context) error {
	_, err := c.do(ctx, question{method: http.MethodDelete, path: prefix + "/token"})
	return err
}

// EncryptStatus reads how Secrets are encrypted, as JSON.
func (c *Client) EncryptStatus(ctx context.Context) ([]byte, error) {
	return c.get(ctx, prefix+"/encrypt/status")
}

// ChangeEncryption asks for a change of how Secrets are encrypted. It goes on after the answer.
func (c *Client) ChangeEncryption(ctx context.Context, request []byte) error {
	_, err := c.do(ctx, question{method: http.MethodPut, path: prefix + "/encrypt/config", body: request, header: ofJSON()})
	return err
}

// Snapshot has snapshots of etcd saved, listed or deleted: a request and an answer in JSON. It takes as long as the
// server needs for a snapshot and its upload.
func (c *Client) Snapshot(ctx context.Context, request []byte) ([]byte, error) {
	return c.do(ctx, question{method: http.MethodPost, path: "/db/snapshot", body: request, header: ofJSON(), most: maxSnapshots, patient: true})
}

func ofJSON() http.Header { return http.Header{"Content-Type": {"application/json"}} }

func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, question{method: http.MethodGet, path: path})
}

func (c *Client) getJSON(ctx context.Context, path string, into any) error {
	data, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &Error{Server: c.access.Server, Path: path, Code: http.StatusOK, Message: "the answer is not what such a server gives: " + err.Error()}
	}
	return nil
}

// question is one request.
type question struct {
	method, path string
	body         []byte
	header       http.Header
	most         int64 // bytes of the answer; 0: maxAnswer
	patient      bool  // only the context ends it
}

// do makes one request.
func (c *Client) do(ctx context.Context, q question) ([]byte, error) {
	client, most := c.http, cmp.Or(q.most, maxAnswer)
	if q.patient {
		waits := *c.http
		waits.Timeout = 0
		client = &waits
	}
	r, err := http.NewRequestWithContext(ctx, q.method, c.access.Server+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	c.access.Authorize(r)
	path, _, _ := strings.Cut(q.path, "?")
	answer, err := client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask %s for %s: %w", c.access.Server, path, context.Cause(ctx))
		}
		var wrapped *url.Error // repeats method and URL
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, &Error{Server: c.access.Server, Path: path, Kind: ErrUnreachable, Message: err.Error()}
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	switch {
	case err != nil:
		return nil, &Error{Server: c.access.Server, Path: path, Kind: ErrUnreachable, Message: "read answer: " + err.Error()}
	case answer.StatusCode/100 == 2 && int64(len(data)) > most:
		return nil, &Error{Server: c.access.Server, Path: path, Code: answer.StatusCode, Message: fmt.Sprintf("the answer is larger than %d bytes", most)}
	case answer.StatusCode/100 == 2:
		return data, nil
	}
	return nil, &Error{Server: c.access.Server, Path: path, Kind: kind(answer.StatusCode), Code: answer.StatusCode, Message: message(data)}
}

func kind(code int) error {
	switch code {
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return ErrNotReady
	case http.StatusTooManyRequests:
		return ErrBusy
	case http.StatusUnauthorized:
		return ErrUnauthorized
	case http.StatusForbidden:
		return ErrForbidden
	case http.StatusNotFound:
		return ErrAbsent
	}
	return nil
}

// message is the text of a metav1.Status, or a short piece of what came in its place, quoted: a stranger wrote it.
func message(data []byte) string {
	var status struct {
		Kind    string
		Message string
	}
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		return clip(status.Message)
	}
	if len(data) == 0 {
		return "no reason given"
	}
	return fmt.Sprintf("%q", clip(string(data)))
}

func clip(s string) string {
	const most = 300
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
