// Package bootstrapdata is what a server needs to join a cluster: its certificate authorities, service account key,
// password file and encryption settings, kept in etcd as one record that the server token encrypts. Record, names
// and cipher are RKE2's to the byte (k3s pkg/bootstrap, pkg/cluster).
//
// It reads and writes the files under <server>, and etcd through the small Store interface; etcdstore is the real
// one. It never makes a certificate and never decides by the clock which of two versions is newer: it remembers what
// it last agreed on. node/server calls Sync when etcd is ready; supervisorapi serves what Load returns.
package bootstrapdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// File is one file of the record.
type File struct {
	Timestamp time.Time // modification time; told to others, never compared
	Content   []byte
}

// UnmarshalJSON reads the object, and the bare base64 text of old records.
func (f *File) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte(`"`)) {
		return json.Unmarshal(data, &f.Content)
	}
	type plain File
	return json.Unmarshal(data, (*plain)(f))
}

// Data is the record: files by name.
type Data map[string]File

// Entry is a file that belongs in the record.
type Entry struct{ Name, Path string }

// Entries lists the files of the record with their paths below <server>.
func Entries() []Entry {
	return []Entry{
		{"ETCDServerCA", "tls/etcd/server-ca.crt"},
		{"ETCDServerCAKey", "tls/etcd/server-ca.key"},
		{"ETCDPeerCA", "tls/etcd/peer-ca.crt"},
		{"ETCDPeerCAKey", "tls/etcd/peer-ca.key"},
		{"ServerCA", "tls/server-ca.crt"},
		{"ServerCAKey", "tls/server-ca.key"},
		{"ClientCA", "tls/client-ca.crt"},
		{"ClientCAKey", "tls/client-ca.key"},
		{"RequestHeaderCA", "tls/request-header-ca.crt"},
		{"RequestHeaderCAKey", "tls/request-header-ca.key"},
		{"ServiceKey", "tls/service.key"},
		{"PasswdFile", "cred/passwd"},
		{"IPSECKey", "cred/ipsec.psk"},
		{"EncryptionConfig", "cred/encryption-config.json"},
		{"EncryptionHash", "cred/encryption-state.json"},
	}
}

// generationEntry counts the versions of a record. It looks like one more file: RKE2 passes over entries that it does
// not know, and leaves it out of what it writes itself.
const generationEntry = "KeelsonGeneration"

// Generation counts how often the cluster's record was replaced; 0 where it was not written by Keelson.
func (d Data) Generation() uint64 {
	n, err := strconv.ParseUint(string(d[generationEntry].Content), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// at returns d as the record's generation n.
func (d Data) at(n uint64) Data {
	next := maps.Clone(d)
	next[generationEntry] = File{Content: strconv.AppendUint(nil, n, 10)}
	return next
}

// Collect reads the files of <server>. One that is absent is left out.
func Collect(serverDir string) (Data, error) {
	d := Data{}
	for _, e := range Entries() {
		path := filepath.Join(serverDir, e.Path)
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("collect bootstrap data: %w", err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("collect bootstrap data: %w", err)
		}
		d[e.Name] = File{Timestamp: info.ModTime(), Content: content}
	}
	return d, nil
}

// Encode writes the record's plain text: a JSON object with sorted names and a newline.
func (d Data) Encode() ([]byte, error) {
	out, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode bootstrap data: %w", err)
	}
	return append(out, '\n'), nil
}

// Decode reads a record's plain text.
func Decode(plain []byte) (Data, error) {
	var d Data
	if err := json.Unmarshal(plain, &d); err != nil {
		// The reader's error may quote the text, which holds keys.
		return nil, errors.New("decode bootstrap data: it is not a JSON object of files")
	}
	return d, nil
}

// ErrConflict is a disk that differs from the record in a way that nobody's last agreement explains.
type ErrConflict struct{ Paths []string }

// Error implements error.
func (e *ErrConflict) Error() string {
	return "bootstrap data on disk was changed outside of the cluster: " + strings.Join(e.Paths, ", ") +
		"; move the files away and restart, and they are written again as the cluster has them"
}
