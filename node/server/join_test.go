package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keelson/node/agreement"
	"keelson/node/bootstrapdata"
	"keelson/node/config"
	"keelson/node/pki"
	"keelson/node/supervisorapi"
	"keelson/node/token"
	"keelson/node/trust"
)

const clusterToken = "0123456789abcdef0123456789abcdef"

// firstServer is a server with all its files, whose listener answers as if its etcd ran.
func firstServer(t *testing.T) (*Server, string) {
	t.Helper()
	s := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, s)
	return s, serveCluster(t, s, nil)
}

// serveCluster opens the listener of a prepared server; members is what /db/info answers.
func serveCluster(t *testing.T, s *Server, members any) string {
	t.Helper()
	return serveHandlers(t, s, func(h *supervisorapi.Handlers) {
		h.Members = func(context.Context) (any, error) { return members, nil }
	})
}

// serveHandlers opens the listener of a prepared server, with the answers that change gives it.
func serveHandlers(t *testing.T, s *Server, change func(*supervisorapi.Handlers)) string {
	t.Helper()
	serving, err := pki.NewServing(s.pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := func(parts ...string) []byte {
		data, err := os.ReadFile(s.server(parts...))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	api, err := supervisorapi.New(supervisorapi.Config{Certificate: serving.Certificate, ClientCA: read("tls", "client-ca.crt"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	users, err := token.LoadPasswd(s.server("cred", "passwd"))
	if err != nil {
		t.Fatal(err)
	}
	h := supervisorapi.Handlers{
		CACerts: read("tls", "server-ca.crt"), Users: users, Ready: func() bool { return true },
		APIServers: func(context.Context) ([]string, error) { return nil, nil },
		Bootstrap: func(context.Context, token.Secret) ([]byte, error) {
			data, err := bootstrapdata.Collect(s.server())
			if err != nil {
				return nil, err
			}
			return data.Encode()
		},
		Config: s.clusterConfig,
	}
	change(&h)
	if err := api.Install(h); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String()
}

// joiner is a server that is to join, without anything on its disk.
func joiner(t *testing.T, server string, change func(*config.Config)) *Server {
	t.Helper()
	s := newServer(t, func(c *config.Config) {
		c.Server, c.Token, c.NodeName = server, clusterToken, "cp-2"
		c.NodeIP = []netip.Addr{netip.MustParseAddr("10.0.2.16")}
		if change != nil {
			change(c)
		}
	})
	for _, step := range []func(context.Context) error{s.makeFolders, s.loadImages} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestJoiningServerTakesTheClustersSecrets(t *testing.T) {
	first, url := firstServer(t)
	second := joiner(t, url, nil)
	if err := second.joinCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range bootstrapdata.Entries() {
		want, err := os.ReadFile(first.server(e.Path))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		got, err := os.ReadFile(second.server(e.Path))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not the cluster's: %v", e.Path, err)
		}
	}
	// What follows in the list works with them, and makes no second cluster.
	for _, step := range []func(context.Context) error{second.loadImages, second.ensureSecrets, second.ensureCertificates, second.writeTokens} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile(first.server("token"))
	b, _ := os.ReadFile(second.server("token"))
	if !bytes.Equal(a, b) || len(a) == 0 {
		t.Errorf("tokens differ: %d and %d bytes", len(a), len(b))
	}
	if second.firstUsed == "" || !strings.Contains(second.cfg.Console.(*bytes.Buffer).String(), "trusted because it was the first one seen") {
		t.Error("nobody was told that a token without a hash was trusted on first use")
	}
}

func TestWholeTokenNeedsNoTrustOnFirstUse(t *testing.T) {
	first, url := firstServer(t)
	whole, err := os.ReadFile(first.server("token"))
	if err != nil {
		t.Fatal(err)
	}
	second := joiner(t, url, func(c *config.Config) {
		c.Token, c.RequireTokenCAHash = config.Secret(strings.TrimSpace(string(whole))), true
	})
	if err := second.joinCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second.firstUsed != "" {
		t.Error("the authority counts as trusted on first use, and the token names it")
	}
}

// Each mistake of an operator ends the start with what to do about it, and leaves nothing on the disk.
func TestJoiningIsRefused(t *testing.T) {
	_, url := firstServer(t)
	stranger, _ := firstServer(t)
	foreign, err := os.ReadFile(stranger.server("token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		kind   error
		says   string
	}{
		{"wrong token", func(c *config.Config) { c.Token = "fedcba98765432100123456789abcdef" }, trust.ErrWrongToken, "copy the token from"},
		{"token of another cluster", func(c *config.Config) { c.Token = config.Secret(strings.TrimSpace(string(foreign))) }, trust.ErrCAHash, "and the token names"},
		{"no hash where one is required", func(c *config.Config) { c.RequireTokenCAHash = true }, trust.ErrHashRequired, "begins with K10"},
		{"other networks", func(c *config.Config) {
			c.ClusterCIDR = []netip.Prefix{netip.MustParsePrefix("10.52.0.0/16")}
			c.ClusterDomain = "other.local"
		}, nil, `cluster-cidr is 10.52.0.0/16 here and 10.42.0.0/16 in the cluster`},
		{"other encryption", func(c *config.Config) { c.SecretsEncryptionProvider = "secretbox" }, nil, `secrets-encryption-provider is "secretbox" here`},
	} {
		t.Run(c.name, func(t *testing.T) {
			second := joiner(t, url, c.change)
			err := second.joinCluster(t.Context())
			if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v and %q", err, c.kind, c.says)
			}
			var differs *agreement.ErrDiffers
			if c.kind == nil && !errors.As(err, &differs) {
				t.Errorf("%v does not name what differs", err)
			}
			if _, err := os.Stat(second.server("tls", "server-ca.crt")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("authorities were written: %v", err)
			}
		})
	}
}

// syncBuffer is a console that may be read while it is written.
type syncBuffer struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes chan struct{}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.text.Write(p)
	select {
	case b.writes <- struct{}{}:
	default:
	}
	return n, err
}

// A join server that is not up yet is waited for, and the console says so once.
func TestJoinServerIsAwaited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // nobody listens there now
	second := joiner(t, "https://"+address, nil)
	console := &syncBuffer{writes: make(chan struct{}, 1)}
	second.cfg.Console = console
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- second.joinCluster(ctx) }()
	select {
	case <-console.writes:
	case <-time.After(20 * time.Second):
		t.Fatal("the console says nothing")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := console.text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "waiting for the cluster: https://"+address+": server cannot be reached") {
		t.Errorf("console: got %q", got)
	}
}

// A server that has data goes on without its join server, and one that begins a cluster asks nobody.
func TestNobodyIsAskedWithoutNeed(t *testing.T) {
	second := joiner(t, "https://127.0.0.1:1", nil)
	if err := os.MkdirAll(second.server("db", "etcd", "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := second.joinCluster(t.Context()); err != nil {
		t.Errorf("with data: %v", err)
	}
	if err := newServer(t, nil).joinCluster(t.Context()); err != nil {
		t.Errorf("the first server: %v", err)
	}
}

func TestEtcdMembersOfTheJoinServer(t *testing.T) {
	first := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, first)
	url := serveCluster(t, first, []map[string]any{
		{"ID": 1, "name": "cp-1-a", "clientURLs": []string{"https://10.0.0.1:2379"}},
		{"ID": 2, "name": "cp-3-b", "clientURLs": []string{"https://10.0.0.3:2379"}, "isLearner": true},
	})
	got, err := joiner(t, url, nil).etcdMembers(t.Context())
	if err != nil || len(got) != 1 || got[0] != "https://10.0.0.1:2379" {
		t.Errorf("got %v, %v, want the one that votes", got, err)
	}
}

// A join server whose etcd elects a leader answers with errors for a while, which is no reason to end the start. A server
// that has data does not wait: it may be the one that is missing there.
func TestJoinServerWithoutALeader(t *testing.T) {
	first := newServer(t, func(c *config.Config) { c.Token = clusterToken })
	prepare(t, first)
	var asked atomic.Int32
	url := serveHandlers(t, first, func(h *supervisorapi.Handlers) {
		h.Members = func(context.Context) (any, error) {
			if asked.Add(1)%2 == 1 {
				return nil, errors.New("no leader")
			}
			return []map[string]any{{"ID": 1, "name": "cp-1-a", "clientURLs": []string{"https://10.0.0.1:2379"}}}, nil
		}
	})
	second := joiner(t, url, nil)
	if got, err := second.etcdMembers(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("without data: got %v, %v", got, err)
	}
	if err := os.MkdirAll(second.server("db", "etcd", "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := second.etcdMembers(t.Context()); err == nil || len(got) != 0 || asked.Load() != 3 {
		t.Errorf("with data: got %v, %v after %d questions, want one", got, err, asked.Load())
	}
}

// How etcd was started is the same at every start: another text would be another pod.
func TestHowEtcdBeganIsKept(t *testing.T) {
	s := newServer(t, nil)
	if err := s.makeFolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.startMember(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := s.member
	if !first.Alone || first.Initial.State != "new" || s.learner {
		t.Errorf("first start: got %+v, learner %v", first, s.learner)
	}
	again, err := s.loadBegan()
	if err != nil || again.Initial != first.Initial || !again.Alone {
		t.Errorf("remembered: got %+v, %v", again, err)
	}
	if err := os.WriteFile(s.beganPath(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.startMember(t.Context()); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("broken memory: got %v", err)
	}
}

func TestClusterConfigTellsNoSecret(t *testing.T) {
	first, _ := firstServer(t)
	document, err := first.clusterConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := agreement.Check(agreement.Of(first.settings), document); err != nil {
		t.Errorf("a server of the same settings would not join: %v", err)
	}
	psk, err := os.ReadFile(first.server("cred", "ipsec.psk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{clusterToken, strings.TrimSpace(string(psk)), "PSK", "Token", "Extra"} {
		if bytes.Contains(document, []byte(secret)) {
			t.Errorf("the document holds %.8s...", secret)
		}
	}
}

// Settings become the snapshots' configuration whole: an object store that is half told would keep nothing.
func TestObjectStoreTakesEverySetting(t *testing.T) {
	s := newServer(t, func(c *config.Config) {
		c.S3 = config.S3{
			Enabled: true, Endpoint: "s3.example", EndpointCA: "/ca", SkipSSLVerify: true, AccessKey: "access", SecretKey: "secret", SessionToken: "session",
			Bucket: "bucket", BucketLookup: "path", Region: "here", Folder: "folder", Proxy: "http://proxy.example", ConfigSecret: "settings",
			Insecure: true, Timeout: "90s", Retention: 7,
		}
	})
	store, err := s.objectStore()
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(*store)
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			t.Errorf("%s is not set", value.Type().Field(i).Name)
		}
	}
	if store.Timeout.Duration != 90*time.Second || store.SecretKey.Reveal() != "secret" {
		t.Errorf("got time-out %v", store.Timeout)
	}
	s.settings.S3.Timeout = "soon"
	if _, err := s.objectStore(); err == nil || !strings.Contains(err.Error(), "etcd-s3-timeout") {
		t.Errorf("got %v", err)
	}
}
