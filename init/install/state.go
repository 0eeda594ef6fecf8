package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keelson/init/layout"
	"keelson/init/source"
)

// stateFolder is what the new state begins with.
func (p *Plan) stateFolder() (string, error) {
	dir, err := os.MkdirTemp(p.c.Temp, "state-")
	if err != nil {
		return "", fmt.Errorf("prepare the state: %w", err)
	}
	file := filepath.Join(dir, strings.TrimPrefix(layout.UserData, layout.State))
	// The folder becomes the root of a file system, which others than root go through.
	err = os.Chmod(dir, 0o755)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = source.Store(file, p.c.Documents)
	}
	if err != nil {
		removeAll(dir)
		return "", fmt.Errorf("prepare the state: %w", err)
	}
	return dir, nil
}

// removeAll leaves nothing of secrets in a folder; what stays is in memory.
func removeAll(dir string) { _ = os.RemoveAll(dir) }
