package etcdcare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/etcdsnapshot/etcdtest"
)

func TestDecide(t *testing.T) {
	const least = 100
	ok := func(id uint64) member { return member{id: id, healthy: true, size: 200, used: 150, quota: 1000} }
	waste := func(id uint64) member { return member{id: id, healthy: true, size: 200, used: 50, quota: 1000} }
	with := func(m member, change func(*member)) member { change(&m); return m }
	for _, c := range []struct {
		name         string
		self, leader uint64
		members      []member
		want         kind
		of           uint64
	}{
		{"all is well", 1, 1, []member{ok(1), ok(2), ok(3)}, nothing, 0},
		{"a follower first", 1, 1, []member{waste(1), ok(2), waste(3)}, defragment, 3},
		{"followers in turn", 1, 1, []member{waste(2), waste(1), waste(3)}, defragment, 2},
		{"the leader last", 1, 1, []member{waste(1), ok(2), ok(3)}, defragment, 1},
		{"only the leader's server does it", 2, 1, []member{waste(1), waste(2), waste(3)}, nothing, 0},
		{"alone", 1, 1, []member{waste(1)}, defragment, 1},
		{"small ones are left", 1, 1, []member{{id: 1, healthy: true, size: 99, used: 1}}, nothing, 0},
		{"another is missing", 1, 1, []member{waste(1), waste(2), with(ok(3), func(m *member) { m.healthy = false })}, nothing, 0},
		{"another is learning", 1, 1, []member{waste(1), waste(2), with(ok(3), func(m *member) { m.learner = true })}, nothing, 0},
		{"another is full", 1, 1, []member{waste(1), waste(2), with(ok(3), func(m *member) { m.full = true })}, nothing, 0},
		{"another is corrupt", 1, 1, []member{waste(1), waste(2), with(ok(3), func(m *member) { m.corrupt = true })}, nothing, 0},
		{"no leader", 1, 0, []member{waste(1), waste(2), waste(3)}, nothing, 0},
		{"own is full", 2, 1, []member{waste(1), with(ok(2), func(m *member) { m.full = true }), ok(3)}, makeRoom, 2},
		{"own is full, another is missing", 2, 1, []member{with(ok(1), func(m *member) { m.healthy = false }), with(ok(2), func(m *member) { m.full = true })}, makeRoom, 2},
		{"own is full and corrupt", 2, 1, []member{with(ok(2), func(m *member) { m.full, m.corrupt = true, true })}, nothing, 0},
	} {
		got := decide(view{self: c.self, leader: c.leader, members: c.members}, least)
		if got.kind != c.want || got.member.id != c.of {
			t.Errorf("%s: got %v of member %d, want %v of %d", c.name, got.kind, got.member.id, c.want, c.of)
		}
	}
}

// script is etcd as the test tells it.
type script struct {
	members []*etcdserverpb.Member
	status  map[string]*clientv3.StatusResponse
	alarms  []*etcdserverpb.AlarmMember
	after   int64 // size after a defragmentation
	calls   []string
	compact error
}

func (s *script) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	return (*clientv3.MemberListResponse)(&etcdserverpb.MemberListResponse{Header: &etcdserverpb.ResponseHeader{MemberId: 1}, Members: s.members}), nil
}
func (s *script) Status(_ context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	if r := s.status[endpoint]; r != nil {
		return r, nil
	}
	return nil, errors.New("down")
}
func (s *script) AlarmList(context.Context) (*clientv3.AlarmResponse, error) {
	return (*clientv3.AlarmResponse)(&etcdserverpb.AlarmResponse{Alarms: s.alarms}), nil
}
func (s *script) AlarmDisarm(_ context.Context, m *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	s.calls = append(s.calls, fmt.Sprintf("disarm %v of %d", m.Alarm, m.MemberID))
	return nil, nil
}
func (s *script) Defragment(_ context.Context, endpoint string) (*clientv3.DefragmentResponse, error) {
	s.calls = append(s.calls, "defragment "+endpoint)
	s.status[endpoint].DbSize = s.after
	return nil, nil
}
func (s *script) Compact(_ context.Context, rev int64, _ ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	s.calls = append(s.calls, fmt.Sprintf("compact %d", rev))
	return nil, s.compact
}

func newScript(alarms ...*etcdserverpb.AlarmMember) *script {
	s := &script{status: map[string]*clientv3.StatusResponse{}, alarms: alarms}
	for id := uint64(1); id <= 3; id++ {
		endpoint := fmt.Sprintf("https://m%d:2379", id)
		s.members = append(s.members, &etcdserverpb.Member{ID: id, Name: fmt.Sprintf("cp-%d", id), ClientURLs: []string{endpoint}})
		s.status[endpoint] = (*clientv3.StatusResponse)(&etcdserverpb.StatusResponse{
			Header: &etcdserverpb.ResponseHeader{MemberId: id, Revision: 77}, Leader: 1, DbSize: 950, DbSizeInUse: 900, DbSizeQuota: 1000,
		})
	}
	s.status["local"] = s.status["https://m1:2379"]
	return s
}

func newCare(t *testing.T, api API, change func(*Config)) *Care {
	t.Helper()
	c := Config{API: api, Endpoint: "local", MinSize: 100, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	care, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return care
}

func TestNoSpace(t *testing.T) {
	full := &etcdserverpb.AlarmMember{MemberID: 1, Alarm: etcdserverpb.AlarmType_NOSPACE}
	for _, c := range []struct {
		name    string
		after   int64
		compact error
		disarms bool
		says    string
	}{
		{"there is room then", 300, nil, true, ""},
		{"another server compacted", 300, rpctypes.ErrCompacted, true, ""},
		{"it stays full", 901, nil, false, "quota-backend-bytes"},
		{"compaction fails", 300, errors.New("no quorum"), false, "no quorum"},
	} {
		s := newScript(full)
		s.after, s.compact = c.after, c.compact
		err := newCare(t, s, nil).Once(context.Background())
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
		if got := slices.Contains(s.calls, "disarm NOSPACE of 1"); got != c.disarms {
			t.Errorf("%s: calls %v", c.name, s.calls)
		}
		if s.calls[0] != "compact 77" {
			t.Errorf("%s: calls %v", c.name, s.calls)
		}
	}
	others := newScript(&etcdserverpb.AlarmMember{MemberID: 2, Alarm: etcdserverpb.AlarmType_NOSPACE})
	if err := newCare(t, others, nil).Once(context.Background()); err != nil || len(others.calls) != 0 {
		t.Errorf("another's alarm: %v, %v; want it left to that one's server", others.calls, err)
	}
}

func TestCorruptMembersAreNamed(t *testing.T) {
	var log strings.Builder
	var told []string
	s := newScript(&etcdserverpb.AlarmMember{MemberID: 2, Alarm: etcdserverpb.AlarmType_CORRUPT})
	care := newCare(t, s, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Corrupt = func(members []string) { told = members }
	})
	if err := care.Once(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "cp-2") || !strings.Contains(log.String(), "level=ERROR") || !slices.Equal(told, []string{"cp-2"}) {
		t.Errorf("told %v, log %q", told, log.String())
	}
	if len(s.calls) != 0 {
		t.Errorf("calls %v", s.calls)
	}
	s.alarms = nil
	if err := care.Once(context.Background()); err != nil || len(told) != 0 {
		t.Errorf("after the repair: %v, %v", told, err)
	}
}

func TestAMissingMemberStopsDefragmentation(t *testing.T) {
	s := newScript()
	for _, r := range s.status {
		r.DbSizeInUse = 10
	}
	s.after = 20
	care := newCare(t, s, nil)
	down := s.status["https://m3:2379"]
	delete(s.status, "https://m3:2379")
	if err := care.Once(context.Background()); err != nil || len(s.calls) != 0 {
		t.Errorf("calls %v, %v", s.calls, err)
	}
	s.status["https://m3:2379"] = down
	for range 4 {
		if err := care.Once(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"defragment https://m2:2379", "defragment https://m3:2379", "defragment local"}; !slices.Equal(s.calls, want) {
		t.Errorf("got %v, want %v", s.calls, want)
	}
}

func TestRunGoesOnAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		delete(s.status, "local")
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := newCare(t, s, nil).Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration was taken")
	}
}

// A real member with a quota that is filled up: writes stop, room is made, writes go on.
func TestAgainstRealEtcd(t *testing.T) {
	member := etcdtest.Start(t, 1, func(_ int, c *embed.Config) { c.QuotaBackendBytes = 4 << 20 })[0]
	ctx := context.Background()
	value := strings.Repeat("x", 256<<10)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = member.Client.Put(ctx, "/registry/same", value)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("filling up: got %v, want ErrNoSpace", err)
	}
	before, err := member.Client.Status(ctx, member.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	care := newCare(t, member.Client, func(c *Config) { c.Endpoint = member.Endpoint })
	if err := care.Once(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := member.Client.Put(ctx, "/registry/other", "y"); err != nil {
		t.Errorf("a write after room was made: %v", err)
	}
	after, err := member.Client.Status(ctx, member.Endpoint)
	if err != nil || after.DbSize >= before.DbSize/2 || len(after.Errors) != 0 {
		t.Errorf("size %d, then %d; %v %v", before.DbSize, after.DbSize, after.Errors, err)
	}
	if got, err := member.Client.Get(ctx, "/registry/same"); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
		t.Errorf("what was acknowledged is lost: %v", err)
	}
}
