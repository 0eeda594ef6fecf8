package etcdstore

import (
	"context"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata"
)

// Commit implements bootstrapdata.Transactor with one transaction.
func (s *Store) Commit(ctx context.Context, expect, put []bootstrapdata.Record, remove []string) (bool, error) {
	var conditions []clientv3.Cmp
	var writes []clientv3.Op
	for _, r := range expect {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(r.Key), "=", r.Revision))
	}
	for _, r := range put {
		writes = append(writes, clientv3.OpPut(r.Key, r.Value))
	}
	for _, key := range remove {
		var below []clientv3.OpOption
		if strings.HasSuffix(key, "/") {
			below = append(below, clientv3.WithPrefix())
		}
		writes = append(writes, clientv3.OpDelete(key, below...))
	}
	done, err := s.client.Txn(ctx).If(conditions...).Then(writes...).Commit()
	if err != nil {
		return false, err
	}
	return done.Succeeded, nil
}

// watchAgain is how long a watch that the server has ended rests.
const watchAgain = time.Second

// Changes tells, without saying what, that a key may have changed: at once, at each change, and whenever changes may
// have been missed. Several changes may be told as one. The channel is closed when ctx ends.
func (s *Store) Changes(ctx context.Context, key string) <-chan struct{} {
	told := make(chan struct{}, 1)
	go func() {
		defer close(told)
		for ctx.Err() == nil {
			s.watch(ctx, key, told)
			timer := time.NewTimer(watchAgain)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
	}()
	return told
}

func (s *Store) watch(ctx context.Context, key string, told chan<- struct{}) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx)) // a member that is cut off ends the watch
	defer cancel()
	options := []clientv3.OpOption{clientv3.WithCreatedNotify()}
	if strings.HasSuffix(key, "/") { // all keys below
		options = append(options, clientv3.WithPrefix())
	}
	for range s.client.Watch(ctx, key, options...) {
		select {
		case told <- struct{}{}:
		default: // one is waiting already
		}
	}
}
