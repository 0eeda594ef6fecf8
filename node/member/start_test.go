package member

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/etcd"
)

// leftover makes the data of member 1 of cluster 7, at 10.0.0.1, as a stopped etcd leaves it.
func leftover(t *testing.T, members map[string]string, removed ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(etcd.Dir(dir), "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(1)), ClusterID: new(uint64(7))})
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(zap.NewNop(), filepath.Join(etcd.Dir(dir), "member", "wal"), metadata)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(etcd.Dir(dir), "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error {
		list, err := tx.CreateBucket([]byte("members"))
		if err != nil {
			return err
		}
		for key, value := range members {
			if err := list.Put([]byte(key), []byte(value)); err != nil {
				return err
			}
		}
		gone, err := tx.CreateBucket([]byte("members_removed"))
		for _, id := range removed {
			err = errors.Join(err, gone.Put([]byte(id), []byte("removed")))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	self  = `{"id":1,"name":"a-01","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]}`
	other = `{"id":2,"name":"b-01","peerURLs":["https://127.0.0.1:1"],"clientURLs":["https://127.0.0.1:1"]}`
)

// TestStartByItself: nobody answers. Nothing may be moved, whatever the data says.
func TestStartByItself(t *testing.T) {
	unreachable := func(context.Context) ([]string, error) { return nil, errors.New("connection refused") }
	for _, c := range []struct {
		name    string
		members map[string]string
		removed []string
		address string
		others  func(context.Context) ([]string, error)
		alone   bool
		want    error
		tells   string
	}{
		{"the only member", map[string]string{"1": self}, nil, "10.0.0.1", nil, true, nil, ""},
		{"the only member, at another address", map[string]string{"1": self}, nil, "10.0.0.9", nil, true, nil, ""},
		{"after a power cut for all", map[string]string{"1": self, "2": other}, nil, "10.0.0.1", unreachable, false, nil, ""},
		{"one of two, at another address", map[string]string{"1": self, "2": other}, nil, "10.0.0.9", nil, false, ErrAddressChanged, "known to 1 others as https://10.0.0.1:2380"},
		{"removed, and nobody there", map[string]string{"2": other}, []string{"1"}, "10.0.0.1", nil, false, ErrRemoved, "nothing was changed"},
		{"removed, and the join server down", map[string]string{"2": other}, []string{"1"}, "10.0.0.1", unreachable, false, ErrRemoved, "https://127.0.0.1:1"},
		{"an unreadable list", map[string]string{"1": "{"}, nil, "10.0.0.1", nil, false, nil, ""},
		{"a database without lists yet", nil, nil, "10.0.0.1", nil, false, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := leftover(t, c.members, c.removed...)
			config := Config{Node: "a", Member: etcd.Params{DataDir: dir, Address: c.address}, Files: files(t), Others: c.others, Log: quiet()}
			p, _, err := Start(within(t, 30*time.Second), config)
			if !errors.Is(err, c.want) || (c.want == nil && err != nil) || (err != nil && !strings.Contains(err.Error(), c.tells)) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && (p.Alone != c.alone || p.Name == "" || p.Initial.State == "new") {
				t.Errorf("got %+v", p)
			}
			if has, err := etcd.HasData(dir); !has || err != nil {
				t.Errorf("the data is gone: %v", err)
			}
			if olds, _ := filepath.Glob(filepath.Join(dir, "server/db/etcd-old-*")); len(olds) > 0 {
				t.Errorf("moved to %v", olds)
			}
		})
	}
}

// files are those of a network without machines.
func files(t *testing.T) etcd.Connection { return newLAN(t).files() }

func TestStartWithoutData(t *testing.T) {
	ctx := within(t, 30*time.Second)
	config := Config{Node: "a", Member: etcd.Params{DataDir: t.TempDir(), Address: "10.0.0.1"}, Log: quiet()}
	p, endpoints, err := Start(ctx, config)
	if err != nil || !p.Alone || p.Initial != (etcd.Initial{Cluster: p.Name + "=https://10.0.0.1:2380", State: "new"}) || endpoints != nil {
		t.Errorf("the first: got %+v, %v", p, err)
	}
	again, _, err := Start(ctx, config)
	if err != nil || again.Name != p.Name {
		t.Errorf("the first, cut off: got %s, want %s, %v", again.Name, p.Name, err)
	}

	config.Member.DataDir = t.TempDir()
	config.Others = func(context.Context) ([]string, error) { return nil, errors.New("connection refused") }
	if _, _, err := Start(ctx, config); err == nil || !strings.Contains(err.Error(), "ask the join server for etcd's members: connection refused") {
		t.Errorf("join server down: got %v", err)
	}
	config.Others = func(context.Context) ([]string, error) { return nil, nil }
	if _, _, err := Start(ctx, config); err == nil || !strings.Contains(err.Error(), "check that the join server is up") {
		t.Errorf("no members: got %v", err)
	}
	// A server that was removed and had no join server must not become the first of another cluster.
	config.Others = nil
	if err := os.WriteFile(filepath.Join(etcd.Dir(config.Member.DataDir), joinFile), []byte(`["https://127.0.0.1:1"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	config.Files = files(t)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if p, _, err := Start(short, config); !errors.Is(err, context.DeadlineExceeded) || p.Initial.State == "new" {
		t.Errorf("with a join file: got %+v, %v", p, err)
	}
	if err := os.WriteFile(filepath.Join(etcd.Dir(config.Member.DataDir), joinFile), []byte(`["x"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Start(ctx, config); err == nil || !strings.Contains(err.Error(), "entry 0") {
		t.Errorf("broken join file: got %v", err)
	}
}

// TestAlone: one real member. Its machine gets another address; then its key is published, and a second server finds
// a cluster that does not know it.
func TestAlone(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	l := newLAN(t)
	m := l.machine(t, 4, "a", nil)
	if err := m.serve(ctx); err != nil {
		t.Fatal(err)
	}
	m.kill()
	moved := l.machine(t, 5, "a", nil)
	moved.dir = m.dir
	if err := moved.serve(ctx); err != nil {
		t.Fatal(err)
	}
	list, err := l.client(t, moved).MemberList(ctx)
	if err != nil || len(list.Members) != 1 || list.Members[0].PeerURLs[0] != moved.params.PeerURL() {
		t.Errorf("got %v, %v; want the member at its new address", list, err)
	}
	t.Run("a supervisor that starts beside its etcd", func(t *testing.T) {
		p, _, err := Start(ctx, moved.config())
		if err != nil || !p.Alone || p.Name != moved.params.Name {
			t.Errorf("got %+v, %v; want %+v", p, err, moved.params)
		}
	})
	t.Run("addresses", func(t *testing.T) { published(ctx, t, l, moved) })
	t.Run("a member of the same cluster, restored without it", func(t *testing.T) {
		dir := leftover(t, map[string]string{"1": self})
		config := Config{
			Node: "z", Member: etcd.Params{DataDir: dir, Address: address(6)}, Files: l.files(), Log: quiet(),
			Others: func(context.Context) ([]string, error) { return []string{moved.url()}, nil },
		}
		p, endpoints, err := Start(ctx, config)
		if err != nil || p.Initial.State != "existing" || !slices.Equal(endpoints, []string{moved.url()}) {
			t.Fatalf("got %+v, %v, %v", p, endpoints, err)
		}
		if has, err := etcd.HasData(dir); has || err != nil {
			t.Errorf("the old data is still there, %v", err)
		}
		if name, err := etcd.EnsureName(dir, "z"); err != nil || name != p.Name {
			t.Errorf("it is %s on disk and %s to etcd: %v", name, p.Name, err)
		}
	})
	t.Run("a name that is taken costs no data", func(t *testing.T) {
		dir := leftover(t, map[string]string{"1": self})
		config := Config{
			Node: "a", Member: etcd.Params{DataDir: dir, Address: address(7)}, Files: l.files(), Log: quiet(),
			Others: func(context.Context) ([]string, error) { return []string{moved.url()}, nil },
		}
		if _, _, err := Start(ctx, config); !errors.Is(err, ErrRemoved) || !errors.Is(err, ErrDuplicateName) {
			t.Errorf("got %v", err)
		}
		if has, err := etcd.HasData(dir); !has || err != nil {
			t.Errorf("the data is gone: %v", err)
		}
	})
	t.Run("a deleted Node of the last member", func(t *testing.T) { unremovable(ctx, t, moved) })
}

// published: what comes in is what is there; what is no news is not written.
func published(ctx context.Context, t *testing.T, l *lan, m *machine) {
	client := l.client(t, m)
	if got, err := Addresses(ctx, client); err != nil || got != nil {
		t.Errorf("before: got %v, %v", got, err)
	}
	in := make(chan []string, 4)
	in <- []string{"10.0.0.1:6443"}
	in <- nil // this server sees none: no news
	in <- []string{"10.0.0.1:6443"}
	in <- []string{"10.0.0.1:6443", "[fd00::2]:6443"}
	close(in)
	if err := Publish(ctx, client, in, quiet()); err != nil {
		t.Fatal(err)
	}
	have, err := client.Get(ctx, AddressesKey)
	if err != nil || string(have.Kvs[0].Value) != "[\"10.0.0.1:6443\",\"[fd00::2]:6443\"]\n" || have.Kvs[0].Version != 2 {
		t.Errorf("got %v, %v; want two writes", have, err)
	}
	if got, err := Addresses(ctx, client); err != nil || !slices.Equal(got, []string{"10.0.0.1:6443", "[fd00::2]:6443"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := ClearAddresses(ctx, client); err != nil {
		t.Fatal(err)
	}
	if have, err = client.Get(ctx, AddressesKey); err != nil || string(have.Kvs[0].Value) != "[]\n" {
		t.Errorf("cleared: got %v, %v", have, err)
	}
	if _, err := client.Put(ctx, AddressesKey, "nonsense"); err != nil {
		t.Fatal(err)
	}
	if _, err := Addresses(ctx, client); err == nil || !strings.Contains(err.Error(), AddressesKey) {
		t.Errorf("nonsense: got %v", err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := Publish(stopped, client, make(chan []string), quiet()); err != nil {
		t.Errorf("stopped: got %v", err)
	}
}

// unremovable: a deletion that would cost quorum is logged and not done.
func unremovable(ctx context.Context, t *testing.T, m *machine) {
	client := fake.NewClientset(node(m.name, "u", m.params.Name, m.address))
	log := &lines{}
	c, err := NewController(ControllerConfig{Node: m.name, Client: m.lan.client(t, m), Nodes: client, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(running) }()
	nodes := client.CoreV1().Nodes()
	eventually(ctx, t, "the Node has been seen", func() bool {
		got, err := c.Client.Get(ctx, SeenKey)
		return err == nil && len(got.Kvs) == 1
	})
	eventually(ctx, t, "it is shown as a voter", func() bool {
		n, err := nodes.Get(ctx, m.name, metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == ConditionVoter && c.Status == corev1.ConditionTrue
		})
	})
	if err := nodes.Delete(ctx, m.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "it says so", func() bool { return strings.Contains(log.String(), "without losing quorum") })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if v, _ := voters(ctx, t, c.Client); v != 1 {
		t.Errorf("got %d voters", v)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	lock sync.Mutex
	text strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.Write(line)
}

func (l *lines) String() string {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.String()
}

func TestNewControllerNeeds(t *testing.T) {
	if _, err := NewController(ControllerConfig{Node: "a"}); err == nil {
		t.Error("a controller without etcd was made")
	}
}
