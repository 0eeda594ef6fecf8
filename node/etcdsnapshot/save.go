package etcdsnapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"keelson/node/etcd"
)

// Options of one snapshot.
type Options struct {
	Prefix    string
	Dir       string // empty: the configured one
	Compress  bool
	Retention int
	S3        *S3Config
}

// Result names what an operation made and removed.
type Result struct {
	Created []string `json:"created,omitempty"`
	Deleted []string `json:"deleted,omitempty"`
}

// saveTimeout ends a snapshot whose member has stopped sending.
const saveTimeout = time.Hour

// Save takes a snapshot, copies it to the object store if there is one, removes what is beyond the retention, and
// brings the records in line. What was created is in the result even when a later part fails.
func (m *Manager) Save(ctx context.Context, o Options) (Result, error) {
	if !m.saving.TryLock() {
		return Result{}, ErrBusy
	}
	defer m.saving.Unlock()
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := CheckPrefix(o.Prefix); err != nil {
		return Result{}, fmt.Errorf("save snapshot: %w: %w", ErrRequest, err)
	}
	if o.Dir == "" {
		o.Dir = m.Dir
	}
	remote, err := m.remote(ctx, o.S3)
	if err != nil {
		return Result{}, fmt.Errorf("save snapshot: %w", err)
	}
	var result Result
	saved, err := m.take(ctx, o)
	if errors.Is(err, ErrLearner) {
		return Result{}, err
	}
	outcome := Outcome{At: m.now().UTC().Truncate(time.Second)}
	if err == nil {
		outcome.Name = saved.Name
		result.Created = append(result.Created, saved.Name)
		outcome.Remote, err = m.keep(ctx, o, saved, remote, &result)
	}
	m.note(outcome, err)
	// The records follow whatever happened, and their failure is told apart: the snapshot is there.
	if e := m.reconcile(ctx, remote); e != nil && ctx.Err() == nil {
		m.Log.Warn("etcd snapshots: records", "error", e)
	}
	return result, err
}

// note keeps how it went for Last.
func (m *Manager) note(o Outcome, err error) {
	if err != nil {
		o.Error = err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = o
}

// keep does what follows a local snapshot, and tells where the object store has it.
func (m *Manager) keep(ctx context.Context, o Options, saved File, remote Remote, result *Result) (stored string, err error) {
	var problems []error
	if remote != nil {
		if _, err := remote.Put(ctx, filepath.Join(o.Dir, saved.Name), saved); err != nil {
			failed := saved
			target := remote.Target()
			failed.S3, failed.Location, failed.Failure = &target, target.Location(saved.Name), err.Error()
			m.failed(failed)
			problems = append(problems, err)
		} else {
			stored = remote.Target().Location(saved.Name)
		}
	}
	// An old snapshot that is still in the way must not hide that the new one exists.
	deleted, err := m.prune(ctx, o, remote)
	result.Deleted = append(result.Deleted, deleted...)
	return stored, errors.Join(append(problems, err)...)
}

// take puts a checked snapshot into the folder.
func (m *Manager) take(ctx context.Context, o Options) (f File, err error) {
	name := Name{Prefix: o.Prefix, Node: m.NodeName, Unix: m.now().Unix(), Zip: o.Compress}
	f = File{Name: name.String(), Node: m.NodeName, Created: time.Unix(name.Unix, 0).UTC(), TokenHash: m.TokenHash,
		Location: location(o.Dir, name.String())}
	defer func() {
		if err != nil && !errors.Is(err, ErrLearner) {
			failed := f
			failed.Failure = err.Error()
			m.failed(failed)
			err = fmt.Errorf("save snapshot: %w", err)
		}
	}()
	if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
		return f, fmt.Errorf("snapshot folder %s: %w", o.Dir, errors.Join(err, errors.New("the folder must exist")))
	}
	status, err := etcd.State(ctx, m.Etcd, m.Endpoint)
	if err != nil {
		return f, fmt.Errorf("ask etcd member: %w", err)
	}
	if status.IsLearner {
		return f, ErrLearner
	}
	if err := m.checkSpace(o, status.DbSize); err != nil {
		return f, err
	}
	if m.Extra != nil {
		// The snapshot matters more than what it is annotated with.
		if f.Metadata, err = m.Extra(ctx); err != nil {
			m.Log.Warn("etcd snapshot without extra metadata", "error", err)
		}
	}
	// Names as package file gives them, so that its Sweep finds what a power cut left.
	temp := filepath.Join(o.Dir, "."+f.Name+".part.keelson-tmp")
	packed := filepath.Join(o.Dir, "."+f.Name+".zip.keelson-tmp")
	_, _ = os.Remove(temp), os.Remove(packed) // of a process that ended within this second
	defer func() { _, _ = os.Remove(temp), os.Remove(packed) }()
	if err := m.stream(ctx, temp); err != nil {
		return f, err
	}
	info, err := Verify(temp)
	if err != nil {
		return f, err
	}
	ready := temp
	if o.Compress {
		plain := name
		plain.Zip = false
		if err := compress(temp, packed, plain.String()); err != nil {
			return f, fmt.Errorf("compress: %w", err)
		}
		ready = packed
	}
	stat, err := os.Stat(ready)
	if err != nil {
		return f, err
	}
	f.Size = stat.Size()
	if err := m.saveMetadata(f); err != nil {
		return f, err
	}
	target := filepath.Join(o.Dir, f.Name)
	if _, err := os.Lstat(target); err == nil {
		return f, fmt.Errorf("%s is there already", target)
	}
	if err := os.Rename(ready, target); err != nil {
		return f, err
	}
	m.Log.Info("etcd snapshot saved", "file", target, "bytes", f.Size, "revision", info.Revision)
	return f, syncFolder(o.Dir)
}

// stream writes what the member sends, trailer and all, and has it reach the disk.
func (m *Manager) stream(ctx context.Context, path string) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	response, err := m.Etcd.SnapshotWithVersion(ctx)
	if err != nil {
		return fmt.Errorf("ask etcd for a snapshot: %w", err)
	}
	defer response.Snapshot.Close()
	if _, err := io.Copy(out, response.Snapshot); err != nil {
		return fmt.Errorf("receive snapshot: %w", err)
	}
	return out.Sync()
}

// reserve is what must stay free for etcd itself.
const reserve = 64 << 20

// checkSpace looks before anything is written: a disk that fills up stops etcd.
func (m *Manager) checkSpace(o Options, size int64) error {
	free, err := m.free(o.Dir)
	if err != nil {
		return fmt.Errorf("look at disk space: %w", err)
	}
	need := uint64(size) + reserve
	if o.Compress {
		need += uint64(size) // the plain file lies beside the compressed one until that is checked
	}
	if free >= need {
		return nil
	}
	const mib = 1 << 20
	return fmt.Errorf("%w in %s: a snapshot needs %d MiB, %d MiB are free; remove snapshots with `node etcd-snapshot delete`, keep fewer (etcd-snapshot-retention), or set etcd-snapshot-dir",
		ErrSpace, o.Dir, need/mib, free/mib)
}

func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
