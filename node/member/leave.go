package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"keelson/node/etcd"
)

// What keeps a server from leaving etcd.
var (
	ErrLastMember = errors.New("this is the only member of its etcd cluster, and everything that the cluster knows is in it")
	ErrNoMajority = errors.New("the other members do not answer with a majority")
)

// Leave takes this server out of etcd, for settings that give it none any more, and puts its data away; it tells where
// to. A server without data has nothing to leave. etcd must not run. What is cut off in the middle is gone on with: a
// member that the others know no more only has its data put away.
//
// With ErrNoMajority it may be tried again: etcd lets nobody go without a majority of the others, and two members have
// none when one of them is off.
func Leave(ctx context.Context, c Config) (old string, err error) {
	dataDir := c.Member.DataDir
	if has, err := etcd.HasData(dataDir); err != nil || !has {
		return "", err
	}
	if running, err := etcd.Running(dataDir); err != nil || running {
		return "", errors.Join(err, etcd.ErrInUse)
	}
	id, err := etcd.ReadIdentity(dataDir)
	if err != nil {
		return "", err
	}
	known, err := etcd.ReadKnown(dataDir)
	if err != nil {
		return "", err
	}
	answers := c.askAll(ctx, c.candidates(ctx, known, id.Member))
	switch verdict(answers, id) {
	case absent:
	case present:
		if err := c.remove(ctx, responsive(answers), id.Member); err != nil {
			return "", err
		}
	case divided:
		return "", fmt.Errorf("etcd member %x: %w; stop the servers that shall not go on (nothing was changed)", id.Member, ErrTwoClusters)
	default:
		if len(known.Members) == 1 && known.Members[0].ID == id.Member {
			return "", fmt.Errorf("etcd member %x: %w; have other servers join first, or remove disable-etcd (nothing was changed)", id.Member, ErrLastMember)
		}
		return "", fmt.Errorf("etcd member %x: %w; start them, or have one more join before this one leaves (nothing was changed)", id.Member, ErrNoMajority)
	}
	return etcd.Replace(dataDir, nil, time.Now())
}

// remove asks the others to let a member go.
func (c Config) remove(ctx context.Context, endpoints []string, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, err := c.connect(ctx, endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.MemberRemove(ctx, id)
	switch {
	case err == nil, errors.Is(err, rpctypes.ErrMemberNotFound):
		return nil
	case passes(err):
		return fmt.Errorf("etcd member %x: %w: %w", id, ErrNoMajority, err)
	}
	return fmt.Errorf("remove etcd member %x: %w", id, err)
}
