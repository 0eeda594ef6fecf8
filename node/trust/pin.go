package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"keelson/node/file"
	"keelson/node/token"
)

// PinName is the file, below the etc of a server or an agent, that remembers an authority trusted on first use.
const PinName = "trusted-ca-hash"

// SavePin remembers the authority of a bundle, in place of another that was remembered: after a change of authority
// of which the machine has learnt from the cluster itself.
func SavePin(path string, bundle []byte) error {
	hash, err := token.CAHash(bundle)
	if err != nil {
		return fmt.Errorf("remember authority: %w", err)
	}
	return savePin(path, hash)
}

func savePin(path, hash string) error {
	_, err := file.Ensure(path, []byte(hash+"\n"), 0o600)
	return err
}

// LoadPin reads the hash that is remembered; where none is, it is empty. A file that says nothing is not taken for
// none: whoever can cut it short would choose the next authority.
func LoadPin(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("read remembered authority: %w", err)
	}
	return parsePin(path, data)
}

func parsePin(path string, data []byte) (string, error) {
	hash := strings.TrimSuffix(string(data), "\n")
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != 32 || hash != strings.ToLower(hash) {
		return "", fmt.Errorf("%s does not hold the hash of an authority (64 hex digits and a newline); remove it to trust the next authority seen, or set a whole token", path)
	}
	return hash, nil
}
