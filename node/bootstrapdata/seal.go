package bootstrapdata

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// SealKey is where etcd keeps, beside the record and written with it, what the record holds, for who has the key of
// the cluster's server authority and not its token. It is Keelson's own, and outside of what RKE2 lists for records.
const SealKey = "/keelson/bootstrap-seal"

// What keeps a disk from being proven to hold what the newest record does.
var (
	ErrUnsealed = errors.New("nothing tells what the newest bootstrap data holds: no server of this version has seen it with its token since it was written last")
	// ErrNoProof is a key on the disk that is not the one of the newest record's authority, or files that are not its.
	ErrNoProof = errors.New("this disk does not hold what the newest bootstrap data does")
)

// proof names the files of a record by digests that only the holder of the server authority's key can make, so that
// they tell nobody else even whether a guess at a file is right.
type proof struct {
	Generation uint64            `json:"generation"`
	Record     string            `json:"record"`    // SHA-256 of the record's value, which anybody may compare
	Authority  string            `json:"authority"` // SHA-256 of tls/server-ca.crt, for messages
	Files      map[string]string `json:"files"`     // HMAC of each entry but the password file, whose rows are no secret of the cluster's
	MAC        string            `json:"mac"`       // of all of this
}

// sealing derives the key of seals from the server authority's private key, as the file has it.
func sealing(data Data, use string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, data["ServerCAKey"].Content, nil, "keelson "+use+" 1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return key, nil
}

func mac(key []byte, parts ...[]byte) string {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:", len(p)) // a hash takes all
		_, _ = h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// newSeal makes the seal of data, whose record has value. Data without an authority has an empty one, which proves
// nothing.
func newSeal(data Data, value string) (string, error) {
	if len(data["ServerCAKey"].Content) == 0 {
		return "", nil
	}
	key, err := sealing(data, "bootstrap seal")
	if err != nil {
		return "", err
	}
	t := proof{Generation: data.Generation(), Record: hash([]byte(value)), Authority: hash(data["ServerCA"].Content), Files: map[string]string{}}
	for _, e := range Entries() {
		if f, ok := data[e.Name]; ok && e.Name != "PasswdFile" {
			t.Files[e.Name] = mac(key, []byte(e.Name), f.Content)
		}
	}
	text, err := t.render(key)
	return string(text), err
}

func (t proof) render(key []byte) ([]byte, error) {
	t.MAC = ""
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("seal bootstrap data: %w", err)
	}
	t.MAC = mac(key, text)
	return json.Marshal(t)
}

// parseSeal reads a seal. One that cannot be read is no seal.
func parseSeal(value string) (proof, error) {
	var t proof
	if err := json.Unmarshal([]byte(value), &t); err != nil || t.Record == "" || t.MAC == "" {
		return proof{}, ErrUnsealed
	}
	return t, nil
}

// prove checks that disk holds what the record with value does, by the seal's word: the keys of the authority, so that
// who asks has them, and every other file. Files that the record lacks do no harm.
func (t proof) prove(serverDir string, disk Data, value string) error {
	if t.Record != hash([]byte(value)) {
		return ErrUnsealed
	}
	key, err := sealing(disk, "bootstrap seal")
	if err != nil {
		return err
	}
	want, err := t.render(key)
	if err != nil {
		return err
	}
	var made proof
	if err := json.Unmarshal(want, &made); err != nil || !hmac.Equal([]byte(made.MAC), []byte(t.MAC)) {
		return fmt.Errorf("%w: the key %s is another one's than that of the cluster's authority (SHA-256 of its tls/server-ca.crt: %s); do this on a server whose disk has followed the cluster",
			ErrNoProof, filepath.Join(serverDir, "tls/server-ca.key"), t.Authority)
	}
	var wrong []string
	for _, e := range Entries() {
		want, ok := t.Files[e.Name]
		if f, onDisk := disk[e.Name]; ok && (!onDisk || !hmac.Equal([]byte(mac(key, []byte(e.Name), f.Content)), []byte(want))) {
			wrong = append(wrong, filepath.Join(serverDir, e.Path))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("%w: these files are missing, or are others: %s; do this on a server whose disk has followed the cluster, or bring them from there",
			ErrNoProof, strings.Join(wrong, ", "))
	}
	return nil
}

// get gives the value of one key; absent, it has revision 0.
func get(ctx context.Context, s Store, key string) (Record, error) {
	all, err := s.List(ctx, key)
	if err != nil {
		return Record{}, err
	}
	for _, r := range all {
		if r.Key == key {
			return r, nil
		}
	}
	return Record{Key: key}, nil
}

// reseal makes the seal of a record that RKE2, or an older Keelson, has written. Where the record has changed meanwhile
// who wrote it sees to its seal.
func reseal(ctx context.Context, s Transactor, r Record, data Data) error {
	have, err := get(ctx, s, SealKey)
	if err != nil {
		return fmt.Errorf("seal bootstrap data: %w", err)
	}
	if t, err := parseSeal(have.Value); err == nil && t.Record == hash([]byte(r.Value)) || len(data["ServerCAKey"].Content) == 0 {
		return nil
	}
	value, err := newSeal(data, r.Value)
	if err != nil {
		return err
	}
	if _, err := s.Commit(ctx, []Record{r, have}, []Record{{Key: SealKey, Value: value}}, nil); err != nil {
		return fmt.Errorf("seal bootstrap data: %w", err)
	}
	return nil
}
