package etcd

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// newData makes the log and the database of a member, as etcd does.
func newData(t testing.TB, id Identity, members []string, removed ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(Dir(dir), "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: &id.Member, ClusterID: &id.Cluster})
	if err != nil {
		t.Fatal(err)
	}
	w, err := wal.Create(zap.NewNop(), filepath.Join(Dir(dir), "member", "wal"), metadata)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(Dir(dir), "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("members"))
		if err != nil {
			return err
		}
		for i, m := range members {
			if err := b.Put([]byte(strconv.Itoa(i)), []byte(m)); err != nil {
				return err
			}
		}
		if b, err = tx.CreateBucket([]byte("members_removed")); err != nil {
			return err
		}
		for _, id := range removed {
			if err := b.Put([]byte(id), []byte("removed")); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadIdentity(t *testing.T) {
	want := Identity{Member: 0xabcdef0123456789, Cluster: 7}
	if got, err := ReadIdentity(newData(t, want, nil)); err != nil || got != want {
		t.Errorf("got %x, %v; want %x", got, err, want)
	}
	if _, err := ReadIdentity(t.TempDir()); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("no data: got %v", err)
	}
	dir := newData(t, want, nil)
	files, _ := filepath.Glob(filepath.Join(Dir(dir), "member/wal/*.wal"))
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string][]byte{
		"empty":     nil,
		"cut off":   content[:40],
		"zeros":     make([]byte, 4096),
		"a bit off": flip(content, 36),
	} {
		if err := os.WriteFile(files[0], broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadIdentity(dir); !errors.Is(err, ErrNoIdentity) || !strings.Contains(err.Error(), filepath.Base(files[0])) {
			t.Errorf("%s: got %x, %v; want an error that names the file", name, got, err)
		}
	}
}

func flip(content []byte, at int) []byte {
	c := slices.Clone(content)
	c[at] ^= 1
	return c
}

// memory is a log file without a file.
type memory struct{ *bytes.Reader }

func (m memory) FileInfo() (fs.FileInfo, error) { return size(m.Size()), nil }

type size int64

func (size) Name() string       { return "x.wal" }
func (s size) Size() int64      { return int64(s) }
func (size) Mode() fs.FileMode  { return 0o600 }
func (size) ModTime() time.Time { return time.Time{} }
func (size) IsDir() bool        { return false }
func (size) Sys() any           { return nil }

func FuzzParseIdentity(f *testing.F) {
	dir := newData(f, Identity{Member: 1, Cluster: 2}, nil)
	files, _ := filepath.Glob(filepath.Join(Dir(dir), "member/wal/*.wal"))
	content, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content[:256])
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, content []byte) {
		if id, err := parseIdentity(memory{bytes.NewReader(content)}); err == nil && id.Member == 0 {
			t.Error("a member without a number was taken")
		}
	})
}

func TestReadKnown(t *testing.T) {
	dir := newData(t, Identity{Member: 1, Cluster: 2}, []string{
		`{"id":1,"peerURLs":["https://10.0.0.1:2380"],"name":"a-00000001","clientURLs":["https://10.0.0.1:2379"]}`,
		`{"id":18446744073709551615,"peerURLs":["https://10.0.0.2:2380"],"isLearner":true}`,
	}, "1f", "ffffffffffffffff")
	known, err := ReadKnown(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(known.Members) != 2 || known.Members[0].Name != "a-00000001" || known.Members[0].ClientURLs[0] != "https://10.0.0.1:2379" ||
		known.Members[1].ID != 1<<64-1 || !known.Members[1].IsLearner {
		t.Errorf("got %+v", known.Members)
	}
	if !slices.Equal(known.Removed, []uint64{0x1f, 1<<64 - 1}) {
		t.Errorf("got removed %x", known.Removed)
	}
	if known, err := ReadKnown(t.TempDir()); err != nil || len(known.Members) != 0 {
		t.Errorf("no data: got %+v, %v", known, err)
	}
	for _, bad := range []string{`{`, `{"name":"a"}`} {
		if _, err := ReadKnown(newData(t, Identity{Member: 1}, []string{bad})); err == nil {
			t.Errorf("%s was taken for a member", bad)
		}
	}
}

func FuzzParseMember(f *testing.F) {
	f.Add([]byte(`{"id":1,"peerURLs":["https://10.0.0.1:2380"],"name":"a-00000001"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if m, err := parseMember(content); err == nil && m.ID == 0 {
			t.Error("a member without a number was taken")
		}
	})
}

// A database that etcd has open is neither read nor moved.
func TestDataInUse(t *testing.T) {
	dir := newData(t, Identity{Member: 1, Cluster: 2}, nil)
	db, err := bolt.Open(filepath.Join(Dir(dir), "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKnown(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("read: got %v", err)
	}
	if _, err := Replace(dir, nil, time.Unix(1, 0)); !errors.Is(err, ErrInUse) {
		t.Errorf("replace: got %v", err)
	}
	if has, err := HasData(dir); !has || err != nil {
		t.Errorf("the data went: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Replace(dir, nil, time.Unix(1, 0)); err != nil {
		t.Errorf("closed: %v", err)
	}
}

func TestReplace(t *testing.T) {
	dir := newData(t, Identity{Member: 1, Cluster: 2}, nil)
	var olds []string
	for _, second := range []int64{999, 1000, 1000, 1000, 1003, 1003, 1005} {
		old, err := Replace(dir, map[string][]byte{"name": []byte("a-1")}, time.Unix(second, 0))
		if err != nil {
			t.Fatal(err)
		}
		olds = append(olds, filepath.Base(old))
	}
	if has, err := HasData(dir); has || err != nil {
		t.Errorf("data is still there, %v", err)
	}
	if name, err := EnsureName(dir, "b"); err != nil || name != "a-1" {
		t.Errorf("got name %q, %v", name, err)
	}
	entries, err := os.ReadDir(filepath.Dir(Dir(dir)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{"etcd", "etcd-old-1001", "etcd-old-1002", "etcd-old-1003", "etcd-old-1004", "etcd-old-1005"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v (made %v), want the newest five", got, olds)
	}
	if info, err := os.Stat(Dir(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v; want mode 0700", info, err)
	}
}

func TestReplaceNeedsAFolder(t *testing.T) {
	dir := t.TempDir()
	if _, err := Replace(dir, nil, time.Unix(1, 0)); err == nil {
		t.Error("want an error where there is nothing to replace")
	}
}

func TestNames(t *testing.T) {
	a, b := NewName("cp-1"), NewName("cp-1")
	if a == b || NodeOf(a) != "cp-1" || NodeOf("x") != "x" {
		t.Errorf("got %s, %s, %s", a, b, NodeOf("x"))
	}
}

// A reset is for this machine only: nobody may reach a cluster that is about to be rewritten.
func TestRenderReset(t *testing.T) {
	p := params()
	p.Reset, p.ExposeMetrics = true, true
	content, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, want := range []string{"force-new-cluster: true", "listen-client-urls: https://127.0.0.1:2379\n", "listen-peer-urls: https://127.0.0.1:2380\n", "listen-metrics-urls: http://127.0.0.1:2381\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "initial-") {
		t.Errorf("a first membership in\n%s", text)
	}
	p.Reset = false
	if content, _ := Render(p); strings.Contains(string(content), "force-new-cluster") {
		t.Error("a start without reset forgets the others")
	}
}

func TestURLs(t *testing.T) {
	p := Params{Address: "fd00::2"}
	if p.ClientURL() != "https://[fd00::2]:2379" || p.PeerURL() != "https://[fd00::2]:2380" {
		t.Errorf("got %s and %s", p.ClientURL(), p.PeerURL())
	}
}

// TestReadInitial: a start with data renders what is there already, as long as it fits.
func TestReadInitial(t *testing.T) {
	p := params()
	p.DataDir = t.TempDir()
	p.Initial = Initial{Cluster: "x=https://10.0.0.9:2380," + p.InitialCluster(), State: "existing"}
	content, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInitial(p.DataDir, p.InitialCluster()); err != nil || got != (Initial{}) {
		t.Errorf("none: got %v, %v", got, err)
	}
	if err := os.MkdirAll(Dir(p.DataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		own     string
		want    Initial
	}{
		"the same":        {content, p.InitialCluster(), p.Initial},
		"another address": {content, p.Name + "=https://10.0.0.3:2380", Initial{}},
		"broken":          {[]byte("\t{"), p.InitialCluster(), Initial{}},
	} {
		if err := os.WriteFile(ConfigPath(p.DataDir), c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadInitial(p.DataDir, c.own); err != nil || got != c.want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, c.want)
		}
	}
}
