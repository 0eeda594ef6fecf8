package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"keelson/node/config"
	"keelson/node/pki"
	"keelson/node/signing"
	"keelson/node/supervisorapi"
	"keelson/node/token"
)

// supervised is a cluster with one server whose supervisor is our own.
type supervised struct {
	*cluster
	server string // its URL

	mu        sync.Mutex // guards what follows
	ready     bool
	passwords map[string]token.Secret
}

func newSupervised(t *testing.T) *supervised {
	t.Helper()
	s := &supervised{cluster: newCluster(t, 1), ready: true, passwords: map[string]token.Secret{}}
	serving, err := pki.NewServing(s.pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	api, err := supervisorapi.New(supervisorapi.Config{Certificate: serving.Certificate, ClientCA: read(t, s.file("client-ca.crt")), Log: newLog(),
		Limits: supervisorapi.Limits{RequestsPerSecond: 1e6, RequestBurst: 1e6, FailuresPerMinute: 1e6}, // the test's agents do not wait
	})
	if err != nil {
		t.Fatal(err)
	}
	signer := signing.Signer{ServerDir: s.pki.ServerDir, ServiceNetworks: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, ClusterDomain: "cluster.local"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s.server = "https://127.0.0.1:" + port
	err = api.Install(supervisorapi.Handlers{
		CACerts: read(t, s.file("server-ca.crt")),
		Users:   []token.User{{Name: token.UserNode, Password: agentPassword, Roles: []string{token.RoleAgent}}},
		Ready: func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.ready
		},
		APIServers: func(context.Context) ([]string, error) { return []string{"127.0.0.1:" + s.apiPort}, nil },
		Bootstrap: func(context.Context, token.Secret) ([]byte, error) {
			return nil, errors.New("agents have no business with it")
		},
		Config: func(context.Context) ([]byte, error) {
			return []byte(`{"SupervisorPort":` + port + `,"ClusterDomain":"cluster.local","ClusterDNS":"10.43.0.10","ClusterIPRange":` + net4 + `,"ServiceIPRange":{"IP":"10.43.0.0","Mask":"//8AAA=="}}`), nil
		},
		NodePassword: func(_ context.Context, node string, password token.Secret, _ bool) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if known, ok := s.passwords[node]; ok && known.Reveal() != password.Reveal() {
				return &supervisorapi.Refusal{Code: 403, Message: "node password is not the one that " + node + " joined with"}
			}
			s.passwords[node] = password
			return nil
		},
		Sign:    signer.Sign,
		Connect: s.tunnels.ServeNode,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("supervisor: %v", err)
		}
	})
	return s
}

func (s *supervised) is(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
}

// Our agent and our supervisor, from the token to the tunnel.
func TestOurSupervisor(t *testing.T) {
	s, m := newSupervised(t), newMachine(t)
	there := func(c *config.Config) { c.Server = s.server }
	a, stop := m.start(t, s.cluster, there)
	ctx := within(t)
	if err := steps(t, ctx, a, append(joining(), "servers", "versions", "gate")...); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "the tunnel", func() bool { return s.tunnels.Has("w-1") })
	if _, err := a.renew(ctx); err != nil {
		t.Errorf("renewal with the certificates that the signer made: %v", err)
	}

	s.is(false)
	ended := make(chan error, 1)
	go func() { ended <- a.awaitCluster(ctx) }()
	await(t, ctx, "the console to tell of the gate", func() bool { return strings.Contains(m.console.String(), "waiting: the control plane: ") })
	select {
	case err := <-ended:
		t.Errorf("the gate does not hold: %v", err)
	default:
	}
	s.is(true)
	if err := <-ended; err != nil {
		t.Errorf("the gate does not open: %v", err)
	}

	// The same machine again, with a token that has ended, shows its certificate.
	stop()
	a, _ = m.start(t, s.cluster, func(c *config.Config) {
		there(c)
		full, err := token.Format(read(t, s.file("server-ca.crt")), token.UserNode, "ended")
		if err != nil {
			t.Fatal(err)
		}
		c.Token = full
	})
	if err := steps(t, ctx, a, joining()...); err != nil {
		t.Errorf("second start: %v", err)
	}

	// Another machine under the same name is told so.
	other := newMachine(t)
	b, _ := other.start(t, s.cluster, there)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	refused := make(chan error, 1)
	go func() { refused <- steps(t, ctx, b, joining()...) }()
	await(t, ctx, "the refusal", func() bool {
		return strings.Contains(other.console.String(), "delete that node (kubectl delete node w-1)")
	})
	cancel()
	if err := <-refused; err == nil {
		t.Error("two machines have one name")
	}
}
