package reencryption

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"keelson/node/supervisorclient"
	"keelson/node/trust"
)

// askAgain is for the end of a change, which a server tells only when asked.
const askAgain = time.Second

// Ask reads the status from a server, with the server token that access holds.
func Ask(ctx context.Context, access trust.Access) (Status, error) {
	var s Status
	client := supervisorclient.New(access, nil)
	defer client.Close()
	body, err := client.EncryptStatus(ctx)
	if err != nil {
		return s, fmt.Errorf("encryption: %w", err)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("encryption: %s answers what is no status: %w", access.Server, err)
	}
	return s, nil
}

// Request has a server make a change, and waits for its end.
func (r Request) Request(ctx context.Context, access trust.Access) (Status, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Status{}, fmt.Errorf("render request: %w", err)
	}
	client := supervisorclient.New(access, nil)
	defer client.Close()
	if err := client.ChangeEncryption(ctx, body); err != nil {
		return Status{}, fmt.Errorf("encryption: %w", err)
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
