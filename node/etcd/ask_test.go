package etcd

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestState: a member that is not in its own list is not asked for its status, which would make it crash.
func TestState(t *testing.T) {
	refused := errors.New("rpc not supported for learner")
	for _, c := range []struct {
		name   string
		change func(*member)
		want   error
		asked  int
	}{
		{"a member", func(*member) {}, nil, 1},
		{"removed", func(m *member) { m.members = []*etcdserverpb.Member{{ID: 8}} }, ErrRemoved, 0},
		{"removed, and nobody left", func(m *member) { m.members = nil }, ErrRemoved, 0},
		{"a learner, which does not list", func(m *member) { m.refuses, m.status.IsLearner = refused, true }, nil, 1},
		{"nobody there", func(m *member) { m.refuses, m.down = refused, true }, errDown, 1},
	} {
		m := healthy()
		c.change(m)
		state, err := State(t.Context(), m, "https://127.0.0.1:2379")
		if !errors.Is(err, c.want) || (c.want == nil) != (state != nil) || (c.want == nil && err != nil) {
			t.Errorf("%s: got %v, %v, want %v", c.name, state, err, c.want)
		}
		if m.asked != c.asked {
			t.Errorf("%s: asked %d times for its status, want %d", c.name, m.asked, c.asked)
		}
	}
}
