package etcdsnapshot

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// recorder is Records in memory.
type recorder struct {
	local  []File
	remote *Remotes
	err    error
}

func (r *recorder) Reconcile(_ context.Context, _ string, local []File, remote *Remotes) error {
	if r.err != nil {
		return r.err
	}
	r.local, r.remote = local, remote
	return nil
}

// shelf is a Remote in memory.
type shelf struct {
	files   []File
	refuses error
	keep    int
}

func (s *shelf) Target() S3Target {
	return S3Target{Endpoint: "s3.example", Bucket: "backups", Prefix: "c1"}
}
func (s *shelf) Retention() int { return s.keep }
func (s *shelf) Put(_ context.Context, path string, f File) (File, error) {
	if s.refuses != nil {
		return File{}, s.refuses
	}
	if _, err := Verify(path); err != nil && !IsZip(path) {
		return File{}, err
	}
	target := s.Target()
	f.S3, f.Location = &target, target.Location(f.Name)
	s.files = append(s.files, f)
	return f, nil
}
func (s *shelf) List(context.Context) ([]File, error) { return slices.Clone(s.files), nil }
func (s *shelf) Delete(_ context.Context, name string) error {
	s.files = slices.DeleteFunc(s.files, func(f File) bool { return f.Name == name })
	return nil
}
func (s *shelf) Fetch(context.Context, string, string) error { return errors.New("not used") }

func newManager(t *testing.T, e Etcd, endpoint string, change func(*Config)) *Manager {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Etcd: e, Endpoint: endpoint, NodeName: "cp-1", Dir: filepath.Join(dir, "snapshots"), Metadata: filepath.Join(dir, ".metadata"),
		Retention: 5, TokenHash: "0123456789ab", Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Prepare(true); err != nil {
		t.Fatal(err)
	}
	return m
}

// flipping damages what it passes on.
type flipping struct{ Etcd }

func (f flipping) SnapshotWithVersion(ctx context.Context) (*clientv3.SnapshotResponse, error) {
	r, err := f.Etcd.SnapshotWithVersion(ctx)
	if err == nil {
		r.Snapshot = &flipped{ReadCloser: r.Snapshot}
	}
	return r, err
}

type flipped struct {
	io.ReadCloser
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 1
		f.done = true
	}
	return n, err
}

// blocking waits before it passes on.
type blocking struct {
	Etcd
	entered, leave chan struct{}
}

func (b blocking) SnapshotWithVersion(ctx context.Context) (*clientv3.SnapshotResponse, error) {
	close(b.entered)
	<-b.leave
	return b.Etcd.SnapshotWithVersion(ctx)
}

// still is a member that says what it is told to and sends nothing.
type still struct {
	learner bool
	size    int64
}

func (s still) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	r := clientv3.StatusResponse(etcdserverpb.StatusResponse{IsLearner: s.learner, DbSize: s.size})
	return &r, nil
}
func (s still) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	return nil, errors.New("rpc not supported for learner")
}
func (s still) SnapshotWithVersion(context.Context) (*clientv3.SnapshotResponse, error) {
	return nil, errors.New("must not be asked")
}

type counting struct{ n int }

func (c *counting) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	c.n++
	return nil, errors.New("down")
}
func (c *counting) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	return nil, errors.New("down")
}
func (c *counting) SnapshotWithVersion(context.Context) (*clientv3.SnapshotResponse, error) {
	return nil, errors.New("down")
}
