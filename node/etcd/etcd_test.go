package etcd

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

var update = flag.Bool("update", false, "write golden files anew")

func params() Params {
	p := Params{DataDir: "/var/lib/rancher/rke2", Name: "cp-1-1b2c3d4e", Address: "10.0.0.2", Alone: true}
	p.Initial = Initial{Cluster: p.InitialCluster(), State: "new"}
	return p
}

func TestRender(t *testing.T) {
	overridden := params()
	overridden.Alone = false
	overridden.Address = "fd00::2"
	overridden.ExposeMetrics = true
	overridden.Initial = Initial{}
	overridden.Arguments = []string{"quota-backend-bytes=8589934592", "auto-compaction-mode=periodic", "auto-compaction-retention=1",
		"grpc-keepalive-interval=30s", "log-outputs=[stderr, stdout]", "--enable-pprof=true", "log-level=debug"}
	for name, p := range map[string]Params{"default": params(), "overridden": overridden} {
		t.Run(name, func(t *testing.T) {
			got, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			// etcd itself must take it.
			c, err := embed.ConfigFromFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if c.Name != p.Name || len(c.ListenClientUrls) != 2 || len(c.ListenClientHttpUrls) != 1 || !c.ClientTLSInfo.ClientCertAuth || !c.SocketOpts.ReusePort {
				t.Errorf("etcd reads %+v", c)
			}
			if c.WatchProgressNotifyInterval != 5*time.Second {
				t.Errorf("watch progress every %s", c.WatchProgressNotifyInterval)
			}
			if name == "overridden" && (c.QuotaBackendBytes != 8589934592 || c.AutoCompactionRetention != "1" || c.GRPCKeepAliveInterval != 30*time.Second || len(c.LogOutputs) != 2 || !c.EnablePprof) {
				t.Errorf("arguments are not what was meant: %+v", c)
			}
		})
	}
}

// The list of settings must be etcd's own.
func TestKeysAreEtcds(t *testing.T) {
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[embed.Config]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[name] = true
	}
	// These stand in an unexported part of the file's type (embed.configJSON).
	for _, name := range []string{"listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "initial-advertise-peer-urls", "advertise-client-urls", "cors", "host-whitelist", "feature-gates"} {
		known[name] = true
	}
	for _, key := range keys() {
		if !known[key] {
			t.Errorf("%s is no setting of etcd", key)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	for arg, want := range map[string]string{
		"quota":        "key=value",
		"quota-byte=1": "no such setting",
		"experimental-initial-corrupt-check=true": "feature-gates",
		"cipher-suites=[a":                        "not a list",
	} {
		p := params()
		p.Arguments = []string{arg}
		if _, err := Render(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %q", arg, err, want)
		}
	}
}

func FuzzParseArgument(f *testing.F) {
	f.Add("cipher-suites=[a, b]")
	f.Add("max-wals=1")
	f.Fuzz(func(t *testing.T, arg string) {
		key, _, err := parseArgument(arg)
		if err != nil {
			return
		}
		if !slices.Contains(keys(), key) {
			t.Errorf("%q sets %q", arg, key)
		}
		p := params()
		p.Arguments = []string{arg}
		if _, err := Render(p); err != nil {
			t.Error(err)
		}
	})
}

func TestEnsureName(t *testing.T) {
	dir := t.TempDir()
	name, err := EnsureName(dir, "cp-1")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^cp-1-[0-9a-f]{8}$`).MatchString(name) {
		t.Errorf("got name %q", name)
	}
	again, err := EnsureName(dir, "other")
	if err != nil || again != name {
		t.Errorf("second start: got %q, %v; want %q", again, err, name)
	}
	if info, err := os.Stat(filepath.Join(Dir(dir), "name")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want mode 0600", info, err)
	}
	if err := os.WriteFile(filepath.Join(Dir(dir), "name"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureName(dir, "cp-1"); err == nil {
		t.Error("an empty name was taken")
	}
}

func TestHasData(t *testing.T) {
	dir := t.TempDir()
	if got, err := HasData(dir); got || err != nil {
		t.Errorf("empty: got %v, %v", got, err)
	}
	if err := os.MkdirAll(filepath.Join(Dir(dir), "member", "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := HasData(dir); !got || err != nil {
		t.Errorf("with data: got %v, %v", got, err)
	}
}

// member is an etcd that answers as it is told.
type member struct {
	status   *clientv3.StatusResponse
	alarms   []*etcdserverpb.AlarmMember
	members  []*etcdserverpb.Member
	down     bool
	refuses  error // to list the members
	disarmed []uint64
	asked    int
	upAfter  int
}

var errDown = errors.New("connection refused")

func (m *member) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	m.asked++
	if m.down || m.asked <= m.upAfter {
		return nil, errDown
	}
	return m.status, nil
}

func (m *member) AlarmList(context.Context) (*clientv3.AlarmResponse, error) {
	return (*clientv3.AlarmResponse)(&etcdserverpb.AlarmResponse{Alarms: m.alarms}), nil
}

func (m *member) AlarmDisarm(_ context.Context, a *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	m.disarmed = append(m.disarmed, a.MemberID)
	return &clientv3.AlarmResponse{}, nil
}

func (m *member) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	if m.refuses != nil {
		return nil, m.refuses
	}
	return (*clientv3.MemberListResponse)(&etcdserverpb.MemberListResponse{Header: &etcdserverpb.ResponseHeader{MemberId: 7}, Members: m.members}), nil
}

func (m *member) MemberUpdate(_ context.Context, id uint64, urls []string) (*clientv3.MemberUpdateResponse, error) {
	for _, one := range m.members {
		if one.ID == id {
			one.PeerURLs = urls
		}
	}
	return &clientv3.MemberUpdateResponse{}, nil
}

func healthy() *member {
	return &member{
		status:  (*clientv3.StatusResponse)(&etcdserverpb.StatusResponse{Header: &etcdserverpb.ResponseHeader{MemberId: 7}, Leader: 7}),
		members: []*etcdserverpb.Member{{ID: 7, Name: "a", PeerURLs: []string{"https://10.0.0.2:2380"}}},
	}
}

func TestCheck(t *testing.T) {
	noSpace := func(id uint64) *etcdserverpb.AlarmMember {
		return &etcdserverpb.AlarmMember{MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE}
	}
	for _, c := range []struct {
		name     string
		change   func(*member)
		want     error
		disarmed []uint64
	}{
		{"healthy", func(*member) {}, nil, nil},
		{"learner", func(m *member) { m.status.IsLearner = true }, ErrLearner, nil},
		{"no leader", func(m *member) { m.status.Leader = 0 }, ErrNoLeader, nil},
		{"other name", func(m *member) { m.members[0].Name = "b" }, ErrNotOurs, nil},
		{"other address", func(m *member) { m.members[0].PeerURLs = nil }, ErrNotOurs, nil},
		{"own disk was full", func(m *member) { m.status.Errors, m.alarms = []string{"x"}, append(m.alarms, noSpace(7)) }, nil, []uint64{7}},
		{"another's disk is full", func(m *member) { m.status.Errors, m.alarms = []string{"x"}, append(m.alarms, noSpace(8)) }, nil, nil},
		{"corrupt", func(m *member) {
			m.status.Errors = []string{"x"}
			m.alarms = append(m.alarms, &etcdserverpb.AlarmMember{MemberID: 7, Alarm: etcdserverpb.AlarmType_CORRUPT})
		}, ErrAlarm, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := healthy()
			c.change(m)
			err := Check(t.Context(), m, "https://127.0.0.1:2379", "a", "https://10.0.0.2:2380")
			if !errors.Is(err, c.want) || (c.want == nil && err != nil) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
			if !slices.Equal(m.disarmed, c.disarmed) {
				t.Errorf("disarmed %v, want %v", m.disarmed, c.disarmed)
			}
		})
	}
}

func TestReady(t *testing.T) {
	m := healthy()
	m.upAfter = 2
	if err := Ready(t.Context(), m, "", "a", "https://10.0.0.2:2380"); err != nil || m.asked != 3 {
		t.Errorf("got %v after %d questions, want success after 3", err, m.asked)
	}

	m = healthy()
	m.status.Errors = []string{"x"}
	m.alarms = []*etcdserverpb.AlarmMember{{MemberID: 7, Alarm: etcdserverpb.AlarmType_CORRUPT}}
	if err := Ready(t.Context(), m, "", "a", "https://10.0.0.2:2380"); !errors.Is(err, ErrAlarm) {
		t.Errorf("corrupt: got %v, want it told at once", err)
	}

	m = healthy()
	m.down = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Ready(ctx, m, "", "a", ""); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("stopped: got %v, want the last reason in it", err)
	}
}

// A machine that is alone and comes up with another address goes on; one of several must not rename itself.
func TestReadyAfterAnotherAddress(t *testing.T) {
	const moved = "https://10.0.0.9:2380"
	m := healthy()
	if err := Ready(t.Context(), m, "", "a", moved); err != nil || m.members[0].PeerURLs[0] != moved {
		t.Errorf("alone: got %v and %v, want the member at its new address", err, m.members[0].PeerURLs)
	}

	m = healthy()
	m.members = append(m.members, &etcdserverpb.Member{ID: 8, Name: "b", PeerURLs: []string{"https://10.0.0.3:2380"}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Ready(ctx, m, "", "a", moved); !errors.Is(err, ErrNotOurs) || m.members[0].PeerURLs[0] == moved {
		t.Errorf("of two: got %v and %v, want ErrNotOurs and the old address", err, m.members[0].PeerURLs)
	}
}

func TestNewClientRefuses(t *testing.T) {
	if _, err := NewClient(t.Context(), Connection{Endpoints: []string{"https://127.0.0.1:1"}, CAFile: "/none", CertFile: "/none", KeyFile: "/none"}); err == nil {
		t.Error("want an error for absent certificates")
	}
}
