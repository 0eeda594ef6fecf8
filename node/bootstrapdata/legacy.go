package bootstrapdata

import (
	"context"
	"fmt"

	"keelson/node/token"
)

// Migrate moves a record that an old k3s or RKE2 has put under another key to that of password, in one transaction,
// and tells whether it did. Those took the token as it was written for the passphrase: none at all, which has the key
// of the empty text, or the whole of K10<hash>::server:<password>; texts are the forms in which this server knows its
// token (k3s pkg/cluster/storage.go). A record that its own text does not open, or that is of another token by its
// password file, stays as it is, and so does everything where records differ: Load then says what is in the way.
func Migrate(ctx context.Context, s Transactor, password token.Secret, texts ...token.Secret) (bool, error) {
	for range attempts {
		done, moved, err := migrateOnce(ctx, s, password, texts)
		if err != nil {
			return false, fmt.Errorf("migrate bootstrap data: %w", err)
		}
		if done {
			return moved, nil
		}
	}
	return false, fmt.Errorf("migrate bootstrap data: other servers wrote it %d times meanwhile; try again", attempts)
}

// migrateOnce tells whether nothing is left to do, and whether something was done.
func migrateOnce(ctx context.Context, s Transactor, password token.Secret, texts []token.Secret) (done, moved bool, err error) {
	all, err := s.List(ctx, Prefix)
	if err != nil {
		return false, false, err
	}
	next := Record{Key: Key(password)}
	expect := []Record{next}
	var data Data // of the records that are moved
	var old []string
	for _, r := range all {
		if r.Key == next.Key {
			next, expect[0] = r, r
			continue
		}
		opened := openLegacy(r, password, texts)
		if opened == nil || data != nil && !sameFiles(data, opened) {
			return true, false, nil
		}
		data, old, expect = opened, append(old, r.Key), append(expect, r)
	}
	if len(old) == 0 {
		return true, false, nil
	}
	var put []Record
	if next.Value == "" {
		if put, err = written(password, data.at(data.Generation()+1)); err != nil {
			return false, false, err
		}
	} else if have, err := readRecord(password, next); err != nil || !sameFiles(have, data) {
		return true, false, nil
	} // else an old server was cut off between writing the new one and removing the old
	done, err = s.Commit(ctx, expect, put, old)
	return done, done, err
}

// openLegacy gives what a record holds that one of the old passphrases opens; nil where none does.
func openLegacy(r Record, password token.Secret, texts []token.Secret) Data {
	for _, text := range append([]token.Secret{""}, texts...) {
		if r.Value == "" || r.Key != Key(text) || text == password {
			continue
		}
		if text != "" {
			if p, err := token.ServerPassword(text); err != nil || p != password {
				continue
			}
		}
		data, err := readRecord(text, r)
		if err == nil && isOf(data, password) {
			return data
		}
	}
	return nil
}

// isOf tells whether a record's password file has no other server token than password. Without this any token would
// do for a record that the empty one opens, and a mistyped one would become the cluster's.
func isOf(data Data, password token.Secret) bool {
	passwd, ok := data["PasswdFile"]
	if !ok {
		return true
	}
	users, err := token.ParsePasswd(passwd.Content)
	own := token.PasswordsOf(users).Server
	return err == nil && (own == "" || own == password)
}

// sameFiles tells whether two records hold the same, whenever it was written.
func sameFiles(a, b Data) bool {
	for _, e := range Entries() {
		if hash(a[e.Name].Content) != hash(b[e.Name].Content) {
			return false
		}
	}
	return true
}
