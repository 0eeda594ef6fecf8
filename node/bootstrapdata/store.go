package bootstrapdata

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"keelson/node/token"
)

// Record is a value of the store.
type Record struct {
	Key      string
	Value    string
	Revision int64 // etcd's ModRevision
}

// Store is the part of etcd that records need.
type Store interface {
	// List returns all records whose keys begin with prefix.
	List(ctx context.Context, prefix string) ([]Record, error)
	// Put writes value if key still has revision, 0 meaning that it does not exist, and tells whether it did.
	Put(ctx context.Context, key, value string, revision int64) (bool, error)
}

// What a store can hold that is not for us.
var (
	ErrNone       = errors.New("no bootstrap data in the datastore; check that the token is this cluster's")
	ErrOtherToken = errors.New("bootstrap data already found and encrypted with different token; set the token that this cluster was made with. " +
		"If nobody has it any more, `node token recover` on a server, or token-recover beside a new token in a server's settings, makes the new one the cluster's")
	ErrSeveral = errors.New("the datastore holds several records of bootstrap data; remove all but the one of this cluster's token")
)

// Load reads and decrypts the record that password encrypts.
func Load(ctx context.Context, s Store, password token.Secret) (Data, error) {
	r, password, err := find(ctx, s, password)
	if err != nil {
		return nil, err
	}
	return readRecord(password, r)
}

// Save writes data as the cluster's record if there is none, and tells whether it did. The first server's data
// wins; an empty value is the lock that a server holds while it makes its data, and is replaced.
func Save(ctx context.Context, s Transactor, password token.Secret, data Data) (bool, error) {
	r, password, err := find(ctx, s, password)
	if err != nil {
		return false, err
	}
	if r.Value != "" {
		return false, nil
	}
	if len(data) == 0 {
		return false, errors.New("save bootstrap data: this server has none of the files; start it without its etcd data to make them")
	}
	return writeRecord(ctx, s, password, data.at(1), r)
}

// attempts bounds how often Replace starts over because another server was faster.
const attempts = 5

// Replace makes what change returns the cluster's record, one generation later; change may be called more than once.
// A record that does not exist, or is another token's, is an error: there is nothing to replace.
func Replace(ctx context.Context, s Transactor, password token.Secret, change func(Data) (Data, error)) (Data, error) {
	for range attempts {
		r, password, err := find(ctx, s, password)
		if err != nil {
			return nil, err
		}
		old, err := readRecord(password, r)
		if err != nil {
			return nil, err
		}
		next, err := change(maps.Clone(old))
		if err != nil {
			return nil, err
		}
		next = next.at(old.Generation() + 1)
		if done, err := writeRecord(ctx, s, password, next, r); err != nil || done {
			return next, err
		}
	}
	return nil, fmt.Errorf("replace bootstrap data: other servers wrote it %d times meanwhile; try again", attempts)
}

// readRecord decrypts a record. One without a value is absent, or the lock of a server that is about to write it.
func readRecord(password token.Secret, r Record) (Data, error) {
	if r.Value == "" {
		return nil, ErrNone
	}
	plain, err := Decrypt(password, r.Value)
	if err != nil {
		return nil, err
	}
	return Decode(plain)
}

// writeRecord writes data in place of r, with its seal, and tells whether r was still there.
func writeRecord(ctx context.Context, s Transactor, password token.Secret, data Data, r Record) (bool, error) {
	put, err := written(password, data)
	if err != nil {
		return false, err
	}
	saved, err := s.Commit(ctx, []Record{r}, put, nil)
	if err != nil {
		return false, fmt.Errorf("save bootstrap data: %w", err)
	}
	return saved, nil
}

// written is what is put where data becomes the record of password.
func written(password token.Secret, data Data) ([]Record, error) {
	plain, err := data.Encode()
	if err != nil {
		return nil, err
	}
	value, err := Encrypt(password, plain)
	if err != nil {
		return nil, err
	}
	seal, err := newSeal(data, value)
	if err != nil {
		return nil, err
	}
	return []Record{{Key: Key(password), Value: value}, {Key: SealKey, Value: seal}}, nil
}

// Sync brings disk and record together: the disk's files become the record where there is none, and the disk follows
// the record where there is one. It returns the paths it wrote; components that have read them must start anew.
func Sync(ctx context.Context, s Transactor, password token.Secret, serverDir string) ([]string, error) {
	data, err := Collect(serverDir)
	if err != nil {
		return nil, err
	}
	saved, err := Save(ctx, s, password, data)
	if err != nil {
		return nil, err
	}
	if saved {
		return nil, saveAgreed(serverDir, data.at(1))
	}
	r, password, err := find(ctx, s, password)
	if err != nil {
		return nil, err
	}
	record, err := readRecord(password, r)
	if err != nil {
		return nil, err
	}
	if err := reseal(ctx, s, r, record); err != nil {
		return nil, err
	}
	return Reconcile(serverDir, record)
}

// find returns the record of password, or an empty one, and the password that opens it: during a rotation the token
// before still finds the record. A store that holds another's record is refused: writing beside it would split the
// cluster.
func find(ctx context.Context, s Store, password token.Secret) (Record, token.Secret, error) {
	all, err := s.List(ctx, Prefix)
	if err != nil {
		return Record{}, "", fmt.Errorf("list bootstrap data: %w", err)
	}
	switch {
	case len(all) == 0:
		return Record{Key: Key(password)}, password, nil
	case len(all) > 1:
		return Record{}, "", ErrSeveral
	case all[0].Key != Key(password):
		if next, ok := successor(ctx, s, password); ok && all[0].Key == Key(next) {
			return all[0], next, nil
		}
		return Record{}, "", ErrOtherToken
	}
	return all[0], password, nil
}

// Serve gives the plain text that /v1-rke2/server-bootstrap answers with: the record, or the files of this server
// where the store cannot give it (it is down, or nothing is saved yet), as RKE2 does.
func Serve(ctx context.Context, s Store, password token.Secret, serverDir string) ([]byte, error) {
	data, err := Load(ctx, s, password)
	if err != nil {
		if data, err = Collect(serverDir); err != nil {
			return nil, err
		}
	}
	return data.Encode()
}
