package reencryption

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"keelson/node/trust"
)

const (
	prefix     = "/v1-rke2/encrypt/"
	mostAnswer = 64 << 10
	askAgain   = time.Second // for the end of a change, which a server tells only when asked
)

// Ask reads the status from a server, with the server token that access holds.
func Ask(ctx context.Context, access trust.Access) (Status, error) {
	var s Status
	body, err := do(ctx, access, http.MethodGet, "status", nil)
	if err == nil {
		if err = json.Unmarshal(body, &s); err != nil {
			err = fmt.Errorf("encryption: %s answers what is no status: %w", access.Server, err)
		}
	}
	return s, err
}

// Request has a server make a change, and waits for its end.
func (r Request) Request(ctx context.Context, access trust.Access) (Status, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Status{}, fmt.Errorf("render request: %w", err)
	}
	if _, err := do(ctx, access, http.MethodPut, "config", body); err != nil {
		return Status{}, err
	}
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		s, err := Ask(ctx, access)
		if err != nil || !s.Keelson.Running {
			if err == nil && s.Keelson.Error != "" {
				err = fmt.Errorf("encryption: %s: %s", access.Server, s.Keelson.Error)
			}
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("encryption: the change goes on: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func do(ctx context.Context, access trust.Access, method, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, access.Server+prefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	access.Authorize(r)
	client := access.Client(nil)
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	if answer.StatusCode/100 == 2 {
		return text, nil
	}
	var status struct{ Message string }
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		return nil, fmt.Errorf("encryption: %s answers %s", access.Server, answer.Status)
	}
	return nil, fmt.Errorf("encryption: %s answers %s: %q", access.Server, answer.Status, status.Message)
}
