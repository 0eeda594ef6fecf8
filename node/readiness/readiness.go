// Package readiness tells when this machine's kube-apiserver serves. It asks the server itself, over TLS and as a
// client of the cluster, and trusts no process state. node/server waits on it before it starts whatever needs the API.
package readiness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// No event tells that another process has begun to listen, so it is asked: a refused connection to loopback costs some
// microseconds, and one kept connection serves every further question. Each of those makes a server that is busy
// starting ask etcd, so they are not put more often.
const (
	askEvery   = 200 * time.Millisecond
	askTimeout = 5 * time.Second
	// maxBody bounds what is kept of an answer that is not "ok": it lists the checks that do not hold yet.
	maxBody = 16 << 10
)

// Config names the server.
type Config struct {
	URL string      // such as https://127.0.0.1:6443
	TLS *tls.Config // with the CA, and a client certificate that may read /readyz
}

// Wait returns once the server answers 200 to /readyz. When ctx ends first, the error holds the last answer.
func Wait(ctx context.Context, cfg Config) error {
	client := &http.Client{
		Timeout:   askTimeout,
		Transport: &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, MaxIdleConns: 1},
	}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var last error // what the server lacked when it was asked last
	for {
		err := ask(ctx, client, cfg.URL+"/readyz")
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", cfg.URL, errors.Join(context.Cause(ctx), last))
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("request %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s: %s", resp.Status, body)
	}
	return nil
}
