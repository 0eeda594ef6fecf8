package etcdcare

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"keelson/node/etcdsnapshot/etcdtest"
)

// Three real members that hold mostly history: the leader's server gives space back to one after the other, itself
// last, and the cluster takes writes throughout.
func TestThreeRealMembers(t *testing.T) {
	members := etcdtest.Start(t, 3, func(_ int, c *embed.Config) { c.TickMs, c.ElectionMs = 100, 1000 })
	ctx := context.Background()
	first := members[0].Client
	var revision int64
	for i := range 40 {
		r, err := first.Put(ctx, "/registry/same", fmt.Sprint(i)+strings.Repeat("x", 64<<10))
		if err != nil {
			t.Fatal(err)
		}
		revision = r.Header.Revision
	}
	if _, err := first.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	size := map[string]int64{}
	var leader *etcdtest.Member
	for _, m := range members {
		// A read brings the member up to date, and its compaction is part of what it has applied.
		if _, err := m.Client.Get(ctx, "/registry/same"); err != nil {
			t.Fatal(err)
		}
		status, err := m.Client.Status(ctx, m.Endpoint)
		if err != nil {
			t.Fatal(err)
		}
		size[m.Name] = status.DbSize
		if status.Leader == status.Header.MemberId {
			leader = m
		}
	}
	if leader == nil {
		t.Fatal("no leader")
	}
	// The others' servers leave it alone, and compaction goes on beside: each round is tried until it has acted.
	for _, m := range members {
		if m == leader {
			continue
		}
		v, err := newCare(t, m.Client, func(c *Config) { c.Endpoint, c.MinSize = m.Endpoint, 1<<20 }).look(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if a := decide(v, 1<<20); a.kind != nothing {
			t.Errorf("%s is no leader and wants to act: %+v", m.Name, a)
		}
	}
	care := newCare(t, leader.Client, func(c *Config) { c.Endpoint, c.MinSize = leader.Endpoint, 1<<20 })
	var order []string
	for round := 0; len(order) < 3 && round < 300; round++ {
		v, err := care.look(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wasted := 0
		for _, m := range v.members {
			if wasteful(m, care.MinSize) {
				wasted++
			}
		}
		a := decide(v, care.MinSize)
		if wasted < 3-len(order) { // a member counts what compaction freed with its next commit
			if _, err := first.Put(ctx, "/registry/other", "x"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := care.defragment(ctx, a.member); err != nil {
			t.Fatal(err)
		}
		order = append(order, a.member.name)
		if _, err := first.Put(ctx, "/registry/after", a.member.name); err != nil {
			t.Errorf("a write after %s's turn: %v", a.member.name, err)
		}
	}
	if len(order) != 3 || order[2] != leader.Name {
		t.Fatalf("turns %v, want all three, and %s last", order, leader.Name)
	}
	for _, m := range members {
		status, err := m.Client.Status(ctx, m.Endpoint)
		if err != nil || status.DbSize >= size[m.Name]/2 {
			t.Errorf("%s: %d bytes, then %d; %v", m.Name, size[m.Name], status.DbSize, err)
		}
	}
}
