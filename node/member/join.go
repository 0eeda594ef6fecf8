package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keelson/node/etcd"
)

// Join adds this server to the cluster behind endpoints, as a learner, unless an earlier attempt has. It keeps trying
// while another learner is catching up or the cluster is not healthy enough to grow, as long as ctx allows; etcd takes
// one learner at a time, and none before a quorum has been connected for 5 s.
func Join(ctx context.Context, c Config, endpoints []string) (etcd.Initial, error) {
	if len(endpoints) == 0 {
		return etcd.Initial{}, errors.New("join the etcd cluster: no voting member is known; check that the join server is up")
	}
	client, err := c.connect(ctx, endpoints...)
	if err != nil {
		return etcd.Initial{}, err
	}
	defer client.Close()
	said := ""
	for {
		members, err := c.tryJoin(ctx, client)
		if err == nil {
			return initial(members, c.Member.Name, c.Member.PeerURL()), nil
		}
		if !passes(err) {
			return etcd.Initial{}, fmt.Errorf("join the etcd cluster: %w", err)
		}
		if text := err.Error(); text != said {
			said = text
			c.Log.Info("waiting to join the etcd cluster", "reason", text)
		}
		if cause := pause(ctx, pollEvery); cause != nil {
			return etcd.Initial{}, fmt.Errorf("join the etcd cluster: %w", errors.Join(cause, err))
		}
	}
}

// errLearnerFirst is etcd's own refusal, seen in the list before it is asked: the refusal would cost a raft entry.
var errLearnerFirst = errors.New("another server is joining")

func (c Config) tryJoin(ctx context.Context, client *clientv3.Client) ([]*etcdserverpb.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := client.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	joined, err := place(list.Members, c.Node, c.Member.Name, c.Member.PeerURL())
	if err != nil || joined {
		return list.Members, err
	}
	added, err := client.MemberAddAsLearner(ctx, []string{c.Member.PeerURL()})
	if err != nil {
		return nil, err
	}
	c.Log.Info("joined the etcd cluster as a learner", "member", strconv.FormatUint(added.Member.ID, 16), "name", c.Member.Name)
	return added.Members, nil
}

// place tells whether this server is in the list already, or what keeps it out. A member with its address and without
// a name is itself: an attempt that was cut off before etcd started. With its address and its very name it is itself
// too, where etcd had started and its data was lost; but that member cannot come back, because it may have
// acknowledged what it no longer has.
func place(members []*etcdserverpb.Member, node, name, peerURL string) (joined bool, err error) {
	learner := false
	for _, m := range members {
		here := slices.Contains(m.PeerURLs, peerURL)
		switch {
		case here && m.Name == "":
			return true, nil
		case m.Name != "" && etcd.NodeOf(m.Name) == node:
			return false, fmt.Errorf("member %s at %s: %w; if it is this machine with an empty disk, delete the Node %s first (kubectl delete node %s)",
				m.Name, strings.Join(m.PeerURLs, ","), ErrDuplicateName, node, node)
		case here:
			return false, fmt.Errorf("member %s at %s: %w; if that server is gone for good, delete the Node %s first (kubectl delete node %s)",
				m.Name, peerURL, ErrDuplicateAddress, etcd.NodeOf(m.Name), etcd.NodeOf(m.Name))
		}
		learner = learner || m.IsLearner
	}
	if learner {
		return false, errLearnerFirst
	}
	return false, nil
}

// passes tells whether trying again can help.
func passes(err error) bool {
	for _, e := range []error{
		errLearnerFirst, rpctypes.ErrTooManyLearners, rpctypes.ErrUnhealthy, rpctypes.ErrMemberNotEnoughStarted,
		rpctypes.ErrMemberNotFound, // of a number that was removed: etcd makes it of address and second
		rpctypes.ErrPeerURLExist,   // of an attempt whose answer was lost: the next list has it
		context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	if is, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return is.Code() == codes.Unavailable
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// initial is how etcd wants the list: it compares URLs, and takes any name for one that has not started.
func initial(members []*etcdserverpb.Member, name, peerURL string) etcd.Initial {
	var all []string
	for _, m := range members {
		called := m.Name
		if slices.Contains(m.PeerURLs, peerURL) {
			called = name
		} else if called == "" {
			called = strconv.FormatUint(m.ID, 16)
		}
		for _, url := range m.PeerURLs {
			all = append(all, called+"="+url)
		}
	}
	slices.Sort(all) // so that the same membership is the same pod
	return etcd.Initial{Cluster: strings.Join(all, ","), State: "existing"}
}

// Promote returns once this server's etcd votes. It asks for the promotion itself: it knows the moment at which it has
// caught up, and only the raft leader decides. (The leader's Controller promotes as well, should this supervisor be
// gone.) It ends with ErrRemoved or ErrMembersChanged when this member will never start: Start then does what is due.
func Promote(ctx context.Context, c Config, endpoints []string) error {
	self, err := c.connect(ctx, c.endpoint())
	if err != nil {
		return err
	}
	defer self.Close()
	var others []*clientv3.Client // one each: which member answers must be known
	for _, endpoint := range endpoints {
		other, err := c.connect(ctx, endpoint)
		if err != nil {
			return err
		}
		defer other.Close()
		others = append(others, other)
	}
	check := time.Now().Add(reachWithin)
	for {
		state, err := own(ctx, self)
		switch {
		case errors.Is(err, ErrRemoved):
			return err
		case err == nil && !state.IsLearner && state.Leader != 0:
			return nil
		case err == nil && state.IsLearner && len(others) > 0:
			err = advance(ctx, others, state)
			check = time.Now().Add(reachWithin)
		case time.Now().After(check):
			if lost := c.lost(ctx, endpoints); lost != nil {
				return lost
			}
			check = time.Now().Add(reachWithin)
		}
		if cause := pause(ctx, pollEvery); cause != nil {
			return fmt.Errorf("become a voting member: %w", errors.Join(cause, err))
		}
	}
}

// own asks the one member that client is connected to.
func own(ctx context.Context, client *clientv3.Client) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout/5)
	defer cancel()
	return etcd.State(ctx, client, "")
}

// advance promotes a learner that is close enough behind. etcd itself asks for nine tenths of the leader's log; it is
// asked no sooner, because each refusal is an error in the leader's log.
func advance(ctx context.Context, others []*clientv3.Client, learner *clientv3.StatusResponse) error {
	for _, other := range others {
		state, err := own(ctx, other)
		if err != nil || state.Leader == 0 {
			continue
		}
		if !caughtUp(learner.RaftAppliedIndex, state.RaftIndex) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err = other.MemberPromote(ctx, learner.Header.MemberId)
		if errors.Is(err, rpctypes.ErrMemberNotLearner) {
			return nil
		}
		return err
	}
	return errors.New("no voting member answers")
}

func caughtUp(applied, last uint64) bool { return applied > 0 && applied >= last-last/10 }
