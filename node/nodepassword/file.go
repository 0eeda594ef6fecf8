package nodepassword

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keelson/node/file"
	"keelson/node/token"
)

// DefaultFile is where a machine keeps its own password, on STATE (k3s pkg/agent/config).
const DefaultFile = "/etc/rancher/node/password"

// EnsureFile gives this machine's password, which is made at its first start. A file that is there and empty is not
// taken for none: another password would be another machine's.
func EnsureFile(path string) (token.Secret, error) {
	content, err := os.ReadFile(path)
	if err == nil {
		password := strings.TrimSpace(string(content))
		if password == "" {
			return "", fmt.Errorf("node password %s is empty: put it back, or delete the Node of this machine and the file to join anew", path)
		}
		return token.Secret(password), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read node password: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make node password: %w", err)
	}
	password := token.Generate()
	return password, file.Write(path, []byte(password.Reveal()+"\n"), 0o600)
}
