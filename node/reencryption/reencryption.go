// Package reencryption rotates the keys that encrypt Secrets at rest, while the whole cluster runs: `node
// secrets-encrypt`, which asks for it by /v1-rke2/encrypt/ (k3s pkg/server/handlers/secrets-encrypt.go).
//
// At no moment is there a Secret that a server cannot read, wherever the power goes. A rotation is a chain of states of
// the cluster's bootstrap record (package encryption says which): the new key behind the old, before it, alone. Every
// server follows the record and says on its Node what its own kube-apiserver has loaded (Announcer). A step is made
// only from a state that all servers have loaded, and by compare-and-swap from that very state: so no two servers are
// ever more than one step apart, and neighbouring states read what the other writes. The old key goes when etcd itself
// shows that no Secret is left under it. A rotation that was cut off goes on from the record when it is asked for
// again, on whichever server.
//
// It writes no file: the followers of the record do. node/server gives it the record, the cluster and etcd.
package reencryption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"keelson/node/encryption"
)

// ErrBusy is a second change while one is under way on this server.
var ErrBusy = errors.New("another change of the encryption is under way on this server")

// Record is where the cluster keeps its settings of encryption.
type Record interface {
	Load(ctx context.Context) (encryption.Settings, error)
	// Replace puts next in the place of from; what is there instead of from is ErrMoved.
	Replace(ctx context.Context, from, next encryption.Settings) error
}

// Config is what a Manager needs.
type Config struct {
	Record  Record
	Nodes   kubernetes.Interface
	Secrets metadata.Interface                          // limited in what it asks for a second
	Members func(ctx context.Context) ([]string, error) // names of etcd's members
	// Raw goes through all Secrets in etcd, as they are there.
	Raw func(ctx context.Context, each func(key string, value []byte)) error
	Now func() time.Time
	Log *slog.Logger
	// Deadline is how long servers may take to load a state; 0: two minutes (k3s: the same).
	Deadline time.Duration
	// Patience is how long who asked for a change waits for its end; 0: twenty seconds.
	Patience time.Duration
}

// The defaults of Config.
const (
	defaultDeadline = 2 * time.Minute
	defaultPatience = 20 * time.Second // an answer of the listener may take thirty
)

// Manager changes the encryption of the cluster's Secrets, one change at a time.
type Manager struct {
	Config
	asked chan job

	mu  sync.Mutex // guards what follows
	now Progress
}

// Progress is what a manager tells of its last change. RKE2's clients pass over it.
type Progress struct {
	Change  string `json:"change,omitempty"`
	Running bool   `json:"running"`
	Done    int    `json:"done"` // Secrets written anew
	Error   string `json:"error,omitempty"`
}

type job struct {
	name string
	run  func(context.Context) error
	end  chan error
}

// New makes a manager, which works while Run does.
func New(c Config) (*Manager, error) {
	if c.Record == nil || c.Nodes == nil || c.Secrets == nil || c.Members == nil || c.Raw == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("reencryption: every field but Deadline and Patience is needed")
	}
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	return &Manager{Config: c, asked: make(chan job)}, nil
}

// Run makes the changes that are asked for until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-m.asked:
			err := j.run(ctx)
			m.tell(func(p *Progress) {
				p.Running = false
				if err != nil {
					p.Error = err.Error()
				}
			})
			if err != nil {
				m.Log.Error("encryption of Secrets", "change", j.name, "error", err)
			} else {
				m.Log.Info("encryption of Secrets changed", "change", j.name)
			}
			j.end <- err
		}
	}
}

// Change has a change made. It returns when that has ended, or has not failed for a while: then it goes on, and Status
// tells how it ends.
func (m *Manager) Change(ctx context.Context, r Request) error {
	name, run, err := m.plan(r)
	if err != nil {
		return err
	}
	if !m.begin(name) {
		return ErrBusy
	}
	j := job{name: name, run: run, end: make(chan error, 1)}
	select {
	case m.asked <- j:
	case <-ctx.Done():
		m.tell(func(p *Progress) { *p = Progress{} })
		return context.Cause(ctx)
	}
	patience := time.NewTimer(m.Patience)
	defer patience.Stop()
	select {
	case err := <-j.end:
		return err
	case <-patience.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin tells whether nothing was under way, and then something is.
func (m *Manager) begin(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Running {
		return false
	}
	m.now = Progress{Change: name, Running: true}
	return true
}

func (m *Manager) tell(change func(*Progress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.now)
}

// Progress tells how far the last change is.
func (m *Manager) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// plan says what a request asks for.
func (m *Manager) plan(r Request) (string, func(context.Context) error, error) {
	if r.Stage == nil {
		if r.Enable == nil {
			return "", nil, fmt.Errorf("%w: neither a stage nor enable", ErrRequest)
		}
		if *r.Enable {
			return "enable", func(ctx context.Context) error { return m.enable(ctx, true) }, nil
		}
		return "disable", func(ctx context.Context) error { return m.enable(ctx, false) }, nil
	}
	switch *r.Stage {
	case encryption.Prepare:
		return "prepare", func(ctx context.Context) error {
			return m.step(ctx, func(s encryption.Settings) (encryption.Settings, error) { return s.Prepared(m.Now(), r.Force) })
		}, nil
	case encryption.Rotate:
		return "rotate", func(ctx context.Context) error {
			return m.step(ctx, func(s encryption.Settings) (encryption.Settings, error) { return s.Rotated(r.Force) })
		}, nil
	case encryption.Active:
		return "reencrypt", func(ctx context.Context) error { return m.reencrypt(ctx, r.Force, r.Skip) }, nil
	case encryption.RotateKeys:
		return "rotate-keys", m.rotateKeys, nil
	}
	return "", nil, fmt.Errorf("%w: unknown stage %q", ErrRequest, *r.Stage)
}
