// Package rotation changes the server token of a running cluster. Nobody restarts: for an overlap the token before
// and the new one are both honoured, and every server learns of the change from etcd.
//
// One transaction makes the bootstrap record the new token's and tells of the rotation (bootstrapdata.Rotate); it
// either happened or not. Everything after it is each server following what etcd tells, in steps that may be cut off
// anywhere and done again: the token before goes into cred/passwd-previous.json, the new one into cred/passwd, then
// into the files that people copy. A server that was away meanwhile follows at its next start. When the overlap ends
// the token before is forgotten, first by each server's clock, then in etcd; sooner where somebody asks for it (Finish).
//
// It never looks at the settings and answers no request itself: node/server gives its Users to supervisorapi whenever
// Changed is called, and its Rotate and Finish to PUT and DELETE of /v1-rke2/token.
package rotation

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"keelson/node/bootstrapdata"
	"keelson/node/file"
	"keelson/node/token"
)

// DefaultOverlap is how long the token before a rotation is honoured.
const DefaultOverlap = 24 * time.Hour

// Store is the part of etcd that rotations need; bootstrapdata/etcdstore has it.
type Store interface {
	bootstrapdata.Transactor
	// Changes tells that a key may have changed: at once, and at each change. It is closed when ctx ends.
	Changes(ctx context.Context, key string) <-chan struct{}
}

// Config is what a Rotator needs.
type Config struct {
	Store     Store
	ServerDir string        // <server>; cred/passwd and tls/server-ca.crt are in it
	Overlap   time.Duration // 0: DefaultOverlap
	Name      string        // of this server
	// Servers lists the names of the cluster's servers, for who wants an overlap ended before its time.
	Servers func(ctx context.Context) ([]string, error)
	// Changed is called, one call at a time, after the users that are honoured have changed.
	Changed func(users []token.User) error
	Log     *slog.Logger
	Now     func() time.Time                     // nil: time.Now
	After   func(time.Duration) <-chan time.Time // nil: time.After
}

// What a rotation is refused for.
var (
	ErrNotCurrent = errors.New("the token shown is not the cluster's present one")
	ErrNewToken   = errors.New("the new token is not usable")
)

// Rotator follows and makes rotations on one server.
type Rotator struct {
	cfg Config
	cut func(step string) error // tests end the power here

	work    sync.Mutex // one change at a time: of the files, and of what follows
	pending bool       // Changed is to be called

	mu       sync.RWMutex // guards what follows against readers, who must not wait for etcd
	users    []token.User
	previous token.Previous
}

// New reads the server's tokens.
func New(cfg Config) (*Rotator, error) {
	if cfg.Store == nil || cfg.Changed == nil || cfg.Servers == nil || cfg.Log == nil {
		return nil, errors.New("rotation: Store, Changed, Servers and Log must be set")
	}
	if cfg.Overlap == 0 {
		cfg.Overlap = DefaultOverlap
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	r := &Rotator{cfg: cfg, cut: func(string) error { return nil }}
	var err error
	if r.users, err = token.LoadPasswd(r.passwdPath()); err != nil {
		return nil, fmt.Errorf("rotation: %w", err)
	}
	if token.PasswordsOf(r.users).Server == "" {
		return nil, fmt.Errorf("rotation: %s has no row of %s", r.passwdPath(), token.UserServer)
	}
	if r.previous, err = token.LoadPrevious(cfg.ServerDir); err != nil {
		return nil, fmt.Errorf("rotation: %w", err)
	}
	return r, nil
}

func (r *Rotator) passwdPath() string { return filepath.Join(r.cfg.ServerDir, "cred", "passwd") }

// Users are all rows that are honoured now. During an overlap two rows have the same name, the present one last.
func (r *Rotator) Users() []token.User {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var all []token.User
	if r.cfg.Now().Before(r.previous.Expires) {
		all = r.previous.Users()
	}
	return append(all, r.users...)
}

// Passwords are the cluster's present tokens.
func (r *Rotator) Passwords() token.Passwords {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return token.PasswordsOf(r.users)
}

// Overlap gives the moment until which the token before is honoured, for status; false: there is none.
func (r *Rotator) Overlap() (time.Time, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.previous.Expires, r.previous.Passwords.Server != "" && r.cfg.Now().Before(r.previous.Expires)
}

// Rotate changes the token and returns when this server honours both. shown is the server token of who asks. An empty
// next is generated; the result is the new token. Asking again for what is done already is no error.
func (r *Rotator) Rotate(ctx context.Context, shown, next token.Secret) (token.Secret, error) {
	next, err := Check(next)
	if err != nil {
		return "", err
	}
	r.work.Lock()
	defer r.work.Unlock()
	now := r.Passwords()
	switch {
	case same(r.previous.Passwords.Server, shown) && same(now.Server, next):
		return next, nil
	case !same(now.Server, shown):
		return "", ErrNotCurrent
	case same(now.Server, next):
		return "", fmt.Errorf("%w: it is the present one", ErrNewToken)
	case now.Agent != now.Server && same(now.Agent, next):
		return "", fmt.Errorf("%w: it is the agents' token", ErrNewToken)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := bootstrapdata.Rotate(limited, r.cfg.Store, shown, next, r.cfg.Now().Add(r.cfg.Overlap)); err != nil {
		return "", err
	}
	if err := r.cut("committed"); err != nil {
		return "", err
	}
	if _, err := r.follow(ctx); err != nil {
		return "", fmt.Errorf("the token is rotated, and this server will follow: %w", err)
	}
	return next, nil
}

// patience is how long etcd may take to answer; without a majority it never does. retry is how soon following is tried
// again after a failure.
const (
	patience = 15 * time.Second
	retry    = 5 * time.Second
)

// Run follows rotations until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	changes := r.cfg.Store.Changes(ctx, bootstrapdata.RotationKey)
	recoveries := r.cfg.Store.Changes(ctx, bootstrapdata.RecoveryKey)
	var later <-chan time.Time
	if until, ok := r.Overlap(); ok { // etcd may be silent until then
		later = r.cfg.After(until.Sub(r.cfg.Now()))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok {
				return nil
			}
		case _, ok := <-recoveries:
			if !ok {
				return nil
			}
		case <-later:
		}
		r.work.Lock()
		wait, err := r.follow(ctx)
		r.work.Unlock()
		later = nil
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			r.cfg.Log.Error("rotation of the token", "error", err)
			later = r.cfg.After(retry)
		case wait > 0:
			later = r.cfg.After(wait)
		}
	}
}

// follow brings this server in line with what etcd tells, and says after what time to look again (0: at the next
// change). The caller holds work.
func (r *Rotator) follow(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rotation, ok, err := bootstrapdata.Rotating(ctx, r.cfg.Store)
	if err != nil {
		if !r.cfg.Now().Before(r.previous.Expires) { // the overlap ends without etcd, too
			err = errors.Join(err, r.forget())
		}
		return 0, err
	}
	if !ok {
		if err := r.takeRecovery(ctx); err != nil {
			return 0, err
		}
		return 0, r.forget()
	}
	if err := r.take(ctx, rotation); err != nil {
		return 0, err
	}
	if wait := rotation.Expires.Sub(r.cfg.Now()); wait > 0 {
		return wait, nil
	}
	if err := r.forget(); err != nil {
		return 0, err
	}
	if err := r.cut("forgotten"); err != nil {
		return 0, err
	}
	if err := bootstrapdata.EndRotation(ctx, r.cfg.Store, rotation); err != nil {
		return 0, err
	}
	r.cfg.Log.Info("the token before the rotation is honoured no more")
	return 0, nil
}

// adopt takes the tokens of a rotation over, unless this server has them already.
func (r *Rotator) adopt(rotation bootstrapdata.Rotation) error {
	now := r.Passwords()
	old, next := now.Server, now.Server
	var err error
	if bootstrapdata.Key(now.Server) == rotation.To {
		old, err = rotation.Old(now.Server)
	} else {
		next, err = rotation.New(now.Server)
	}
	if err != nil {
		return fmt.Errorf("a rotation from %s to %s is under way, and this server's token is neither; set the new token: %w", rotation.From, rotation.To, err)
	}
	changed, err := r.keepPrevious(rotation, old, now)
	if err != nil {
		return err
	}
	if err := r.cut("previous"); err != nil {
		return err
	}
	users := token.WithServer(r.users, next)
	data, err := token.RenderPasswd(users)
	if err != nil {
		return err
	}
	wrote, err := file.Ensure(r.passwdPath(), data, 0o600)
	if err != nil {
		return err
	}
	r.set(users, r.previous)
	if err := r.cut("passwd"); err != nil {
		return err
	}
	if err := r.writeTokens(); err != nil {
		return err
	}
	if err := r.cut("tokens"); err != nil {
		return err
	}
	if changed || wrote {
		r.pending = true
		r.cfg.Log.Info("token rotated", "previous_honoured_until", rotation.Expires)
	}
	return r.tell()
}

// tell calls Changed until it has taken the last change.
func (r *Rotator) tell() error {
	if !r.pending {
		return nil
	}
	if err := r.cfg.Changed(r.Users()); err != nil {
		return fmt.Errorf("change users: %w", err)
	}
	r.pending = false
	return nil
}

// keepPrevious makes the token before one that is honoured for the overlap, and tells whether it was not.
func (r *Rotator) keepPrevious(rotation bootstrapdata.Rotation, old token.Secret, now token.Passwords) (bool, error) {
	if !r.cfg.Now().Before(rotation.Expires) && r.previous.Passwords.Server == "" && r.previous.Expires.Equal(rotation.Expires) {
		return false, nil // forgotten already
	}
	want := token.Passwords{Server: old, Agent: now.Agent}
	if now.Agent == now.Server {
		want.Agent = old
	}
	if r.previous.Passwords == want && r.previous.Expires.Equal(rotation.Expires) {
		return false, nil
	}
	hash, err := token.Hash(old)
	if err != nil {
		return false, err
	}
	next := token.Previous{Passwords: want, Hash: hash, Expires: rotation.Expires}
	if err := token.SavePrevious(r.cfg.ServerDir, next); err != nil {
		return false, err
	}
	r.pending = true
	r.set(r.users, next)
	return true, nil
}

// forget drops the token before, all but its hash.
func (r *Rotator) forget() error {
	if r.previous.Passwords == (token.Passwords{}) {
		return r.tell()
	}
	next := token.Previous{Hash: r.previous.Hash, Expires: r.previous.Expires}
	if err := token.SavePrevious(r.cfg.ServerDir, next); err != nil {
		return err
	}
	r.pending = true
	r.set(r.users, next)
	return r.tell()
}

// writeTokens writes the files that people copy.
func (r *Rotator) writeTokens() error {
	bundle, err := os.ReadFile(filepath.Join(r.cfg.ServerDir, "tls", "server-ca.crt"))
	if err != nil {
		return fmt.Errorf("read server CA: %w", err)
	}
	return token.EnsureFiles(r.cfg.ServerDir, bundle, r.Passwords())
}

// set changes what readers see. The caller holds work, and may read the fields without mu.
func (r *Rotator) set(users []token.User, previous token.Previous) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users, r.previous = users, previous
}

func same(a, b token.Secret) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a.Reveal()), []byte(b.Reveal())) == 1
}
