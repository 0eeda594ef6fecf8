package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson/node/etcd"
)

// Watch runs beside etcd and ends with ErrRemoved when this member was removed: etcd then stops for good, however
// often its pod is started. Nothing else ends it but ctx. Start, called after etcd's pod is gone, joins anew.
func Watch(ctx context.Context, c Config) error {
	return c.watch(ctx, callTimeout)
}

func (c Config) watch(ctx context.Context, every time.Duration) error {
	self, err := c.connect(ctx, c.endpoint())
	if err != nil {
		return err
	}
	defer self.Close()
	var others []string
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		// What stands behind a quorum: a removed member's own list may not have heard yet.
		list, err := c.list(ctx, self)
		switch {
		case err == nil && !has(list.Members, list.Header.MemberId):
			return fmt.Errorf("etcd member %x: %w", list.Header.MemberId, ErrRemoved)
		case err == nil:
			others = clientURLs(list.Members, list.Header.MemberId)
		case status.Code(err) == codes.FailedPrecondition: // a learner does not say
		case ctx.Err() == nil:
			if lost := c.lost(ctx, c.everybody(ctx, others)); errors.Is(lost, ErrRemoved) {
				return lost
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c Config) list(ctx context.Context, client *clientv3.Client) (*clientv3.MemberListResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	return client.MemberList(ctx)
}

func has(members []*etcdserverpb.Member, id uint64) bool {
	return slices.ContainsFunc(members, func(m *etcdserverpb.Member) bool { return m.ID == id })
}

// everybody adds those to others that Start would ask.
func (c Config) everybody(ctx context.Context, others []string) []string {
	var known etcd.Known
	var id etcd.Identity
	if len(others) == 0 {
		id, _ = etcd.ReadIdentity(c.Member.DataDir)
		known, _ = etcd.ReadKnown(c.Member.DataDir)
	}
	return union(others, c.candidates(ctx, known, id.Member))
}
