// Package etcdstore keeps bootstrap data in etcd: bootstrapdata.Store over an etcd client. It never makes or closes
// the client, which is node/server's.
package etcdstore

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keelson/node/bootstrapdata"
)

// Store is a bootstrapdata.Store.
type Store struct{ client *clientv3.Client }

// New returns a store that uses client.
func New(client *clientv3.Client) *Store { return &Store{client: client} }

// List implements bootstrapdata.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]bootstrapdata.Record, error) {
	got, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	var all []bootstrapdata.Record
	for _, kv := range got.Kvs {
		all = append(all, bootstrapdata.Record{Key: string(kv.Key), Value: string(kv.Value), Revision: kv.ModRevision})
	}
	return all, nil
}

// Put implements bootstrapdata.Store with one transaction.
func (s *Store) Put(ctx context.Context, key, value string, revision int64) (bool, error) {
	done, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, value)).
		Commit()
	if err != nil {
		return false, err
	}
	return done.Succeeded, nil
}
