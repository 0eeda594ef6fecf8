package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/config"
	"keelson/node/etcdsnapshot"
	"keelson/node/gate"
	"keelson/node/loadbalancer"
	"keelson/node/sequence"
	"keelson/node/status"
)

// saying is a member that answers.
type saying struct {
	status  *clientv3.StatusResponse
	members []*etcdserverpb.Member
	err     error // of the list
}

func (s saying) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	if s.status == nil {
		return nil, errors.New("nobody there")
	}
	return s.status, nil
}

func (s saying) MemberList(_ context.Context, opts ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	var op clientv3.Op
	for _, o := range opts {
		o(&op)
	}
	if !op.IsSerializable() {
		return nil, errors.New("without a majority nobody answers this")
	}
	header := new(etcdserverpb.ResponseHeader)
	if s.status != nil {
		header = s.status.Header
	}
	return &clientv3.MemberListResponse{Header: header, Members: s.members}, s.err
}

func TestAskMember(t *testing.T) {
	members := []*etcdserverpb.Member{{ID: 0xb, Name: "cp-2-x"}, {ID: 0xa, Name: "cp-1-x"}, {ID: 0xc, Name: "cp-3-x", IsLearner: true}}
	says := func(own, leader uint64, learner bool) *clientv3.StatusResponse {
		return &clientv3.StatusResponse{Header: &etcdserverpb.ResponseHeader{MemberId: own, ClusterId: 0xfe}, Leader: leader, IsLearner: learner}
	}
	shown := func(leader string) []status.Member {
		all := []status.Member{{Name: "cp-1-x", ID: "a", Role: status.Voter}, {Name: "cp-2-x", ID: "b", Role: status.Voter}, {Name: "cp-3-x", ID: "c", Role: status.Learner}}
		for i := range all {
			all[i].Leader = all[i].ID == leader
		}
		return all
	}
	down := errors.New("down")
	for _, c := range []struct {
		name string
		api  saying
		want status.Etcd
		err  bool
	}{
		{"leader", saying{says(0xa, 0xa, false), members, nil}, status.Etcd{Name: "kept", Member: "a", Cluster: "fe", Role: status.Voter, Leader: true, Members: shown("a")}, false},
		{"follower", saying{says(0xa, 0xb, false), members, nil}, status.Etcd{Name: "kept", Member: "a", Cluster: "fe", Role: status.Voter, Members: shown("b")}, false},
		{"learner", saying{says(0xc, 0xb, true), members, nil}, status.Etcd{Name: "kept", Member: "c", Cluster: "fe", Role: status.Learner, Members: shown("b")}, false},
		{"no leader", saying{says(0xa, 0, false), members, nil}, status.Etcd{Name: "kept", Member: "a", Cluster: "fe", Role: status.Voter, Members: shown("")}, false},
		{"no list", saying{says(0xa, 0xa, false), nil, down}, status.Etcd{Name: "kept", Member: "a", Cluster: "fe", Role: status.Voter, Leader: true}, true},
		{"removed", saying{says(0xd, 0xa, false), members, nil}, status.Etcd{Name: "kept"}, true},
		{"nobody", saying{}, status.Etcd{Name: "kept"}, true},
	} {
		got := status.Etcd{Name: "kept"}
		err := askMember(t.Context(), c.api, "https://127.0.0.1:2379", &got)
		if (err != nil) != c.err || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

// TestStatusWhileStarting: from its first step on a server tells over its socket what it waits for.
func TestStatusWhileStarting(t *testing.T) {
	s := newServer(t, func(c *config.Config) { c.Server, c.Token = "https://192.0.2.1:9345", "short" })
	s.places.status = filepath.Join(t.TempDir(), "node", "s")
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.run(ctx, []sequence.Step{
			{Name: "quick", Run: func(context.Context) error { return nil }},
			{Name: "cluster", After: []string{"quick"}, Run: func(ctx context.Context) error {
				said := false
				return s.persist(ctx, func(ctx context.Context) error {
					if said {
						close(waiting)
						<-ctx.Done()
						return context.Cause(ctx)
					}
					said = true
					return &passing{"the door is shut"}
				})
			}},
		}, nil)
	}()
	<-waiting
	got, err := status.Ask(t.Context(), s.places.status)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Waiting) != 1 || got.Waiting[0].For != "cluster" || got.Waiting[0].Reason != "the door is shut" {
		t.Errorf("waits for %+v", got.Waiting)
	}
	if got.State != status.Starting || got.Version != "test" || got.Role != status.Server || got.Join != "https://192.0.2.1:9345" || time.Since(got.Started) > time.Minute {
		t.Errorf("got %+v", got)
	}
	cancel()
	<-ended
	if _, err := status.Ask(t.Context(), s.places.status); !errors.Is(err, status.ErrStopped) {
		t.Errorf("after its end: got %v", err)
	}
}

// passing is an error that persist takes for one that passes.
type passing struct{ text string }

func (p *passing) Error() string   { return p.text }
func (p *passing) Timeout() bool   { return true }
func (p *passing) Temporary() bool { return true }

func TestStatusOfServer(t *testing.T) {
	s := newServer(t, nil)
	prepare(t, s)
	balancer, err := loadbalancer.New(loadbalancer.Config{Name: "x", Listen: "127.0.0.1:0", Default: "10.0.0.1:2379"})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	defer func() { _ = balancer.Run(ended) }() // closes it
	s.tellBalancer("rke2-etcd-server-load-balancer", balancer)
	until := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s.tellRotation(func() (time.Time, bool) { return until, true })
	outcome := etcdsnapshot.Outcome{}
	s.tellSnapshots(func() etcdsnapshot.Outcome { return outcome })
	g, err := gate.New(gate.Config{Listen: "127.0.0.1:0", Target: "10.0.0.9:6443", Ready: s.ready})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Run(ended) }()
	s.tellGate(g)
	s.live.Done()

	r := s.status(t.Context())
	if r.State != status.Up || r.Snapshot != nil || r.Trust.How != status.ByOwn || len(r.Trust.Authority) != 64 || !r.TokenBefore.Equal(until) || len(r.Problems) != 0 || r.NextRenewal == nil {
		t.Errorf("got %+v", r)
	}
	if len(r.Balancers) != 2 || r.Balancers[0].Servers[0].Address != "10.0.0.1:2379" || r.Balancers[1].Servers[0] != (status.Backend{Address: "10.0.0.9:6443", State: "ACTIVE"}) {
		t.Errorf("balancers: %+v", r.Balancers)
	}
	g.Redirect("")
	if r := s.status(t.Context()); r.Balancers[1].Servers[0].State != "HELD" {
		t.Errorf("a gate that is shut: %+v", r.Balancers[1])
	}

	const name = "etcd-snapshot-cp-1-1700000000"
	if err := os.MkdirAll(s.snapshotDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.snapshotDir(), name), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.live.Add(func(_ context.Context, r *status.Report) { r.Node = "cp-1" })
	outcome = etcdsnapshot.Outcome{At: until, Name: name, Remote: "s3://b/" + name}
	if x := s.status(t.Context()).Snapshot; x == nil || x.Name != name || x.Remote != "s3://b/"+name || x.Error != "" || !x.Verified {
		t.Errorf("snapshot: %+v", x)
	}
	outcome = etcdsnapshot.Outcome{At: until, Error: "no space"}
	if x := s.status(t.Context()).Snapshot; x == nil || x.Name != name || x.Remote != "" || x.Error != "no space" || !x.Failed.Equal(until) {
		t.Errorf("snapshot after a failure: %+v", x)
	}

	s.rejoined.Store(true)
	text, err := status.Render(s.status(t.Context()), "text")
	if err != nil || !strings.Contains(string(text), "put its data away and joined anew") {
		t.Errorf("got %s, %v", text, err)
	}
	if strings.Contains(string(text), s.passwords.Server.Reveal()) {
		t.Error("a secret is shown")
	}
}
