package member

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
	"keelson/node/pki"
)

// address is one of this process's own on loopback, so that two runs of the tests never meet: all use etcd's ports.
func address(last int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid%128, 1+pid/128%250, last)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// lan is the certificates and the network of some machines, with every raft connection going through a proxy.
type lan struct {
	tls   string // a server's tls folder
	lock  sync.Mutex
	cut   string // hex id of the member that is on its own
	peers map[*peer]bool
}

// peer is one request under way.
type peer struct {
	from, to string
	cancel   context.CancelFunc
	ended    chan struct{}
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	dir := t.TempDir()
	var all []netip.Addr
	for i := 1; i <= 17; i++ {
		all = append(all, netip.MustParseAddr(address(i)), netip.MustParseAddr(address(100+i)))
	}
	if _, err := pki.EnsureCertificates(pki.Params{
		ServerDir: filepath.Join(dir, "server"), AgentDir: filepath.Join(dir, "agent"), NodeName: "test",
		Addresses: all, ServiceIPs: []netip.Addr{netip.MustParseAddr("10.43.0.1")}, ClusterDomain: "cluster.local",
	}); err != nil {
		t.Fatal(err)
	}
	return &lan{tls: filepath.Join(dir, "server", "tls"), peers: map[*peer]bool{}}
}

// isolate cuts the member with this id from all others, on connections that are open too, and returns when nothing
// passes any more; "" heals.
func (l *lan) isolate(id string) {
	var ends []*peer
	l.lock.Lock()
	l.cut = id
	for p := range l.peers {
		if id != "" && (p.from == id || p.to == id) {
			ends = append(ends, p)
		}
	}
	l.lock.Unlock()
	for _, p := range ends {
		p.cancel()
		<-p.ended
	}
}

// proxy stands where m's peers look for it.
func (l *lan) proxy(t *testing.T, m *machine) {
	t.Helper()
	info := transport.TLSInfo{
		CertFile: filepath.Join(l.tls, "etcd/peer-server-client.crt"), KeyFile: filepath.Join(l.tls, "etcd/peer-server-client.key"),
		TrustedCAFile: filepath.Join(l.tls, "etcd/peer-ca.crt"), ClientCertAuth: true,
	}
	server, err := info.ServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := info.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	reverse := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: m.inner + ":2380"})
	reverse.FlushInterval = -1
	reverse.Transport = &http.Transport{TLSClientConfig: client, DisableKeepAlives: true}
	reverse.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	reverse.ErrorLog = log.New(io.Discard, "", 0)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		p := &peer{from: r.Header.Get("X-Server-From"), to: m.id(), cancel: cancel, ended: make(chan struct{})}
		l.lock.Lock()
		if l.cut != "" && (p.from == l.cut || p.to == l.cut) {
			l.lock.Unlock()
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		l.peers[p] = true
		l.lock.Unlock()
		defer func() {
			l.lock.Lock()
			defer l.lock.Unlock()
			delete(l.peers, p)
			close(p.ended)
		}()
		reverse.ServeHTTP(w, r.WithContext(ctx))
	})
	listener, err := net.Listen("tcp", m.address+":2380")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler, TLSConfig: server, ErrorLog: reverse.ErrorLog}
	go func() { _ = s.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = s.Close() })
}

// machine is a server as far as etcd goes.
type machine struct {
	name, dir      string
	address, inner string // of the proxy, and of etcd behind it
	others         func(context.Context) ([]string, error)
	lan            *lan

	etcd      *embed.Etcd
	params    etcd.Params
	endpoints []string
	number    string
	loose     string // strict-reconfig-check, if not the default
	lock      sync.Mutex
}

func (l *lan) machine(t *testing.T, n int, name string, join *machine) *machine {
	t.Helper()
	m := &machine{name: name, dir: t.TempDir(), address: address(n), inner: address(100 + n), lan: l}
	if join != nil {
		m.others = func(context.Context) ([]string, error) { return []string{join.url()}, nil }
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "server"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(l.tls, filepath.Join(m.dir, "server", "tls")); err != nil {
		t.Fatal(err)
	}
	l.proxy(t, m)
	t.Cleanup(m.kill)
	return m
}

func (m *machine) url() string { return "https://" + m.address + ":2379" }

func (m *machine) id() string {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.number
}

func (m *machine) config() Config {
	p := m.params
	p.DataDir, p.Address = m.dir, m.address
	p.Arguments = []string{
		"listen-client-urls=https://" + m.address + ":2379", "listen-peer-urls=https://" + m.inner + ":2380",
		"listen-metrics-urls=http://" + m.inner + ":2381", "listen-client-http-urls=https://" + m.inner + ":2382",
		"heartbeat-interval=100", "election-timeout=1000", "log-level=fatal", "unsafe-no-fsync=true",
	}
	if m.loose != "" {
		p.Arguments = append(p.Arguments, "strict-reconfig-check="+m.loose)
	}
	return Config{Node: m.name, Member: p, Files: m.lan.files(), Others: m.others, Endpoint: m.url(), Log: quiet()}
}

func (l *lan) files() etcd.Connection {
	return etcd.Connection{
		CAFile: filepath.Join(l.tls, "etcd/server-ca.crt"), CertFile: filepath.Join(l.tls, "etcd/client.crt"), KeyFile: filepath.Join(l.tls, "etcd/client.key"),
	}
}

// begin starts etcd as Start says, from the configuration file that node/etcd renders.
func (m *machine) begin(ctx context.Context) error {
	var err error
	if m.params, m.endpoints, err = Start(ctx, m.config()); err != nil {
		return err
	}
	return m.run()
}

func (m *machine) run() error {
	content, err := etcd.Render(m.params)
	if err != nil {
		return err
	}
	if err := os.WriteFile(etcd.ConfigPath(m.dir), content, 0o600); err != nil {
		return err
	}
	c, err := embed.ConfigFromFile(etcd.ConfigPath(m.dir))
	if err != nil {
		return err
	}
	if m.etcd, err = etcdtest.Embed(c); err != nil {
		return err
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	m.number = m.etcd.Server.MemberID().String()
	return nil
}

// serve begins, and returns when the member votes and serves.
func (m *machine) serve(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	return m.vote(ctx)
}

func (m *machine) vote(ctx context.Context) error {
	if err := Promote(ctx, m.config(), m.endpoints); err != nil {
		return err
	}
	client, err := etcd.NewClient(ctx, m.lan.with(m))
	if err != nil {
		return err
	}
	defer client.Close()
	return etcd.Ready(ctx, client, m.url(), m.params.Name, m.params.PeerURL())
}

// kill ends etcd as a power cut would: nothing is handed over.
func (m *machine) kill() {
	if m.etcd == nil {
		return
	}
	m.etcd.Server.HardStop()
	m.etcd.Close()
	m.etcd = nil
}

func (l *lan) with(machines ...*machine) etcd.Connection {
	c := l.files()
	for _, m := range machines {
		c.Endpoints = append(c.Endpoints, m.url())
	}
	return c
}

func (l *lan) client(t *testing.T, machines ...*machine) *clientv3.Client {
	t.Helper()
	client, err := etcd.NewClient(context.Background(), l.with(machines...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// together starts all and waits for them.
func together(ctx context.Context, t *testing.T, machines ...*machine) {
	t.Helper()
	errs := make(chan error, len(machines))
	for _, m := range machines {
		go func() {
			err := m.serve(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", m.name, err)
			}
			errs <- err
		}()
	}
	for range machines {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// leader waits until one of machines says that it leads.
func leader(ctx context.Context, t *testing.T, machines ...*machine) (*machine, []*machine) {
	t.Helper()
	for {
		for i, m := range machines {
			if m.etcd != nil && m.etcd.Server.Leader() == m.etcd.Server.MemberID() {
				rest := append([]*machine{}, machines[:i]...)
				return m, append(rest, machines[i+1:]...)
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			t.Fatal("nobody leads: ", err)
		}
	}
}

// eventually asks again until done, or until ctx ends.
func eventually(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// voters counts the list of members.
func voters(ctx context.Context, t *testing.T, client *clientv3.Client) (voters, learners int) {
	t.Helper()
	list, err := client.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Members {
		if m.IsLearner {
			learners++
		} else {
			voters++
		}
	}
	return voters, learners
}

func number(t *testing.T, hex string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
