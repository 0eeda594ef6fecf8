package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"keelson/node/token"
	"keelson/node/trust"
)

// Ask has a server rotate the token to next: PUT /v1-rke2/token, with the server token that access holds.
func Ask(ctx context.Context, access trust.Access, next token.Secret) error {
	body, err := RenderRequest(next)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, access.Server+"/v1-rke2/token", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("rotate token: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	access.Authorize(r)
	client := access.Client(nil)
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("rotate token: %w; the server may have done it or not, asking again with the same new token does no harm", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 == 2 {
		return nil
	}
	const most = 4096
	text, _ := io.ReadAll(io.LimitReader(answer.Body, most)) // what is there is enough
	var status struct{ Message string }
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		return fmt.Errorf("rotate token: %s answers %s", access.Server, answer.Status)
	}
	return fmt.Errorf("rotate token: %s answers %s: %q", access.Server, answer.Status, status.Message)
}
