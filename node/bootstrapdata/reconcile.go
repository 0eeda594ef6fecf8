package bootstrapdata

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"keelson/node/file"
)

// agreedPath is where a server remembers, below <server>, the hash of each file at its last agreement with the
// record, and that record's generation. With them, "who changed?" needs no clock (the harm of comparing clocks: k3s issues 3888, 4910, 7313).
const agreedPath = "cred/.bootstrap-agreed.json"

// agreement is what a server remembers of the record that it last followed or wrote.
type agreement struct {
	Generation uint64            // the record's; 0 where RKE2 wrote it
	Files      map[string]string // hashes by entry
}

// ErrOlder is a record that this server has already left behind.
var ErrOlder = errors.New("the datastore holds an older generation of the bootstrap data than this server has followed: it was restored from a snapshot behind this server's back; " +
	"finish the restore with a cluster reset, after which this server joins anew")

// Reconcile makes the disk follow the record and returns the paths it wrote. A file that is missing is written; one
// that differs is written if the disk still has what was last agreed on; if it is the disk that changed, the result
// is ErrConflict and nothing is written. The password file is the exception: its server row is proven right by
// having decrypted the record, the rest may change at will, so the disk's stays. Where a whole folder of secrets
// is missing or empty, the record is written as a whole.
func Reconcile(serverDir string, record Data) ([]string, error) {
	agreed := loadAgreed(serverDir)
	if gen := record.Generation(); gen != 0 && gen < agreed.Generation {
		return nil, fmt.Errorf("record %d, this server %d: %w", gen, agreed.Generation, ErrOlder)
	}
	fresh, err := fresh(serverDir)
	if err != nil {
		return nil, fmt.Errorf("reconcile bootstrap data: %w", err)
	}
	disk, err := Collect(serverDir)
	if err != nil {
		return nil, err
	}
	var write []Entry
	var conflicts []string
	for _, e := range Entries() {
		want, ok := record[e.Name]
		if !ok {
			continue
		}
		have, onDisk := disk[e.Name]
		switch {
		case !onDisk || fresh:
			write = append(write, e)
		case hash(have.Content) == hash(want.Content):
		case e.Name == "PasswdFile":
		case agreed.Files[e.Name] == hash(have.Content):
			write = append(write, e)
		default:
			conflicts = append(conflicts, filepath.Join(serverDir, e.Path))
		}
	}
	if len(conflicts) > 0 {
		return nil, &ErrConflict{Paths: conflicts}
	}
	paths, err := put(serverDir, record, write)
	if err != nil {
		return nil, err
	}
	return paths, saveAgreed(serverDir, record)
}

// Restore makes the disk be the record, whatever was agreed on before, and returns the paths it wrote: for a server
// that comes back to a cluster which was restored, or went on, without it.
func Restore(serverDir string, record Data) ([]string, error) {
	disk, err := Collect(serverDir)
	if err != nil {
		return nil, err
	}
	var write []Entry
	for _, e := range Entries() {
		want, ok := record[e.Name]
		if have, onDisk := disk[e.Name]; ok && (!onDisk || hash(have.Content) != hash(want.Content)) {
			write = append(write, e)
		}
	}
	paths, err := put(serverDir, record, write)
	if err != nil {
		return nil, err
	}
	return paths, saveAgreed(serverDir, record)
}

// put writes entries of the record to disk, with their times.
func put(serverDir string, record Data, entries []Entry) ([]string, error) {
	var files []file.File
	for _, e := range entries {
		path := filepath.Join(serverDir, e.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("write bootstrap data: %w", err)
		}
		files = append(files, file.File{Path: path, Data: record[e.Name].Content, Mode: 0o600})
	}
	if err := file.WriteAll(files); err != nil {
		return nil, fmt.Errorf("write bootstrap data: %w", err)
	}
	var paths []string
	for i, e := range entries {
		if at := record[e.Name].Timestamp; !at.IsZero() {
			if err := os.Chtimes(files[i].Path, at, at); err != nil {
				return nil, fmt.Errorf("write bootstrap data: %w", err)
			}
		}
		paths = append(paths, files[i].Path)
	}
	return paths, nil
}

// fresh tells whether one of the folders of secrets is missing or empty.
func fresh(serverDir string) (bool, error) {
	for _, dir := range []string{"cred", "tls", "tls/etcd"} {
		entries, err := os.ReadDir(filepath.Join(serverDir, dir))
		if os.IsNotExist(err) || err == nil && len(entries) == 0 {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, nil
}

// loadAgreed reads the hashes of the last agreement. One that is missing or broken agrees on nothing, which makes
// every difference a conflict: the safe reading.
func loadAgreed(serverDir string) agreement {
	var agreed agreement
	data, err := os.ReadFile(filepath.Join(serverDir, agreedPath))
	if err != nil || json.Unmarshal(data, &agreed) != nil {
		return agreement{}
	}
	return agreed
}

func saveAgreed(serverDir string, record Data) error {
	agreed := agreement{Generation: record.Generation(), Files: map[string]string{}}
	for name, f := range record {
		if name != generationEntry {
			agreed.Files[name] = hash(f.Content)
		}
	}
	data, err := json.Marshal(agreed)
	if err != nil {
		return fmt.Errorf("remember bootstrap data: %w", err)
	}
	path := filepath.Join(serverDir, agreedPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("remember bootstrap data: %w", err)
	}
	_, err = file.Ensure(path, data, 0o600)
	return err
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
