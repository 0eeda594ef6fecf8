package etcdcare

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// member is one member as it was just seen.
type member struct {
	id                uint64
	name, endpoint    string
	healthy, learner  bool
	full, corrupt     bool
	size, used, quota int64
}

// view is the cluster as it was just seen.
type view struct {
	self, leader uint64
	revision     int64
	members      []member
}

type kind int

const (
	nothing kind = iota
	makeRoom
	defragment
)

type action struct {
	kind   kind
	member member
}

// decide says what this server does now. A full member of its own comes first: until that is cleared nobody writes.
// Space is given back only in a cluster that is whole.
func decide(v view, minSize int64) action {
	whole := v.leader != 0
	var candidate *member
	for i, m := range v.members {
		if m.id == v.self && m.full && !m.corrupt && !m.learner {
			return action{makeRoom, m}
		}
		if !m.healthy || m.learner || m.full || m.corrupt {
			whole = false
		}
		// The leader's turn comes when no other needs one.
		if wasteful(m, minSize) && (candidate == nil || candidate.id == v.leader) {
			candidate = &v.members[i]
		}
	}
	if whole && candidate != nil && v.self == v.leader {
		return action{defragment, *candidate}
	}
	return action{}
}

// wasteful is a database of which less than half is used.
func wasteful(m member, minSize int64) bool { return m.size >= minSize && m.used < m.size/2 }

// roomy is a database with a tenth of its quota free. A quota of 0 is one that is not told.
func roomy(size, quota int64) bool { return quota <= 0 || size < quota-quota/10 }

func isCompacted(err error) bool { return errors.Is(err, rpctypes.ErrCompacted) }
