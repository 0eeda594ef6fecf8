package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ProgressKey holds how far the learner is, as RKE2 writes it (k3s pkg/etcd, learnerProgress).
const ProgressKey = "rke2/etcd/learnerProgress"

// stallAfter is how long a learner may stand still (k3s pkg/etcd, learnerMaxStallTime).
const stallAfter = 5 * time.Minute

// progress is the record in ProgressKey.
type progress struct {
	ID               uint64      `json:"id,omitempty"`
	Name             string      `json:"name,omitempty"`
	RaftAppliedIndex uint64      `json:"raftAppliedIndex,omitempty"`
	LastProgress     metav1.Time `json:"lastProgress,omitempty"`
}

// track follows one learner. Its clock is this machine's and starts anew on another leader: the time in the record is
// for readers, because two machines' clocks cannot be compared.
type track struct {
	progress
	moved   time.Time // when it last moved
	written time.Time // when the record was
}

// judgement is what is due with a learner.
type judgement int

const (
	wait judgement = iota
	promote
	evict
)

// judge notes where the learner is (zero: it does not answer) and tells what is due.
func (t *track) judge(m *etcdserverpb.Member, applied, last uint64, now time.Time, stall time.Duration) judgement {
	if t.ID != m.ID {
		*t = track{progress: progress{ID: m.ID, LastProgress: metav1.NewTime(now)}, moved: now}
	}
	t.Name = m.Name
	if applied > t.RaftAppliedIndex {
		t.RaftAppliedIndex, t.LastProgress, t.moved = applied, metav1.NewTime(now), now
	}
	if caughtUp(applied, last) {
		return promote
	}
	if now.Sub(t.moved) >= stall {
		return evict
	}
	return wait
}

// tendLearner is the raft leader's part: it promotes a learner whose own supervisor does not, and removes one that
// has stood still, because etcd takes one learner at a time and it keeps all others out.
func (c *Controller) tendLearner(ctx context.Context, m *etcdserverpb.Member, last uint64) error {
	var applied uint64
	for _, url := range m.ClientURLs {
		if state, err := c.status(ctx, url); err == nil {
			applied = state.RaftAppliedIndex
		}
	}
	now := time.Now()
	before := c.learner.RaftAppliedIndex
	due := c.learner.judge(m, applied, last, now, c.stall)
	if c.learner.written.IsZero() || c.learner.RaftAppliedIndex != before && now.Sub(c.learner.written) >= callTimeout {
		c.learner.written = now
		if err := c.writeProgress(ctx); err != nil {
			c.Log.Warn("cannot write the learner's progress", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch due {
	case promote:
		if _, err := c.Client.MemberPromote(ctx, m.ID); err != nil && !errors.Is(err, rpctypes.ErrMemberNotLearner) && !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
			return fmt.Errorf("promote etcd member %s: %w", title(m), err)
		}
	case evict:
		if _, err := c.Client.MemberRemove(ctx, m.ID); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
			return fmt.Errorf("remove etcd member %s, which does not catch up: %w", title(m), err)
		}
		c.Log.Warn("removed a learner that did not catch up; its server joins again when it is started", "member", title(m), "after", c.stall)
	}
	return nil
}

func (c *Controller) writeProgress(ctx context.Context) error {
	content, err := json.Marshal(c.learner.progress)
	if err != nil {
		return fmt.Errorf("render progress: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.Client.Put(ctx, ProgressKey, string(content))
	return err
}

func title(m *etcdserverpb.Member) string {
	if m.Name != "" {
		return m.Name
	}
	return fmt.Sprintf("%x at %v", m.ID, m.PeerURLs)
}

// status asks one member that was just seen in the list; the client has this machine's own as its endpoint, and dials
// others for the one question.
func (c *Controller) status(ctx context.Context, url string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout/5)
	defer cancel()
	return c.Client.Status(ctx, url)
}
