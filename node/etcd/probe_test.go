package etcd_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/etcd"
	"keelson/node/etcdsnapshot/etcdtest"
)

// prober asks with the certificates of the test's cluster.
func prober(m *etcdtest.Member) *etcd.Prober {
	dir := filepath.Dir(m.Dir)
	return etcd.NewProber(etcd.Connection{
		CAFile:   filepath.Join(dir, "ca.crt"),
		CertFile: filepath.Join(dir, "leaf.crt"), KeyFile: filepath.Join(dir, "leaf.key"),
	})
}

func ask(t *testing.T, p *etcd.Prober, m *etcdtest.Member) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return p.Probe(ctx, strings.TrimPrefix(m.Endpoint, "https://"))
}

// TestProberWithRealMembers: a member serves while it has a leader; cut off from the others it does not, and one that
// was removed is told so, or is gone, but is not brought to crash by the question.
func TestProberWithRealMembers(t *testing.T) {
	members := etcdtest.Start(t, 3, func(_ int, c *embed.Config) { c.TickMs, c.ElectionMs = 100, 1000 })
	p := prober(members[0])
	defer p.Keep(nil)
	for _, m := range members {
		if err := ask(t, p, m); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
	list, err := members[0].Client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third := slices.IndexFunc(list.Members, func(m *etcdserverpb.Member) bool { return m.Name == members[2].Name })
	for deadline := time.Now().Add(20 * time.Second); ; { // not before all have been connected for 5 s
		_, err := members[0].Client.MemberRemove(t.Context(), list.Members[third].ID)
		if err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := ask(t, p, members[2])
		if err != nil && strings.Contains(err.Error(), "etcd ended") {
			t.Fatalf("the question made the member crash: %v", err)
		}
		if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a removed member still serves")
		}
	}
	members[1].Stop()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if err := ask(t, p, members[0]); errors.Is(err, etcd.ErrNoLeader) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("one of two: got %v, want ErrNoLeader", err)
		}
	}
}

func TestProbeNobody(t *testing.T) {
	p := prober(etcdtest.Start(t, 1, nil)[0])
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.Probe(ctx, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v, want an error that names the member", err)
	}
	broken := etcd.NewProber(etcd.Connection{CAFile: "/none", CertFile: "/none", KeyFile: "/none"})
	if err := broken.Probe(t.Context(), "127.0.0.1:1"); err == nil {
		t.Error("asked without certificates")
	}
}

func TestAddresses(t *testing.T) {
	got := etcd.Addresses([]string{"https://[fd00::1]:2379", "https://10.0.0.2:2379", "https://10.0.0.3", "unix://socket", ":", ""})
	if want := []string{"[fd00::1]:2379", "10.0.0.2:2379"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
