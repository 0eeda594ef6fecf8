package bootstrapdata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"keelson/node/token"
)

// RecoveryKey is where etcd remembers the token that a recovery has made, sealed with the key of the cluster's server
// authority: servers that run, or were away, take it over by the key on their disks. The next rotation ends it.
const RecoveryKey = "/keelson/token-recovery"

// ErrRecovery is a recovery's token that the key on this disk does not open.
var ErrRecovery = errors.New("the cluster's token was recovered, and this disk's authority does not open the new one; set it in this server's settings")

// skipped is how many generations a record that cannot be told to be the newest is put after the newest one known.
const skipped = 1000

// Recovery is how Recover makes a new token.
type Recovery struct {
	ServerDir string
	Users     []token.User // rows of the password file with the new token: what the record is to have
	Next      token.Secret
	// Unsealed takes the disk's files on the word of who asks where no seal says what the newest record holds.
	Unsealed bool
	// Keep is given what is removed, before it is.
	Keep func([]Record) error
}

// Recover makes the files of the disk the cluster's record under a new token, one generation later, without the token
// before. The seal must prove that the disk holds what the record does, with the authority's key; a disk that is
// behind, or of another cluster, changes nothing. All happens in one transaction, which ends a rotation that was under
// way. The result is the new record's generation.
func Recover(ctx context.Context, s Transactor, r Recovery) (uint64, error) {
	for range attempts {
		generation, done, err := recoverOnce(ctx, s, r)
		if err != nil {
			return 0, fmt.Errorf("recover the token: %w", err)
		}
		if done {
			return generation, nil
		}
	}
	return 0, fmt.Errorf("recover the token: other servers wrote the record %d times meanwhile; try again", attempts)
}

func recoverOnce(ctx context.Context, s Transactor, r Recovery) (uint64, bool, error) {
	old, err := s.List(ctx, Prefix)
	if err != nil {
		return 0, false, err
	}
	if len(old) == 0 {
		return 0, false, fmt.Errorf("%w; there is nothing to recover, a server that starts with a token makes it the cluster's", ErrNone)
	}
	var beside []Record
	for _, key := range []string{SealKey, RecoveryKey, RotationKey} {
		one, err := get(ctx, s, key)
		if err != nil {
			return 0, false, err
		}
		beside = append(beside, one)
	}
	disk, err := Collect(r.ServerDir)
	if err != nil {
		return 0, false, err
	}
	generation, err := proven(r, disk, beside[0], old)
	if err != nil {
		return 0, false, err
	}
	if err := r.Keep(append(slices.Clone(old), beside...)); err != nil {
		return 0, false, err
	}
	passwd, err := token.RenderPasswd(r.Users)
	if err != nil {
		return 0, false, err
	}
	disk = maps.Clone(disk)
	disk["PasswdFile"] = File{Timestamp: disk["PasswdFile"].Timestamp, Content: passwd}
	disk = disk.at(generation)
	put, err := written(r.Next, disk)
	if err != nil {
		return 0, false, err
	}
	note, err := renderRecovery(disk, r.Next)
	if err != nil {
		return 0, false, err
	}
	expect, remove := append(slices.Clone(old), beside...), []string{RotationKey, FollowersPrefix}
	if !slices.ContainsFunc(old, func(one Record) bool { return one.Key == Key(r.Next) }) {
		expect = append(expect, Record{Key: Key(r.Next)})
	}
	for _, one := range old {
		if one.Key != Key(r.Next) {
			remove = append(remove, one.Key)
		}
	}
	done, err := s.Commit(ctx, expect, append(put, Record{Key: RecoveryKey, Value: note}), remove)
	return generation, done, err
}

// proven gives the generation of the record that is to replace old, or why the disk may not replace it.
func proven(r Recovery, disk Data, sealed Record, old []Record) (uint64, error) {
	agreed := loadAgreed(r.ServerDir)
	t, err := parseSeal(sealed.Value)
	if err == nil {
		err = ErrUnsealed
		for _, one := range old {
			if err = t.prove(r.ServerDir, disk, one.Value); !errors.Is(err, ErrUnsealed) {
				break
			}
		}
	}
	switch {
	case err == nil:
		return max(t.Generation, agreed.Generation) + 1, nil
	case !errors.Is(err, ErrUnsealed):
		return 0, err
	case !r.Unsealed:
		return 0, fmt.Errorf("%w; if this server has followed the cluster to the last, say so with --unsealed, or token-recover-unsealed in the settings", err)
	}
	// What the seal cannot tell, the last agreement does as far as it goes: that nobody has changed these files since.
	var wrong []string
	for _, e := range Entries() {
		f, onDisk := disk[e.Name]
		was, had := agreed.Files[e.Name]
		needed := len(agreed.Files) == 0 && e.Name != "PasswdFile" && e.Name != "IPSECKey"
		if e.Name != "PasswdFile" && (had && (!onDisk || hash(f.Content) != was) || needed && !onDisk) {
			wrong = append(wrong, filepath.Join(r.ServerDir, e.Path))
		}
	}
	if len(wrong) > 0 {
		return 0, fmt.Errorf("%w: these files are missing, or were changed outside of the cluster: %s", ErrNoProof, strings.Join(wrong, ", "))
	}
	return max(t.Generation, agreed.Generation) + skipped, nil
}

// Recovered is a token that a recovery has made.
type Recovered struct {
	To     string // key of the record
	sealed string
}

type recoveryText struct {
	To    string `json:"to"`
	Token string `json:"token"`
}

func recoverySecret(data Data) (token.Secret, error) {
	if len(data["ServerCAKey"].Content) == 0 {
		return "", ErrRecovery
	}
	key, err := sealing(data, "token recovery")
	return token.Secret(key), err
}

func renderRecovery(data Data, next token.Secret) (string, error) {
	secret, err := recoverySecret(data)
	if err != nil {
		return "", err
	}
	sealed, err := Encrypt(secret, []byte(next.Reveal()))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(recoveryText{To: Key(next), Token: sealed})
	if err != nil {
		return "", fmt.Errorf("recover the token: %w", err)
	}
	return string(text), nil
}

// LastRecovery gives the recovery that made the cluster's present token, if one did.
func LastRecovery(ctx context.Context, s Store) (Recovered, bool, error) {
	note, err := get(ctx, s, RecoveryKey)
	if err != nil {
		return Recovered{}, false, fmt.Errorf("look for a recovery of the token: %w", err)
	}
	var t recoveryText
	if note.Revision == 0 || json.Unmarshal([]byte(note.Value), &t) != nil || !strings.HasPrefix(t.To, Prefix) || t.Token == "" {
		return Recovered{}, false, nil // a broken one tells nothing: the settings have to
	}
	record, err := get(ctx, s, t.To)
	if err != nil {
		return Recovered{}, false, fmt.Errorf("look for a recovery of the token: %w", err)
	}
	return Recovered{To: t.To, sealed: t.Token}, record.Revision != 0, nil
}

// Open gives the token to who has the authority's key on disk.
func (r Recovered) Open(serverDir string) (token.Secret, error) {
	data, err := Collect(serverDir)
	if err != nil {
		return "", err
	}
	secret, err := recoverySecret(data)
	if err != nil {
		return "", err
	}
	plain, err := Decrypt(secret, r.sealed)
	if err != nil || Key(token.Secret(plain)) != r.To {
		return "", ErrRecovery
	}
	return token.Secret(plain), nil
}
