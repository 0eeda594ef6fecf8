package bootstrapdata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keelson/node/token"
)

// RotationKey is where etcd remembers a change of the server token for as long as the token before is honoured. It is
// Keelson's own; RKE2 sees one record under the new token, as after its own rotation.
const RotationKey = "/keelson/token-rotation"

// What stands in the way of a rotation.
var (
	ErrRotating = errors.New("another rotation of the token is under way")
	ErrRotation = errors.New("the record of a rotation in the datastore, " + RotationKey + ", cannot be read; remove it, and set the new token on servers that have not heard of it")
)

// Transactor is a Store that writes several keys at once.
type Transactor interface {
	Store
	// Commit writes put and removes the keys of remove (of one that ends with a slash, all below), all or nothing, if
	// every key of expect still has its revision, 0 meaning that it does not exist; it tells whether they had. Values of
	// expect do not count.
	Commit(ctx context.Context, expect, put []Record, remove []string) (bool, error)
}

// Rotation is a change of the server token of which not every server may have heard.
type Rotation struct {
	From, To string    // keys of the record before and after
	Expires  time.Time // when the token before is honoured no more

	fromSealed, toSealed string // each token, encrypted with the other
	revision             int64
}

type rotationText struct {
	From    string    `json:"from"`
	To      string    `json:"to"`
	Expires time.Time `json:"expires"`
	Old     string    `json:"old"`
	New     string    `json:"new"`
}

// New gives the token after the rotation to who has the one before.
func (r Rotation) New(old token.Secret) (token.Secret, error) { return open(old, r.From, r.toSealed) }

// Old gives the token before the rotation to who has the one after.
func (r Rotation) Old(next token.Secret) (token.Secret, error) { return open(next, r.To, r.fromSealed) }

func open(password token.Secret, key, sealed string) (token.Secret, error) {
	if Key(password) != key {
		return "", ErrPassword
	}
	plain, err := Decrypt(password, sealed)
	return token.Secret(plain), err
}

// Rotate makes the record one of another token, in one transaction that tells of it as well: there is never a moment
// with no record or two. The password file inside the record follows. Doing it again changes nothing.
func Rotate(ctx context.Context, s Transactor, old, next token.Secret, expires time.Time) error {
	for range attempts {
		if r, ok, err := Rotating(ctx, s); err != nil {
			return err
		} else if ok {
			if r.From == Key(old) && r.To == Key(next) {
				return nil
			}
			return fmt.Errorf("%w, until %s", ErrRotating, r.Expires.UTC().Format(time.RFC3339))
		}
		done, err := rotateOnce(ctx, s, old, next, expires)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("rotate token: other servers wrote the record %d times meanwhile; try again", attempts)
}

func rotateOnce(ctx context.Context, s Transactor, old, next token.Secret, expires time.Time) (bool, error) {
	have, opens, err := find(ctx, s, old)
	if err != nil {
		return false, err
	}
	if opens != old { // another server has rotated just now
		return false, nil
	}
	data, err := readRecord(old, have)
	if err != nil {
		return false, err
	}
	if passwd, ok := data["PasswdFile"]; ok {
		users, err := token.ParsePasswd(passwd.Content)
		if err != nil {
			return false, fmt.Errorf("rotate token: %w", err)
		}
		if passwd.Content, err = token.RenderPasswd(token.WithServer(users, next)); err != nil {
			return false, err
		}
		data["PasswdFile"] = passwd
	}
	put, err := written(next, data.at(data.Generation()+1))
	if err != nil {
		return false, err
	}
	told, err := renderRotation(old, next, expires)
	if err != nil {
		return false, err
	}
	done, err := s.Commit(ctx,
		[]Record{have, {Key: Key(next)}, {Key: RotationKey}},
		append(put, Record{Key: RotationKey, Value: told}),
		[]string{have.Key, RecoveryKey})
	if err != nil {
		return false, fmt.Errorf("rotate token: %w", err)
	}
	return done, nil
}

func renderRotation(old, next token.Secret, expires time.Time) (string, error) {
	toSealed, err := Encrypt(old, []byte(next.Reveal()))
	if err != nil {
		return "", err
	}
	fromSealed, err := Encrypt(next, []byte(old.Reveal()))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(rotationText{From: Key(old), To: Key(next), Expires: expires.UTC(), Old: fromSealed, New: toSealed})
	if err != nil {
		return "", fmt.Errorf("rotate token: %w", err)
	}
	return string(text), nil
}

// Rotating gives the rotation that is under way, if one is.
func Rotating(ctx context.Context, s Store) (Rotation, bool, error) {
	all, err := s.List(ctx, RotationKey)
	if err != nil {
		return Rotation{}, false, fmt.Errorf("look for a rotation of the token: %w", err)
	}
	for _, r := range all {
		if r.Key == RotationKey {
			rotation, err := parseRotation(r.Value)
			rotation.revision = r.Revision
			return rotation, err == nil, err
		}
	}
	return Rotation{}, false, nil
}

func parseRotation(value string) (Rotation, error) {
	var t rotationText
	if err := json.Unmarshal([]byte(value), &t); err != nil || t.From == "" || t.To == "" || t.From == t.To || t.Old == "" || t.New == "" || t.Expires.IsZero() {
		return Rotation{}, ErrRotation
	}
	return Rotation{From: t.From, To: t.To, Expires: t.Expires, fromSealed: t.Old, toSealed: t.New}, nil
}

// EndRotation forgets a rotation: from then on the token before opens nothing. Another server may have been faster.
func EndRotation(ctx context.Context, s Transactor, r Rotation) error {
	_, err := s.Commit(ctx, []Record{{Key: RotationKey, Revision: r.revision}}, nil, []string{RotationKey, FollowersPrefix})
	if err != nil {
		return fmt.Errorf("end rotation of the token: %w", err)
	}
	return nil
}

// successor gives the token that has replaced password, to a server that has not heard of it.
func successor(ctx context.Context, s Store, password token.Secret) (token.Secret, bool) {
	r, ok, err := Rotating(ctx, s)
	if err != nil || !ok {
		return "", false
	}
	next, err := r.New(password)
	return next, err == nil && Key(next) == r.To
}
