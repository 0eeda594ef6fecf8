package etcd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"sigs.k8s.io/yaml"
)

// TestArgumentTypes: etcd reads its file strictly, so a value must have the type that its setting has.
func TestArgumentTypes(t *testing.T) {
	for _, c := range []struct {
		arg  string
		want any
	}{
		{"quota-backend-bytes=8589934592", int64(8589934592)},
		{"--max-wals=3", int64(3)},
		{"warning-apply-duration=200ms", int64(200 * time.Millisecond)},
		{"corrupt-check-time=1h", int64(time.Hour)},
		{"watch-progress-notify-interval=10s", int64(10 * time.Second)},
		{"heartbeat-interval=250", int64(250)},
		{"strict-reconfig-check=false", false},
		{"pre-vote=true", true},
		{"cipher-suites=[TLS_A, TLS_B]", []any{"TLS_A", "TLS_B"}},
		{"log-outputs=[]", []any{}},
		{"log-level=debug", "debug"},
		{"auto-compaction-retention=1", "1"},
		{"auto-compaction-retention=1h", "1h"},
		{"initial-cluster-token=20261123", "20261123"},
		{"discovery-srv-name=true", "true"},
		{"feature-gates=A=true,B=false", "A=true,B=false"},
		{"metrics=", ""},
	} {
		t.Run(c.arg, func(t *testing.T) {
			_, got, err := parseArgument(c.arg)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %T %v, %v; want %T %v", got, got, err, c.want, c.want)
			}
		})
	}
}

// TestTextsAreEtcdsTexts holds the list against etcd's own type: a setting that is a text there must stay one.
func TestTextsAreEtcdsTexts(t *testing.T) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[embed.Config]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !slices.Contains(keys(), name) {
			continue
		}
		if isText := f.Type.Kind() == reflect.String; isText != slices.Contains(textKeys(), name) && name != "feature-gates" && name != "cors" && name != "host-whitelist" {
			t.Errorf("%s is a %v to etcd; in the list of texts: %v", name, f.Type, !isText)
		}
	}
	for _, key := range textKeys() {
		if !slices.Contains(keys(), key) {
			t.Errorf("%s is no setting", key)
		}
	}
}

// TestEtcdReadsNumbersAsTexts, through etcd's own reader.
func TestEtcdReadsNumbersAsTexts(t *testing.T) {
	p := params()
	p.Arguments = []string{"initial-cluster-token=1"}
	content, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := embed.ConfigFromFile(file)
	if err != nil || c.InitialClusterToken != "1" {
		t.Errorf("got %v", err)
	}
}

// TestListeners: what listens where, and what it takes.
func TestListeners(t *testing.T) {
	for _, c := range []struct {
		name, key string
		change    func(*Params)
		want      string
	}{
		{"clients", "listen-client-urls", nil, "https://127.0.0.1:2379,https://10.0.0.2:2379"},
		{"clients by IPv6", "listen-client-urls", func(p *Params) { p.Address = "fd00::2" }, "https://127.0.0.1:2379,https://[fd00::2]:2379"},
		{"peers", "listen-peer-urls", nil, "https://127.0.0.1:2380,https://10.0.0.2:2380"},
		{"metrics on this machine", "listen-metrics-urls", nil, "http://127.0.0.1:2381"},
		{"metrics for others", "listen-metrics-urls", func(p *Params) { p.ExposeMetrics = true }, "http://127.0.0.1:2381,http://10.0.0.2:2381"},
		{"first membership", "initial-cluster", nil, "cp-1-1b2c3d4e=https://10.0.0.2:2380"},
		{"state of the first membership", "initial-cluster-state", nil, "new"},
		{"a member with data reads none", "initial-cluster", func(p *Params) { p.Initial = Initial{} }, ""},
		{"the user's argument wins", "snapshot-count", func(p *Params) { p.Arguments = []string{"snapshot-count=7"} }, "7"},
		{"the later of two wins", "snapshot-count", func(p *Params) { p.Arguments = []string{"snapshot-count=7", "snapshot-count=8"} }, "8"},
		{"alone it elects at once", "election-timeout", nil, "1000"},
		{"with others it bears a slow network", "election-timeout", func(p *Params) { p.Alone = false }, "2500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			if c.change != nil {
				c.change(&p)
			}
			content, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			// Numbers are compared as they are written.
			got := ""
			for line := range strings.Lines(string(content)) {
				if value, ok := strings.CutPrefix(line, c.key+": "); ok {
					got = strings.TrimSpace(value)
				}
			}
			if got != c.want {
				t.Errorf("%s: got %q, want %q", c.key, got, c.want)
			}
		})
	}
	var c struct {
		Client struct {
			Auth bool `json:"client-cert-auth"`
		} `json:"client-transport-security"`
		Peer struct {
			Auth bool `json:"client-cert-auth"`
		} `json:"peer-transport-security"`
	}
	content, _ := Render(params())
	if err := yaml.Unmarshal(content, &c); err != nil || !c.Client.Auth || !c.Peer.Auth {
		t.Errorf("strangers may connect: %+v, %v", c, err)
	}
}

// broken is a member of which one call fails.
type broken struct {
	*member
	call string
}

var errCall = errors.New("the call failed")

func (b broken) AlarmList(ctx context.Context) (*clientv3.AlarmResponse, error) {
	if b.call == "list alarms" {
		return nil, errCall
	}
	return b.member.AlarmList(ctx)
}

func (b broken) AlarmDisarm(ctx context.Context, a *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	if b.call == "disarm" {
		return nil, errCall
	}
	return b.member.AlarmDisarm(ctx, a)
}

func (b broken) MemberList(ctx context.Context, o ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	if b.call == "list members" {
		return nil, errCall
	}
	return b.member.MemberList(ctx, o...)
}

func TestCheckTellsWhichCallFailed(t *testing.T) {
	for call, want := range map[string]string{"list alarms": "list etcd alarms", "disarm": "disarm no-space alarm", "list members": "list etcd members"} {
		m := healthy()
		m.status.Errors = []string{"x"}
		m.alarms = []*etcdserverpb.AlarmMember{{MemberID: 7, Alarm: etcdserverpb.AlarmType_NOSPACE}}
		err := Check(t.Context(), broken{m, call}, "", "a", "https://10.0.0.2:2380")
		if !errors.Is(err, errCall) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

// TestAlarmIsNamed, with the member that has it, and those behind it are still looked at.
func TestAlarmIsNamed(t *testing.T) {
	m := healthy()
	m.status.Errors = []string{"x"}
	m.alarms = []*etcdserverpb.AlarmMember{{MemberID: 7, Alarm: etcdserverpb.AlarmType_NOSPACE}, {MemberID: 0xab, Alarm: etcdserverpb.AlarmType_CORRUPT}}
	err := Check(t.Context(), m, "", "a", "https://10.0.0.2:2380")
	if !errors.Is(err, ErrAlarm) || err.Error() != "etcd member ab: CORRUPT: alarm must be disarmed manually" {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(m.disarmed, []uint64{7}) {
		t.Errorf("disarmed %v", m.disarmed)
	}
}
