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
	return do(ctx, access, "rotate token", http.MethodPut, body)
}

// AskFinish has a server end the overlap of the last rotation: DELETE /v1-rke2/token, which is Keelson's own, with the new
// server token.
func AskFinish(ctx context.Context, access trust.Access) error {
	return do(ctx, access, "finish the rotation of the token", http.MethodDelete, nil)
}

func do(ctx context.Context, access trust.Access, what, method string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, access.Server+"/v1-rke2/token", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.Header.Set("Content-Type", "application/json")
	access.Authorize(r)
	client := access.Client(nil)
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%s: %w; the server may have done it or not, asking the same again does no harm", what, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 == 2 {
		return nil
	}
	const most = 4096
	text, _ := io.ReadAll(io.LimitReader(answer.Body, most)) // what is there is enough
	var status struct{ Message string }
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		return fmt.Errorf("%s: %s answers %s", what, access.Server, answer.Status)
	}
	return fmt.Errorf("%s: %s answers %s: %q", what, access.Server, answer.Status, status.Message)
}
