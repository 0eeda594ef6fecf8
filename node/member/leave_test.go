package member

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"keelson/node/etcd"
)

// A server whose settings have no etcd any more: its member goes, its data stays beside, the others serve on.
func TestLeave(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	l := newLAN(t)
	a := l.machine(t, 15, "a", nil)
	b, c := l.machine(t, 16, "b", a), l.machine(t, 17, "c", a)

	if old, err := Leave(ctx, a.config()); old != "" || err != nil {
		t.Errorf("without data: got %q, %v, want nothing to leave", old, err)
	}
	if err := a.serve(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := Leave(ctx, a.config()); !errors.Is(err, etcd.ErrInUse) {
		t.Errorf("while it runs: got %v, want %v", err, etcd.ErrInUse)
	}
	a.kill()
	if _, err := Leave(ctx, a.config()); !errors.Is(err, ErrLastMember) {
		t.Errorf("the last member: got %v, want %v", err, ErrLastMember)
	}
	if has, err := etcd.HasData(a.dir); err != nil || !has {
		t.Fatalf("the last member's data: got %v, %v, want it to be there", has, err)
	}
	a.params = etcd.Params{}
	together(ctx, t, a)
	together(ctx, t, b)
	b.kill()
	if _, err := Leave(ctx, b.config()); !errors.Is(err, ErrNoMajority) {
		t.Errorf("one of two, which is off: got %v, want %v", err, ErrNoMajority)
	}
	b.params = etcd.Params{}
	together(ctx, t, b)
	together(ctx, t, c)

	c.kill()
	old, err := leave(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if has, err := etcd.HasData(c.dir); err != nil || has {
		t.Errorf("the data is still in its place: %v, %v", has, err)
	}
	if _, err := filepath.Glob(filepath.Join(old, "member", "wal", "*.wal")); err != nil || filepath.Base(old)[:9] != "etcd-old-" {
		t.Errorf("the data is not put away: %q, %v", old, err)
	}
	if v, n := voters(ctx, t, l.client(t, a)); v != 2 || n != 0 {
		t.Errorf("got %d voters and %d learners, want the two that stay", v, n)
	}
	if _, err := l.client(t, a).Put(ctx, "after", "x"); err != nil {
		t.Errorf("the others do not serve: %v", err)
	}
	if old, err := Leave(ctx, c.config()); old != "" || err != nil {
		t.Errorf("again: got %q, %v, want nothing to leave", old, err)
	}
	comeBack(ctx, t, l, a, c)
}

// leave tries again while etcd wants to have seen its members for longer.
func leave(ctx context.Context, m *machine) (string, error) {
	for {
		old, err := Leave(ctx, m.config())
		if !errors.Is(err, ErrNoMajority) || pause(ctx, 100*time.Millisecond) != nil {
			return old, err
		}
	}
}

// comeBack gives the server etcd again: it joins as one that was never there.
func comeBack(ctx context.Context, t *testing.T, l *lan, a, c *machine) {
	t.Helper()
	c.params = etcd.Params{}
	if err := c.serve(ctx); err != nil {
		t.Fatal(err)
	}
	if v, n := voters(ctx, t, l.client(t, a)); v != 3 || n != 0 {
		t.Errorf("back again: got %d voters and %d learners, want 3 and none", v, n)
	}
	// Cut off after the others had let it go, and before the data was put away.
	id, err := etcd.ReadIdentity(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	c.kill()
	client := l.client(t, a)
	eventually(ctx, t, "the others do not let it go", func() bool {
		_, err := client.MemberRemove(ctx, id.Member)
		return err == nil
	})
	if old, err := leave(ctx, c); old == "" || err != nil {
		t.Errorf("removed already: got %q, %v, want the data put away", old, err)
	}
}
