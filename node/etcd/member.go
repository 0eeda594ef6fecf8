package etcd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keelson/node/file"
)

// EnsureName returns the member's name: the one in its folder, or a new `<node>-<8 hex>` (k3s pkg/etcd, setName). The
// random end lets a node that was removed come back as another member.
func EnsureName(dataDir, node string) (string, error) {
	target := filepath.Join(Dir(dataDir), "name")
	content, err := os.ReadFile(target)
	if err == nil {
		name := strings.TrimSpace(string(content))
		if name == "" {
			return "", fmt.Errorf("read member name: %s is empty; remove it to let this server be a new member", target)
		}
		return name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read member name: %w", err)
	}
	name := NewName(node)
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return "", fmt.Errorf("make member folder: %w", err)
	}
	if err := file.Write(target, []byte(name), 0o600); err != nil {
		return "", fmt.Errorf("keep member name: %w", err)
	}
	return name, nil
}

// NewName makes a name that no member of the cluster had before.
func NewName(node string) string {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	return node + "-" + hex.EncodeToString(random)
}

// NodeOf is the node's part of a member's name: all but the random end.
func NodeOf(name string) string {
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		return name[:i]
	}
	return name
}

// HasData tells whether the member was started before: it then knows its cluster.
func HasData(dataDir string) (bool, error) {
	_, err := os.Stat(filepath.Join(Dir(dataDir), "member", "wal"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for member data: %w", err)
	}
	return true, nil
}
