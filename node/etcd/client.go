package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Connection says how to reach a member.
type Connection struct {
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
}

// gRPC retries a connection after a second at first, which is much in a boot; a refused one on loopback costs nothing.
const (
	firstRetry  = 50 * time.Millisecond
	lastRetry   = 500 * time.Millisecond
	askEvery    = 50 * time.Millisecond
	callTimeout = 30 * time.Second // RKE2's bound of a status call
)

// NewClient returns a client that connects when it is first used and waits for a member that is not up yet, as long
// as each call's context allows. The caller closes it.
func NewClient(ctx context.Context, c Connection) (*clientv3.Client, error) {
	tls, err := transport.TLSInfo{TrustedCAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load etcd client certificate: %w", err)
	}
	client, err := clientv3.New(clientv3.Config{
		Context:   ctx,
		Endpoints: c.Endpoints,
		TLS:       tls,
		Logger:    zap.NewNop(), // what matters comes back as an error
		DialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: lastRetry},
				MinConnectTimeout: 5 * time.Second,
			}),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make etcd client: %w", err)
	}
	return client, nil
}

// API is what of the client Check needs.
type API interface {
	Asked
	AlarmList(ctx context.Context) (*clientv3.AlarmResponse, error)
	AlarmDisarm(ctx context.Context, m *clientv3.AlarmMember) (*clientv3.AlarmResponse, error)
	MemberUpdate(ctx context.Context, id uint64, peerURLs []string) (*clientv3.MemberUpdateResponse, error)
}

// Why a member does not serve yet, or will not without help.
var (
	ErrLearner  = errors.New("member is a learner, without a vote")
	ErrNoLeader = errors.New("cluster has no leader")
	ErrAlarm    = errors.New("alarm must be disarmed manually")
	ErrNotOurs  = errors.New("not a member of the cluster under this name and address")
)

// Check tells whether the member at endpoint serves: it votes, has a leader and is in the member list under its name
// and peer URL (k3s pkg/etcd, Test). It clears the member's own no-space alarm, as RKE2 does at every start; if there
// still is no space, the next write raises it again.
func Check(ctx context.Context, api API, endpoint, name, peerURL string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status, err := State(ctx, api, endpoint)
	if err != nil {
		return fmt.Errorf("ask etcd member: %w", err)
	}
	if status.IsLearner {
		return ErrLearner
	}
	if status.Leader == 0 {
		return ErrNoLeader
	}
	if err := clearAlarms(ctx, api, status); err != nil {
		return err
	}
	members, err := api.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list etcd members: %w", err)
	}
	for _, m := range members.Members {
		if m.Name == name && slices.Contains(m.PeerURLs, peerURL) {
			return nil
		}
	}
	return fmt.Errorf("etcd member %s at %s: %w", name, peerURL, ErrNotOurs)
}

// clearAlarms disarms the member's no-space alarm. A status with alarms has them in its Errors.
func clearAlarms(ctx context.Context, api API, status *clientv3.StatusResponse) error {
	if len(status.Errors) == 0 {
		return nil
	}
	alarms, err := api.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("list etcd alarms: %w", err)
	}
	for _, a := range alarms.Alarms {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			return fmt.Errorf("etcd member %x: %s: %w", a.MemberID, a.Alarm, ErrAlarm)
		}
		if a.MemberID != status.Header.MemberId {
			continue
		}
		member := &clientv3.AlarmMember{MemberID: a.MemberID, Alarm: a.Alarm}
		if _, err := api.AlarmDisarm(ctx, member); err != nil {
			return fmt.Errorf("disarm no-space alarm: %w", err)
		}
	}
	return nil
}

// Ready returns once Check succeeds, or at once with what needs an operator. When ctx ends first the error holds the
// last reason.
func Ready(ctx context.Context, api API, endpoint, name, peerURL string) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		err := Check(ctx, api, endpoint, name, peerURL)
		if err == nil || errors.Is(err, ErrAlarm) {
			return err
		}
		if errors.Is(err, ErrNotOurs) {
			if moved, e := readdress(ctx, api, name, peerURL); moved {
				continue
			} else if e != nil {
				err = e
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await etcd: %w", errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// readdress tells a member that is alone its own new address, and whether it did: a machine may come up with another
// lease. With other members the old address is what they know it by, and only they can change it.
func readdress(ctx context.Context, api API, name, peerURL string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	members, err := api.MemberList(ctx)
	if err != nil {
		return false, fmt.Errorf("list etcd members: %w", err)
	}
	if len(members.Members) != 1 || members.Members[0].Name != name {
		return false, nil
	}
	if _, err := api.MemberUpdate(ctx, members.Members[0].ID, []string{peerURL}); err != nil {
		return false, fmt.Errorf("give etcd member %s its new address %s: %w", name, peerURL, err)
	}
	return true, nil
}
