package rotation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"keelson/node/token"
)

// ErrRequest is a body of PUT /v1-rke2/token that cannot be read.
var ErrRequest = errors.New(`the request is not of the form {"newToken":"..."}`)

// ParseRequest reads the body of PUT /v1-rke2/token (k3s pkg/server/handlers/token.go). A body that is empty, or that
// names no token, asks for a generated one.
func ParseRequest(body []byte) (token.Secret, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", nil
	}
	var r struct {
		NewToken *string `json:"newToken"`
	}
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || json.Unmarshal(body, &r) != nil {
		return "", ErrRequest // the reader's error may quote the token
	}
	if r.NewToken == nil {
		return "", nil
	}
	return token.Secret(*r.NewToken), nil
}

// RenderRequest writes the body.
func RenderRequest(next token.Secret) ([]byte, error) {
	out, err := json.Marshal(map[string]string{"newToken": next.Reveal()})
	if err != nil {
		return nil, fmt.Errorf("render request: %w", err)
	}
	return out, nil
}

// Check refuses what cannot be a server token, and generates one where none is given.
func Check(next token.Secret) (token.Secret, error) {
	if next == "" {
		return token.Generate(), nil
	}
	text := next.Reveal()
	if strings.HasPrefix(text, "K10") {
		return "", fmt.Errorf("%w: it begins with K10; give the password alone, the part after the last pair of colons and the user", ErrNewToken)
	}
	if _, err := token.ServerPassword(next); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNewToken, err)
	}
	if strings.TrimSpace(text) != text || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\ufffd' }) {
		return "", fmt.Errorf("%w: it holds blanks at an end, or characters that no line of text holds", ErrNewToken)
	}
	return next, nil
}
