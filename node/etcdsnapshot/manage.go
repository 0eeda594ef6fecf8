package etcdsnapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// remote connects to the object store of an operation, if it has one.
func (m *Manager) remote(ctx context.Context, c *S3Config) (Remote, error) {
	if c == nil {
		return nil, nil
	}
	if m.Connect == nil {
		return nil, fmt.Errorf("%w: this server has no object store client", ErrRequest)
	}
	return m.Connect(ctx, *c)
}

// Prune removes what is beyond the retention, here and in the object store.
func (m *Manager) Prune(ctx context.Context, o Options) (Result, error) {
	if err := CheckPrefix(o.Prefix); err != nil {
		return Result{}, fmt.Errorf("prune snapshots: %w: %w", ErrRequest, err)
	}
	if o.Dir == "" {
		o.Dir = m.Dir
	}
	remote, err := m.remote(ctx, o.S3)
	if err != nil {
		return Result{}, fmt.Errorf("prune snapshots: %w", err)
	}
	deleted, err := m.prune(ctx, o, remote)
	m.follow(ctx, remote)
	return Result{Deleted: deleted}, err
}

func (m *Manager) prune(ctx context.Context, o Options, remote Remote) (deleted []string, err error) {
	var problems []error
	files, err := m.local(o.Dir)
	if err != nil {
		problems = append(problems, err)
	}
	for _, f := range Expired(files, o.Prefix, m.NodeName, o.Retention) {
		if err := m.remove(o.Dir, f.Name); err != nil {
			problems = append(problems, err)
			continue
		}
		deleted = append(deleted, f.Name)
	}
	if remote == nil {
		return deleted, errors.Join(problems...)
	}
	keep := o.Retention
	if n := remote.Retention(); n > 0 {
		keep = n
	}
	if files, err = remote.List(ctx); err != nil {
		problems = append(problems, err)
	}
	for _, f := range Expired(files, o.Prefix, m.NodeName, keep) {
		if err := remote.Delete(ctx, f.Name); err != nil {
			problems = append(problems, err)
			continue
		}
		deleted = append(deleted, f.Location)
	}
	return deleted, errors.Join(problems...)
}

// Delete removes snapshots by name, here and, if the operation has one, in the object store. A name that is nowhere
// is an error; the others are removed all the same.
func (m *Manager) Delete(ctx context.Context, names []string, o Options) (Result, error) {
	if len(names) == 0 {
		return Result{}, fmt.Errorf("delete snapshots: %w: no names were given", ErrRequest)
	}
	for _, name := range names {
		if err := CheckFile(name); err != nil {
			return Result{}, fmt.Errorf("delete snapshots: %w: %w", ErrRequest, err)
		}
	}
	if o.Dir == "" {
		o.Dir = m.Dir
	}
	remote, err := m.remote(ctx, o.S3)
	if err != nil {
		return Result{}, fmt.Errorf("delete snapshots: %w", err)
	}
	var there []File
	if remote != nil {
		if there, err = remote.List(ctx); err != nil {
			return Result{}, fmt.Errorf("delete snapshots: %w", err)
		}
	}
	var result Result
	var problems []error
	for _, name := range names {
		found := false
		if err := m.remove(o.Dir, name); err == nil {
			found = true
			result.Deleted = append(result.Deleted, name)
		} else if !errors.Is(err, os.ErrNotExist) {
			problems = append(problems, err)
		}
		if at := slices.IndexFunc(there, func(f File) bool { return f.Name == name }); at >= 0 {
			found = true
			if err := remote.Delete(ctx, name); err != nil {
				problems = append(problems, err)
			} else {
				result.Deleted = append(result.Deleted, there[at].Location)
			}
		}
		if !found {
			problems = append(problems, fmt.Errorf("delete snapshot %s: %w: there is none of this name on server %s", name, ErrRequest, m.NodeName))
		}
	}
	m.follow(ctx, remote)
	return result, errors.Join(problems...)
}

// List returns this server's snapshots and those of the object store, oldest first.
func (m *Manager) List(ctx context.Context, o Options) ([]File, error) {
	if o.Dir == "" {
		o.Dir = m.Dir
	}
	files, err := m.local(o.Dir)
	if err != nil {
		return nil, err
	}
	remote, err := m.remote(ctx, o.S3)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	if remote != nil {
		there, err := remote.List(ctx)
		if err != nil {
			return nil, err
		}
		files = append(files, there...)
	}
	slices.SortStableFunc(files, func(a, b File) int { return a.Created.Compare(b.Created) })
	return files, nil
}

// follow brings the records in line after an operation that has succeeded already.
func (m *Manager) follow(ctx context.Context, remote Remote) {
	if err := m.reconcile(ctx, remote); err != nil && ctx.Err() == nil {
		m.Log.Warn("etcd snapshots: records", "error", err)
	}
}

// reconcile tells Records what there is. The configured object store is asked even if the operation was not about it.
func (m *Manager) reconcile(ctx context.Context, remote Remote) error {
	if m.Records == nil {
		return nil
	}
	files, err := m.local(m.Dir)
	if err != nil {
		return err
	}
	var problems []error
	if remote == nil {
		if remote, err = m.remote(ctx, m.S3); err != nil {
			problems = append(problems, err)
		}
	}
	var remotes *Remotes
	if remote != nil {
		if there, err := remote.List(ctx); err != nil {
			problems = append(problems, err)
		} else {
			remotes = &Remotes{Target: remote.Target(), Files: there}
		}
	}
	failures := m.takeFailures()
	for _, f := range failures {
		if f.S3 == nil {
			files = append(files, f)
		} else if remotes != nil {
			remotes.Files = append(remotes.Files, f)
		}
	}
	if err := m.Records.Reconcile(ctx, m.NodeName, files, remotes); err != nil {
		problems = append(problems, err)
		for _, f := range failures {
			m.failed(f)
		}
	}
	return errors.Join(problems...)
}

// failed remembers a failure until it has been recorded; the newest few are enough.
func (m *Manager) failed(f File) {
	const most = 20
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = append(m.failures, f)
	m.failures = m.failures[max(0, len(m.failures)-most):]
}

func (m *Manager) takeFailures() []File {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.failures
	m.failures = nil
	return slices.DeleteFunc(all, func(f File) bool { return m.now().Sub(f.Created) > 24*time.Hour })
}
