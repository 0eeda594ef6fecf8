package etcdsnapshot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keelson/node/file"
)

// File is a snapshot, or the failure to take one.
type File struct {
	Name      string
	Node      string // that took it; "s3" where an object does not say
	Location  string // file:///path or s3://bucket/key
	Size      int64
	Created   time.Time
	Metadata  map[string]string
	TokenHash string
	S3        *S3Target // of objects
	Failure   string    // why there is no snapshot
}

// Remote is an object store's folder of snapshots.
type Remote interface {
	Target() S3Target
	// Retention is how many of one node's are kept; 0 keeps all.
	Retention() int
	Put(ctx context.Context, path string, f File) (File, error)
	List(ctx context.Context) ([]File, error)
	Delete(ctx context.Context, name string) error
	Fetch(ctx context.Context, name, path string) error
}

// Expired returns what retention removes: of those that node took under prefix, all but the newest keep. Nothing of
// another node or prefix is ever in it, which in a folder that servers share RKE2 does not heed.
func Expired(files []File, prefix, node string, keep int) []File {
	if keep <= 0 {
		return nil
	}
	type dated struct {
		File
		unix int64
	}
	var mine []dated
	for _, f := range files {
		if n, ok := ParseName(f.Name, node); ok && n.Prefix == prefix && f.Node == node && f.Failure == "" {
			mine = append(mine, dated{f, n.Unix})
		}
	}
	slices.SortFunc(mine, func(a, b dated) int {
		return cmp.Or(cmp.Compare(b.unix, a.unix), strings.Compare(a.Name, b.Name))
	})
	var expired []File
	for i, f := range mine {
		if i >= keep {
			expired = append(expired, f.File)
		}
	}
	return expired
}

// local lists a folder. Whatever lies there is a snapshot, as with RKE2: users bring files from elsewhere.
func (m *Manager) local(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var files []File
	for _, e := range entries {
		if !e.Type().IsRegular() || CheckFile(e.Name()) != nil {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		f := File{Name: e.Name(), Node: m.NodeName, Location: location(dir, e.Name()), Size: info.Size()}
		var ok bool
		if f.Created, ok = created(e.Name()); !ok {
			f.Created = info.ModTime().UTC().Truncate(time.Second)
		}
		f.Metadata, f.TokenHash = m.loadMetadata(e.Name())
		files = append(files, f)
	}
	return files, nil
}

// Newest gives the last snapshot that node took and that lies in a folder; false: there is none. Each was read back and
// checked before it got its name.
func Newest(dir, node string) (File, bool, error) {
	m := Manager{Config: Config{NodeName: node}}
	all, err := m.local(dir)
	if errors.Is(err, os.ErrNotExist) {
		return File{}, false, nil
	} else if err != nil {
		return File{}, false, err
	}
	all = slices.DeleteFunc(all, func(f File) bool {
		_, ours := ParseName(f.Name, node)
		return !ours
	})
	if len(all) == 0 {
		return File{}, false, nil
	}
	return slices.MaxFunc(all, func(a, b File) int { return a.Created.Compare(b.Created) }), true, nil
}

func location(dir, name string) string { return "file://" + filepath.Join(dir, name) }

// extra is what lies in the metadata folder beside each snapshot.
type extra struct {
	Data      map[string]string `json:"data,omitempty"`
	TokenHash string            `json:"tokenHash,omitempty"`
}

func (m *Manager) saveMetadata(f File) error {
	if m.Metadata == "" || len(f.Metadata) == 0 && f.TokenHash == "" {
		return nil
	}
	data, err := json.Marshal(extra{f.Metadata, f.TokenHash})
	if err != nil {
		return fmt.Errorf("save snapshot metadata: %w", err)
	}
	if err := os.MkdirAll(m.Metadata, 0o700); err != nil {
		return fmt.Errorf("save snapshot metadata: %w", err)
	}
	return file.Write(filepath.Join(m.Metadata, f.Name), data, 0o600)
}

// loadMetadata reads it back. A snapshot without is a snapshot all the same.
func (m *Manager) loadMetadata(name string) (map[string]string, string) {
	var e extra
	data, err := os.ReadFile(filepath.Join(m.Metadata, name))
	if m.Metadata == "" || err != nil || json.Unmarshal(data, &e) != nil {
		return nil, ""
	}
	return e.Data, e.TokenHash
}

// remove deletes a local snapshot and what is known of it.
func (m *Manager) remove(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	if m.Metadata == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(m.Metadata, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete snapshot metadata: %w", err)
	}
	return nil
}
