// Package clusterreset makes a cluster of one server out of what is left of a cluster: of this server's own etcd data,
// or of a snapshot (RKE2's --cluster-reset and --cluster-reset-restore-path). It is also how the other servers find
// out, and join again without a hand on their disks.
//
// All is prepared beside the data, in db/reset-work, by an etcd inside this process that listens on a socket in a
// private folder: neither kubelet nor containerd is needed, so nothing of theirs can hold a reset up. Then the
// prepared folder takes the place of db/etcd in one rename. A power cut before that leaves the old data untouched,
// and the next start begins again; after it, the next start finishes. The old data stays as db/etcd-old-<unix>.
//
// The new cluster has an identity of its own, so that members of the old one are strangers to it, and revisions far
// above the old ones, so that no watcher takes the restored state for what it has seen. node/server calls Run before
// anything else of a start, Adopt once etcd serves, and Finish once kube-apiserver does.
package clusterreset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"keelson/node/bootstrapdata"
	"keelson/node/etcd"
	"keelson/node/file"
	"keelson/node/token"
)

// Params of a reset.
type Params struct {
	DataDir  string
	NodeName string
	Address  string // of the member, as in etcd.Params
	// Restore is cluster-reset-restore-path: a file, a file's name in SnapshotDir, or an object's name. Empty: the
	// cluster goes on from this server's own data.
	Restore     string
	SnapshotDir string
	Fetch       func(ctx context.Context, name, path string) error // from the object store; may be nil
	Password    token.Secret                                       // the server token's, which opens the bootstrap record
	Texts       []token.Secret                                     // forms of the token in which an old server may have used it
	// Recover gives the new data Password for its token where that does not open it; may be nil.
	Recover func(ctx context.Context, store bootstrapdata.Transactor) error
	Now     time.Time
	Log     *slog.Logger

	after func(step string) error // tests cut the power here
}

// Outcome says what Run found and did.
type Outcome int

const (
	// Done: the cluster has been reset, and the server can start.
	Done Outcome = iota
	// Already: this very reset was made by an earlier start. The settings should be taken away.
	Already
)

// What keeps a reset from being made.
var (
	ErrRunning = errors.New("etcd runs on the data: a reset is made before it starts; restart the machine")
	ErrNoData  = errors.New("this server has no etcd data to reset: name a snapshot with cluster-reset-restore-path")
)

// flag is db/reset-flag, RKE2's guard against a second reset: of a setting that nobody took away.
type flag struct {
	Request string `json:"request"` // Restore
	Member  string `json:"member"`  // the new member's name, by which its data is known
	Stamp   int64  `json:"stamp"`
	Epoch   Epoch  `json:"epoch"`
	Done    bool   `json:"done"`
}

func flagPath(dataDir string) string { return filepath.Join(dataDir, "server/db/reset-flag") }
func workPath(dataDir string) string { return filepath.Join(dataDir, "server/db/reset-work") }

// loadFlag returns nil where there is none. RKE2's is empty, and says that a reset was made.
func loadFlag(dataDir string) (*flag, error) {
	data, err := os.ReadFile(flagPath(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read reset flag: %w", err)
	}
	if len(data) == 0 {
		return &flag{Done: true}, nil
	}
	var f flag
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read reset flag %s: %w; remove the file", flagPath(dataDir), err)
	}
	return &f, nil
}

func (f flag) save(dataDir string) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("save reset flag: %w", err)
	}
	return file.Write(flagPath(dataDir), data, 0o600)
}

// Interrupted tells whether a power cut ended a reset. Run must then be called again whatever the settings say now: an
// interrupted reset has no data that a member could be started with.
func Interrupted(dataDir string) (bool, error) {
	f, err := loadFlag(dataDir)
	return f != nil && !f.Done && swapped(dataDir, *f), err
}

// swapped tells whether the new data is in place.
func swapped(dataDir string, f flag) bool {
	name, err := os.ReadFile(filepath.Join(etcd.Dir(dataDir), "name"))
	return err == nil && f.Member != "" && string(name) == f.Member
}

// Run makes the reset, or finishes one.
func Run(ctx context.Context, p Params) (Outcome, error) {
	f, err := loadFlag(p.DataDir)
	if err != nil {
		return Done, err
	}
	if f != nil && !f.Done && swapped(p.DataDir, *f) {
		return Done, p.finish(ctx, *f)
	}
	if f != nil && f.Done && f.Request == p.Restore {
		p.Log.Warn("the cluster has been reset already; take cluster-reset out of the settings", "restore", p.Restore)
		return Already, nil
	}
	if _, err := etcd.ReadKnown(p.DataDir); errors.Is(err, etcd.ErrInUse) {
		return Done, fmt.Errorf("reset: %w", ErrRunning)
	}
	work := workPath(p.DataDir)
	if err := os.RemoveAll(work); err != nil {
		return Done, fmt.Errorf("reset: %w", err)
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return Done, fmt.Errorf("reset: %w", err)
	}
	next := flag{Request: p.Restore, Member: etcd.NewName(p.NodeName), Stamp: p.Now.Unix()}
	if err := p.prepare(ctx, &next); err != nil {
		if !errors.Is(err, errCut) {
			err = errors.Join(err, os.RemoveAll(work))
		}
		return Done, fmt.Errorf("reset: %w", err)
	}
	return Done, p.finish(ctx, next)
}

// errCut is the tests' power cut, after which nothing is tidied up.
var errCut = errors.New("power cut")

func (p Params) did(step string) error {
	p.Log.Info("cluster reset", "step", step)
	if p.after != nil {
		return p.after(step)
	}
	return nil
}

// prepare makes the new data and puts it in place. Until its last step nothing outside db/reset-work has changed but
// the flag, which by itself says nothing.
func (p Params) prepare(ctx context.Context, f *flag) error {
	work := workPath(p.DataDir)
	if err := p.obtain(ctx, filepath.Join(work, "snapshot")); err != nil {
		return err
	}
	if err := p.did("snapshot"); err != nil {
		return err
	}
	if err := p.restore(*f); err != nil {
		return err
	}
	if err := p.did("restored"); err != nil {
		return err
	}
	if err := p.renew(ctx, f); err != nil {
		return err
	}
	if err := p.did("renewed"); err != nil {
		return err
	}
	if err := syncAll(work); err != nil {
		return err
	}
	if err := f.save(p.DataDir); err != nil {
		return err
	}
	if err := p.did("flag"); err != nil {
		return err
	}
	if err := exchange(filepath.Join(work, "etcd"), etcd.Dir(p.DataDir)); err != nil {
		return err
	}
	return p.did("exchanged")
}

// exchange has both folders change places in one step, or moves the one where the other is missing.
func exchange(prepared, target string) error {
	err := unix.Renameat2(unix.AT_FDCWD, prepared, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		err = os.Rename(prepared, target)
	}
	if err != nil {
		return fmt.Errorf("put %s in place: %w", target, err)
	}
	return syncAll(filepath.Dir(target))
}

// finish does what is left once the new data is in place. Every part of it can be done again.
func (p Params) finish(ctx context.Context, f flag) error {
	work := workPath(p.DataDir)
	db := filepath.Dir(work)
	old := filepath.Join(db, "etcd-old-"+strconv.FormatInt(f.Stamp, 10))
	if err := os.Rename(filepath.Join(work, "etcd"), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the old data: %w", err)
	}
	if err := p.did("old data"); err != nil {
		return err
	}
	if err := p.takeRecord(ctx, f); err != nil {
		return err
	}
	if err := p.did("files"); err != nil {
		return err
	}
	if err := saveEpoch(p.DataDir, f.Epoch); err != nil {
		return err
	}
	// Addresses of servers that are gone (k3s pkg/agent/loadbalancer).
	stale, err := filepath.Glob(filepath.Join(p.DataDir, "agent/etc/*-load-balancer.json"))
	if err != nil {
		return fmt.Errorf("find load balancer state: %w", err)
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove load balancer state: %w", err)
		}
	}
	if err := p.did("epoch"); err != nil {
		return err
	}
	f.Done = true
	if err := f.save(p.DataDir); err != nil {
		return err
	}
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("tidy up after the reset: %w", err)
	}
	p.Log.Warn("the cluster has been reset to this server; the others join anew", "member", f.Member, "epoch", f.Epoch.Number, "old", old)
	return p.did("done")
}

// syncAll has everything on a folder's file system reach the disk.
func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
