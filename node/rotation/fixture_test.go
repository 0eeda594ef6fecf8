package rotation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/bootstrapdata"
	"keelson/node/bootstrapdata/etcdstore"
	"keelson/node/token"
)

// etcd starts the real server, one member, and gives a client.
func etcd(t *testing.T) *clientv3.Client {
	t.Helper()
	dir := t.TempDir()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = filepath.Join(dir, "data"), "fatal"
	cfg.TickMs, cfg.ElectionMs = 10, 100 // alone it waits for nobody
	free := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{free}, []url.URL{free}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready after a minute")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Clients[0].Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// wipe empties etcd between the cases of a test.
func wipe(t *testing.T, client *clientv3.Client) {
	t.Helper()
	if _, err := client.Delete(t.Context(), "", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

// clock is a time that tests move.
type clock struct {
	mu      sync.Mutex // guards what follows
	now     time.Time
	waiters map[chan time.Time]time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), waiters: map[chan time.Time]time.Time{}}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.waiters[ch] = c.now.Add(d)
	return ch
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for ch, at := range c.waiters {
		if !at.After(c.now) {
			ch <- c.now
			delete(c.waiters, ch)
		}
	}
}

// machine is a server of the cluster.
type machine struct {
	dir     string
	store   *etcdstore.Store
	clock   *clock
	changed chan []token.User
	servers []string // names of the cluster's
}

func (m *machine) name() string { return "cp-" + filepath.Base(m.dir) }

// newMachine makes a server that has the files of a cluster whose tokens are given.
func newMachine(t *testing.T, client *clientv3.Client, c *clock, passwd string) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), store: etcdstore.New(client), clock: c, changed: make(chan []token.User, 100)}
	for _, dir := range []string{"cred", "tls/etcd"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "tls/server-ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	m.write(t, "tls/etcd/server-ca.crt", "x")
	m.write(t, "cred/passwd", passwd)
	return m
}

func (m *machine) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, path), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// copyOf makes another server with the same files.
func (m *machine) copyOf(t *testing.T, client *clientv3.Client) *machine {
	t.Helper()
	n := newMachine(t, client, m.clock, m.read(t, "cred/passwd"))
	n.write(t, "tls/server-ca.crt", m.read(t, "tls/server-ca.crt"))
	return n
}

func (m *machine) config() Config {
	return Config{
		Store: m.store, ServerDir: m.dir, Overlap: time.Hour, Log: slog.New(slog.DiscardHandler), Now: m.clock.Now, After: m.clock.After,
		Name: m.name(), Servers: func(context.Context) ([]string, error) { return m.servers, nil },
		Changed: func(users []token.User) error { m.changed <- users; return nil },
	}
}

// boot starts the rotator of a server, as after power came back.
func (m *machine) boot(t *testing.T) *Rotator {
	t.Helper()
	r, err := New(m.config())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run keeps a rotator following until the test ends, or stop is called.
func run(t *testing.T, r *Rotator) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// await waits until a server honours exactly these server tokens.
func (m *machine) await(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for {
		select {
		case users := <-m.changed:
			if got = serverTokens(users); slices.Equal(got, want) {
				return
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("the last tokens honoured are %q, want %q", got, want)
		}
	}
}

// serverTokens are the tokens that open the way of servers, sorted.
func serverTokens(users []token.User) []string {
	var out []string
	for _, u := range users {
		if u.Name == token.UserServer && slices.Contains(u.Roles, token.RoleServer) {
			out = append(out, u.Password.Reveal())
		}
	}
	slices.Sort(out)
	return out
}

// save makes the record of a server's files.
func (m *machine) save(t *testing.T, password token.Secret) {
	t.Helper()
	if _, err := bootstrapdata.Sync(t.Context(), m.store, password, m.dir); err != nil {
		t.Fatal(err)
	}
}

// keys are all keys of the store that tokens have to do with, without the seal, which goes with every record.
func (m *machine) keys(t *testing.T) []string {
	t.Helper()
	all, err := m.store.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range all {
		if r.Key != bootstrapdata.SealKey {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// passwd is the password file of a cluster with one token.
func passwd(p string) string {
	return p + ",node,node,rke2:agent\n" + p + ",server,server,rke2:server\n"
}
