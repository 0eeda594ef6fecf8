package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keelson/node/token"
	"keelson/node/trust"
)

// localServer is the supervisor of the machine that a verb runs on.
const localServer = "https://127.0.0.1:9345"

// operator is who has a server do something, by the server token.
type operator struct {
	dataDir   string
	server    string // URL
	token     string // empty: what stands in tokenFile
	tokenFile string // empty: the machine's own
	stderr    io.Writer
}

// access trusts the server: by this machine's own authority, or off a server by the one that the token names. What would
// be trusted on first use has no place to be remembered here, so a token that names none is refused.
func (o operator) access(ctx context.Context) (trust.Access, error) {
	c := trust.Config{
		Server: o.server, Token: token.Secret(o.token), User: token.UserServer,
		Timeout: time.Minute, // a change is answered within half of that, begun or done
		Log:     slog.New(slog.NewTextHandler(o.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if c.Token == "" {
		if o.tokenFile == "" {
			o.tokenFile = filepath.Join(o.dataDir, "server", "token")
		}
		text, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return trust.Access{}, fmt.Errorf("read the server token: %w; where this is no server, give one by --token-file", err)
		}
		c.Token = token.Secret(strings.TrimSpace(string(text)))
	}
	ca, err := os.ReadFile(filepath.Join(o.dataDir, "server", "tls", "server-ca.crt"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.RequireHash = true
	case err != nil:
		return trust.Access{}, fmt.Errorf("read server CA: %w", err)
	}
	c.CA = ca
	return trust.Validate(ctx, c)
}
