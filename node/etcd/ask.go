package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrRemoved is a member that is none any more.
var ErrRemoved = errors.New("this server was removed from the etcd cluster")

// Asked is what of a member's client State needs. The client must know that member alone.
type Asked interface {
	Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error)
	MemberList(ctx context.Context, opts ...clientv3.OpOption) (*clientv3.MemberListResponse, error)
}

// State asks the member at endpoint for its status. A member that was just removed goes on for a second, and a question
// for its status would make it crash (etcd 3.7, RaftCluster.IsLocalMemberLearner): so its own list of members comes
// first, and ErrRemoved is the answer where it is not in it.
func State(ctx context.Context, api Asked, endpoint string) (*clientv3.StatusResponse, error) {
	// Without a quorum, which has nothing to say on it. A learner refuses this, and one that does not answer has its
	// reason told by the next.
	list, err := api.MemberList(ctx, clientv3.WithSerializable())
	if err == nil && !slices.ContainsFunc(list.Members, func(m *etcdserverpb.Member) bool { return m.ID == list.Header.GetMemberId() }) {
		return nil, fmt.Errorf("etcd member %x: %w", list.Header.GetMemberId(), ErrRemoved)
	}
	client, real := api.(*clientv3.Client)
	if !real {
		return api.Status(ctx, endpoint)
	}
	// On the connection that is there: client.Status would make one each time, and give the member time to go.
	state, err := etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Status(ctx, &etcdserverpb.StatusRequest{})
	if err != nil {
		return nil, err
	}
	return (*clientv3.StatusResponse)(state), nil
}
