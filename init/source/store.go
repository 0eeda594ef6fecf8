package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keelson/init/file"
	"keelson/init/userdata"
)

// Store keeps accepted documents for boots without a source, whole or not at
// all. They hold secrets, so that root alone may read them.
func Store(path string, docs userdata.Documents) error {
	data, err := json.Marshal(docs)
	if err != nil {
		return fmt.Errorf("store user-data: %w", err)
	}
	if len(data) > maxStored {
		return fmt.Errorf("store user-data: %d MiB are more than the %d MiB that can be kept", len(data)>>20, maxStored>>20)
	}
	if err := file.Write(path, data, 0o600); err != nil {
		return fmt.Errorf("store user-data: %w", err)
	}
	return nil
}

func readStored(path string) (userdata.Documents, error) {
	var docs userdata.Documents
	if path == "" {
		return docs, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return docs, nil
	}
	if err != nil {
		return docs, fmt.Errorf("stored user-data: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStored+1))
	if err == nil {
		docs, err = parseStored(data)
	}
	if err != nil {
		return userdata.Documents{}, fmt.Errorf("stored user-data %s: %w; attach a source again", path, err)
	}
	return docs, nil
}

func parseStored(data []byte) (docs userdata.Documents, err error) {
	if err := json.Unmarshal(data, &docs); err != nil {
		return userdata.Documents{}, err
	}
	return docs, nil
}
