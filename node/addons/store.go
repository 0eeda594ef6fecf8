package addons

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"keelson/node/file"
)

// Ref names an object that an add-on has in the cluster.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Store remembers what each add-on has in the cluster, so that an object that has left its file is found again. One
// server keeps that in a file; with more servers it belongs into RKE2's Addon objects, which are to implement this.
type Store interface {
	Load(addon string) ([]Ref, error)
	Save(addon string, refs []Ref) error
}

// FileStore is a Store in one JSON file. It is used by one Controller at a time.
type FileStore struct{ Path string }

// Load returns what was saved for addon last.
func (s FileStore) Load(addon string) ([]Ref, error) {
	all, err := s.read()
	return all[addon], err
}

// Save replaces what is known of addon.
func (s FileStore) Save(addon string, refs []Ref) error {
	all, err := s.read()
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		delete(all, addon)
	} else {
		all[addon] = refs
	}
	content, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return fmt.Errorf("keep add-ons: %w", err)
	}
	if _, err := file.Ensure(s.Path, content, 0o600); err != nil {
		return fmt.Errorf("keep add-ons: %w", err)
	}
	return nil
}

func (s FileStore) read() (map[string][]Ref, error) {
	all := map[string][]Ref{}
	content, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read kept add-ons: %w", err)
	}
	if err := json.Unmarshal(content, &all); err != nil {
		return nil, fmt.Errorf("read kept add-ons: %s: %w; remove it to have what is applied now remembered anew", s.Path, err)
	}
	return all, nil
}
