package rotation

import (
	"fmt"
	"strings"

	"keelson/node/token"
)

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
