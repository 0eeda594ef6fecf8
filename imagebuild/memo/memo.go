// Package memo remembers results between builds: what a stage made from
// which inputs, and the hashes of files whose size, time and inode are the
// same as when they were hashed. Losing it costs time and nothing else. Only
// the builder uses it.
package memo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"

	"keelson/imagebuild/tree"
)

// Memo maps what something was made from to what came out.
type Memo struct {
	file string
	was  map[string]string
	is   map[string]string // what this build used: the rest is forgotten
}

// Load reads a memo; one that is absent or broken is empty.
func Load(file string) (*Memo, error) {
	m := &Memo{file: file, was: map[string]string{}, is: map[string]string{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read memo: %w", err)
	}
	if json.Unmarshal(text, &m.was) != nil {
		m.was = map[string]string{}
	}
	return m, nil
}

// Get returns what was remembered under key.
func (m *Memo) Get(key string) (string, bool) {
	value, ok := m.is[key]
	if !ok {
		if value, ok = m.was[key]; ok {
			m.is[key] = value
		}
	}
	return value, ok
}

// Set remembers value under key.
func (m *Memo) Set(key, value string) { m.is[key] = value }

// Save writes everything that is known: what a build does that has not come to
// its end.
func (m *Memo) Save() error {
	all := maps.Clone(m.was)
	maps.Copy(all, m.is)
	return m.write(all)
}

// Store writes what this build used and forgets the rest.
func (m *Memo) Store() error { return m.write(m.is) }

// write replaces the file whole or not at all.
func (m *Memo) write(entries map[string]string) error {
	text, err := json.MarshalIndent(entries, "", " ")
	if err != nil {
		return fmt.Errorf("write memo: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o755); err != nil {
		return fmt.Errorf("write memo: %w", err)
	}
	if err := os.WriteFile(m.file+".part", text, 0o644); err != nil {
		return fmt.Errorf("write memo: %w", err)
	}
	if err := os.Rename(m.file+".part", m.file); err != nil {
		return fmt.Errorf("write memo: %w", err)
	}
	return nil
}

// Digest is the SHA-256, in hex, over the entries of t at and below root:
// paths, modes, owners, targets and contents.
func (m *Memo) Digest(t *tree.Tree, root string) (string, error) {
	entries, err := t.Entries()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, e := range entries {
		rel, below := relative(e.Path, root)
		if !below {
			continue
		}
		sum, err := m.content(e)
		if err != nil {
			return "", fmt.Errorf("hash %s: %w", e.Path, err)
		}
		fmt.Fprintf(h, "%q %o %d %d %q %d %d %d %s\n", rel, uint32(e.Mode), e.UID, e.GID, e.Target, e.Major, e.Minor, e.Size, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func relative(p, root string) (string, bool) {
	if root == "/" || p == root {
		return p, true
	}
	if len(p) > len(root) && p[:len(root)] == root && p[len(root)] == '/' {
		return p[len(root):], true
	}
	return "", false
}

func (m *Memo) content(e tree.Entry) (string, error) {
	if !e.Mode.IsRegular() || e.Size == 0 {
		return "", nil
	}
	f, err := e.Open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	key := ""
	if file, ok := f.(*os.File); ok {
		if key, err = identity(file); err != nil {
			return "", err
		}
		if sum, ok := m.Get(key); ok {
			return sum, nil
		}
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if key != "" {
		m.Set(key, sum)
	}
	return sum, nil
}

// File is the SHA-256 of a file, in hex.
func (m *Memo) File(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	e := tree.Entry{Path: name, Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(name) }}
	sum, err := m.content(e)
	if err != nil {
		return "", fmt.Errorf("hash %s: %w", name, err)
	}
	return sum, nil
}

// identity names one state of one file: it changes when the file is written.
func identity(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	inode, changed := uint64(0), int64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode, changed = st.Ino, st.Ctim.Nano()
	}
	return fmt.Sprintf("file %s %d %d %d %d", f.Name(), info.Size(), info.ModTime().UnixNano(), inode, changed), nil
}
