// Package recovery gives a cluster a new server token where nobody has the present one any more: its bootstrap record
// can be read by nobody then, so that no server starts and none joins.
//
// Who asks for it has a server's disk, with the cluster's authorities and their keys, and etcd. The seal beside the
// record (bootstrapdata) proves by the key of the server authority that the disk holds what the record does, to the
// last generation; then the disk's files become the record, under the new token. The records before are kept in a file.
// Where the disk turns out to know the token it is no recovery but a rotation, and the token before is honoured for a
// while. Servers that run, or were away, take the new one over by themselves (package rotation).
//
// It never makes a token, shows none, and touches no file but the password file, the tokens that people copy and the
// kept records. `node token recover` runs it, and a server's start where the settings have token-recover.
package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/file"
	"keelson/node/pki"
	"keelson/node/token"
)

// Params of a recovery.
type Params struct {
	Store     bootstrapdata.Transactor
	ServerDir string
	Next      token.Secret  // password of the new token
	Agent     token.Secret  // the agents' token of the settings; empty: as the password file has it, or Next
	Unsealed  bool          // take the disk's files where no seal tells what the record holds
	StoreOnly bool          // leave the disk's tokens as they are
	Overlap   time.Duration // how long a token that was not lost is honoured on
	Now       time.Time
}

// Outcome says what Run found and did.
type Outcome int

const (
	// Present: the new token is the cluster's already.
	Present Outcome = iota
	// Rotated: this disk had the cluster's token.
	Rotated
	// Recovered: nobody had, as far as this disk knows.
	Recovered
)

// Result of Run. Kept is the file with what a recovery has removed from etcd.
type Result struct {
	Outcome Outcome
	Kept    string
}

// Run makes Next the cluster's token. It can be done again after a cut anywhere.
func Run(ctx context.Context, p Params) (Result, error) {
	users, err := token.LoadPasswd(p.passwdPath())
	if err != nil {
		return Result{}, fmt.Errorf("%w; move %s away", err, p.passwdPath())
	}
	next := p.users(users)
	result, err := p.change(ctx, p.known(ctx, users), next)
	if err != nil || p.StoreOnly {
		return result, err
	}
	return result, p.writeTokens(next)
}

// change makes the record Next's.
func (p Params) change(ctx context.Context, known []token.Secret, users []token.User) (Result, error) {
	if _, err := bootstrapdata.Load(ctx, p.Store, p.Next); err == nil {
		return Result{Outcome: Present}, nil
	} else if !isLocked(err) {
		return Result{}, err
	}
	for _, old := range known {
		if _, err := bootstrapdata.Load(ctx, p.Store, old); err == nil {
			return Result{Outcome: Rotated}, bootstrapdata.Rotate(ctx, p.Store, old, p.Next, p.Now.Add(p.Overlap))
		} else if !isLocked(err) {
			return Result{}, err
		}
	}
	if err := p.checkAuthorities(); err != nil {
		return Result{}, err
	}
	kept := filepath.Join(p.ServerDir, "db", "bootstrap-before-recovery-"+strconv.FormatInt(p.Now.UnixNano(), 10)+".json")
	_, err := bootstrapdata.Recover(ctx, p.Store, bootstrapdata.Recovery{
		ServerDir: p.ServerDir, Users: users, Next: p.Next, Unsealed: p.Unsealed,
		Keep: func(all []bootstrapdata.Record) error { return keep(kept, all) },
	})
	if err != nil {
		// A file whose records are still in etcd is worth nothing, and nobody should take it for more.
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && refused(err) {
			err = errors.Join(err, remove(kept))
		}
		return Result{}, err
	}
	return Result{Outcome: Recovered, Kept: kept}, nil
}

// isLocked tells whether an error says that a token does not open what is there.
func isLocked(err error) bool {
	return errors.Is(err, bootstrapdata.ErrOtherToken) || errors.Is(err, bootstrapdata.ErrSeveral) || errors.Is(err, bootstrapdata.ErrPassword) || errors.Is(err, bootstrapdata.ErrCipher)
}

// refused tells whether an error says that nothing was written to etcd.
func refused(err error) bool {
	return errors.Is(err, bootstrapdata.ErrUnsealed) || errors.Is(err, bootstrapdata.ErrNoProof) || errors.Is(err, bootstrapdata.ErrNone)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// known are the tokens that may be the cluster's, as far as this disk has any.
func (p Params) known(ctx context.Context, users []token.User) []token.Secret {
	all := []token.Secret{token.PasswordsOf(users).Server}
	if text, err := os.ReadFile(filepath.Join(p.ServerDir, "token")); err == nil {
		if password, err := token.ServerPassword(token.Secret(strings.TrimSpace(string(text)))); err == nil {
			all = append(all, password)
		}
	}
	if previous, err := token.LoadPrevious(p.ServerDir); err == nil {
		all = append(all, previous.Passwords.Server)
	}
	// A recovery before this one, whose token nobody has seen.
	if last, ok, err := bootstrapdata.LastRecovery(ctx, p.Store); err == nil && ok {
		if password, err := last.Open(p.ServerDir); err == nil {
			all = append(all, password)
		}
	}
	var known []token.Secret
	for _, one := range all {
		if one != "" && one != p.Next {
			known = append(known, one)
		}
	}
	return known
}

// users are the rows of the password file with the new token.
func (p Params) users(have []token.User) []token.User {
	next := token.WithServer(have, p.Next)
	for i := range next {
		if next[i].Name == token.UserNode && p.Agent != "" {
			next[i].Password = p.Agent
		}
	}
	return next
}

// checkAuthorities refuses a disk whose authorities have lost their keys, or have others': as the cluster's record they
// would end it.
func (p Params) checkAuthorities() error {
	disk, err := bootstrapdata.Collect(p.ServerDir)
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range []string{"ServerCA", "ClientCA", "RequestHeaderCA", "ETCDServerCA", "ETCDPeerCA"} {
		if err := pki.CheckAuthority(disk[name].Content, disk[name+"Key"].Content); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := pki.CheckServiceKeys(disk["ServiceKey"].Content, disk["ServiceKey"].Content); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("the authorities in %s are not whole: %w", filepath.Join(p.ServerDir, "tls"), errors.Join(problems...))
	}
	return nil
}

// keep writes records to a file. They are sealed, or encrypted with tokens, as they were in etcd.
func keep(path string, all []bootstrapdata.Record) error {
	var there []bootstrapdata.Record
	for _, r := range all {
		if r.Revision != 0 {
			there = append(there, r)
		}
	}
	data, err := json.MarshalIndent(there, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the records before: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the records before: %w", err)
	}
	return file.Write(path, append(data, '\n'), 0o600)
}

func (p Params) passwdPath() string { return filepath.Join(p.ServerDir, "cred", "passwd") }

// writeTokens brings this server's files in line, so that its next start needs no hand.
func (p Params) writeTokens(users []token.User) error {
	data, err := token.RenderPasswd(users)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.passwdPath()), 0o700); err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	if _, err := file.Ensure(p.passwdPath(), data, 0o600); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(p.ServerDir, "tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w", err)
	}
	return token.EnsureFiles(p.ServerDir, bundle, token.PasswordsOf(users))
}
