package rotation

import (
	"context"
	"errors"
	"fmt"

	"keelson/node/supervisorclient"
	"keelson/node/token"
	"keelson/node/trust"
)

// Ask has a server rotate the token to next, with the server token that access holds.
func Ask(ctx context.Context, access trust.Access, next token.Secret) error {
	client := supervisorclient.New(access, nil)
	defer client.Close()
	return asked("rotate token", client.ReplaceToken(ctx, next))
}

// AskFinish has a server end the overlap of the last rotation, with the new server token.
func AskFinish(ctx context.Context, access trust.Access) error {
	client := supervisorclient.New(access, nil)
	defer client.Close()
	return asked("finish the rotation of the token", client.FinishToken(ctx))
}

// asked says what came of a question.
func asked(what string, err error) error {
	refused := (*supervisorclient.Error)(nil)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Code != 0:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w; the server may have done it or not, asking the same again does no harm", what, err)
}
