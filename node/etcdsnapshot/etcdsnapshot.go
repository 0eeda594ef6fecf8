// Package etcdsnapshot saves this server's etcd to files, on a schedule and on demand, keeps as many as wanted, and
// copies them to an object store: RKE2's snapshots (k3s pkg/etcd/snapshot.go), with its names, folders and objects.
//
// A snapshot counts once what lies on the disk has been read back and checked; until then it has no name. The package
// never changes etcd, never touches another server's files or objects, and never restores (package clusterreset does).
// node/server makes the Manager, gives it the member's client and puts it behind /db/snapshot; s3 is its object store,
// record its objects in the cluster.
package etcdsnapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/etcd"
	"keelson/node/file"
)

// RKE2's defaults.
const (
	DefaultSchedule  = "0 */12 * * *"
	DefaultPrefix    = "etcd-snapshot"
	OnDemandPrefix   = "on-demand"
	DefaultRetention = 5
	DefaultReconcile = 10 * time.Minute
)

// What a caller can tell apart.
var (
	ErrBusy    = errors.New("snapshot save already in progress")
	ErrLearner = errors.New("this etcd member is a learner, which may lag behind: take the snapshot on a voting server")
	ErrSpace   = errors.New("not enough disk space")
	ErrRequest = errors.New("request")
)

// Etcd is what of the member's client is needed. The client must know this server's own member only.
type Etcd interface {
	etcd.Asked
	SnapshotWithVersion(ctx context.Context) (*clientv3.SnapshotResponse, error)
}

// Records are the cluster's objects about snapshots. remote is nil where the object store was not asked.
type Records interface {
	Reconcile(ctx context.Context, node string, local []File, remote *Remotes) error
}

// Remotes is what an object store holds.
type Remotes struct {
	Target S3Target
	Files  []File
}

// Config is what New needs.
type Config struct {
	Etcd     Etcd
	Endpoint string // the member's, for Status
	NodeName string
	Dir      string // <server>/db/snapshots, or etcd-snapshot-dir, which must exist
	Metadata string // <server>/db/.metadata

	Schedule  string // etcd-snapshot-schedule-cron; empty: only on demand
	Prefix    string // etcd-snapshot-name; empty: DefaultPrefix
	Retention int    // etcd-snapshot-retention; 0 keeps all
	Compress  bool   // etcd-snapshot-compress
	TokenHash string // 12 hex digits, as in the key of the bootstrap record
	Reconcile time.Duration

	S3      *S3Config // nil: no object store
	Connect func(ctx context.Context, c S3Config) (Remote, error)
	Records Records                                              // may be nil
	Extra   func(ctx context.Context) (map[string]string, error) // data of rke2-etcd-snapshot-extra-metadata; may be nil

	Log *slog.Logger
}

// Manager takes snapshots, one at a time.
type Manager struct {
	Config
	schedule cron.Schedule
	saving   sync.Mutex

	mu       sync.Mutex
	failures []File // of this process, until the cluster has their records
	last     Outcome

	now    func() time.Time
	free   func(dir string) (uint64, error)
	jitter func() time.Duration
}

// Outcome is how a snapshot went.
type Outcome struct {
	At     time.Time // zero: none was tried
	Name   string    // empty: there is none
	Remote string    // where the object store has it
	Error  string
}

// Last is how this process' last snapshot went.
func (m *Manager) Last() Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// jitter keeps servers of one schedule from asking the disk and the object store at the same moment (k3s: the same).
const jitter = 5 * time.Second

// New checks the configuration. Nothing is done yet.
func New(c Config) (*Manager, error) {
	if c.Etcd == nil || c.Log == nil || c.NodeName == "" || !filepath.IsAbs(c.Dir) {
		return nil, errors.New("etcd snapshots: Etcd, Log, NodeName and an absolute Dir must be set")
	}
	if c.S3 != nil && c.Connect == nil {
		return nil, errors.New("etcd snapshots: Connect must be set with S3")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if err := CheckPrefix(c.Prefix); err != nil {
		return nil, fmt.Errorf("etcd-snapshot-name: %w", err)
	}
	if c.Retention < 0 {
		return nil, fmt.Errorf("etcd-snapshot-retention: %d is less than nothing; 0 keeps every snapshot", c.Retention)
	}
	if c.Reconcile <= 0 {
		c.Reconcile = DefaultReconcile
	}
	m := &Manager{Config: c, now: time.Now, free: freeSpace, jitter: func() time.Duration { return rand.N(jitter) }}
	if c.Schedule != "" {
		s, err := ParseSchedule(c.Schedule)
		if err != nil {
			return nil, err
		}
		m.schedule = s
	}
	return m, nil
}

// ParseSchedule reads etcd-snapshot-schedule-cron.
func ParseSchedule(text string) (cron.Schedule, error) {
	s, err := cron.ParseStandard(text)
	if err != nil {
		return nil, fmt.Errorf("etcd-snapshot-schedule-cron %q: %w; it takes five fields (minute hour day month weekday), such as %q, or @every 6h",
			text, err, DefaultSchedule)
	}
	return s, nil
}

// Prepare makes the default folder of snapshots and removes what a power cut left in it. A folder of the user's own
// must exist: it may be a mount that is missing.
func (m *Manager) Prepare(makeDir bool) error {
	if makeDir {
		if err := os.MkdirAll(m.Dir, 0o700); err != nil {
			return fmt.Errorf("make snapshot folder: %w", err)
		}
	}
	if err := file.Sweep(m.Dir); err != nil {
		return fmt.Errorf("snapshot folder %s: %w; etcd-snapshot-dir must name a folder that exists", m.Dir, err)
	}
	return nil
}

// Run takes the scheduled snapshots and keeps the records in line with the files until ctx ends. A snapshot that
// fails is told of and recorded; it does not end Run.
func (m *Manager) Run(ctx context.Context) error {
	next := m.next()
	reconcile := m.now().Add(min(m.Reconcile, time.Minute)) // soon after the start, which may follow a restore
	for {
		// The wall clock may be set meanwhile, so that no sleep is longer than a minute.
		at := reconcile
		if !next.IsZero() && next.Before(at) {
			at = next
		}
		timer := time.NewTimer(min(max(at.Sub(m.now()), 0), time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		now := m.now()
		if !next.IsZero() && !now.Before(next) {
			m.scheduled(ctx)
			next = m.next()
			reconcile = m.now().Add(spread(m.Reconcile))
		} else if !now.Before(reconcile) {
			if err := m.reconcile(ctx, nil); err != nil && ctx.Err() == nil {
				m.Log.Warn("etcd snapshots: records", "error", err)
			}
			reconcile = m.now().Add(spread(m.Reconcile))
		}
	}
}

func (m *Manager) next() time.Time {
	if m.schedule == nil {
		return time.Time{}
	}
	return m.schedule.Next(m.now()).Add(m.jitter())
}

// spread adds up to 5 % (k3s: the same).
func spread(d time.Duration) time.Duration { return d + rand.N(d/20+1) }

func (m *Manager) scheduled(ctx context.Context) {
	result, err := m.Save(ctx, Options{Prefix: m.Prefix, Compress: m.Compress, Retention: m.Retention, S3: m.S3})
	switch {
	case errors.Is(err, ErrLearner), errors.Is(err, ErrBusy):
		m.Log.Info("etcd snapshot left out", "reason", err)
	case err != nil && ctx.Err() == nil:
		m.Log.Error("etcd snapshot", "error", err, "created", result.Created)
	default:
		m.Log.Info("etcd snapshot", "created", result.Created, "deleted", result.Deleted)
	}
}
