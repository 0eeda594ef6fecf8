package member

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// AddressesKey holds where kube-apiservers are reached, for servers that run none (k3s pkg/etcd, AddressKey).
const AddressesKey = "rke2/apiaddresses"

// Publish keeps AddressesKey at the latest of the addresses that come in, until ctx ends or the channel is closed. An
// empty list is passed over: it says that this server sees no kube-apiserver, not that there is none. Every server
// that has a kube-apiserver publishes, since the raft leader may be one that has none; all see the same object.
func Publish(ctx context.Context, kv clientv3.KV, addresses <-chan []string, log *slog.Logger) error {
	var latest []string
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case next, open := <-addresses:
			if !open {
				if retry == nil {
					return nil
				}
				addresses = nil
				continue
			}
			latest = next
		case <-retry:
		}
		retry = nil
		if len(latest) == 0 {
			continue
		}
		if err := putAddresses(ctx, kv, latest); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			log.Warn("cannot publish the addresses of kube-apiserver", "error", err)
			retry = time.After(time.Second)
		} else if addresses == nil {
			return nil
		}
	}
}

// putAddresses writes only what is new, and never over a value that it has not seen.
func putAddresses(ctx context.Context, kv clientv3.KV, addresses []string) error {
	content, err := renderAddresses(addresses)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		have, err := kv.Get(ctx, AddressesKey)
		if err != nil {
			return fmt.Errorf("read %s: %w", AddressesKey, err)
		}
		var revision int64
		if len(have.Kvs) == 1 {
			if bytes.Equal(have.Kvs[0].Value, content) {
				return nil
			}
			revision = have.Kvs[0].ModRevision
		}
		done, err := kv.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(AddressesKey), "=", revision)).
			Then(clientv3.OpPut(AddressesKey, string(content))).Commit()
		if err != nil {
			return fmt.Errorf("write %s: %w", AddressesKey, err)
		}
		if done.Succeeded {
			return nil
		}
	}
}

// renderAddresses is a JSON array and a line feed.
func renderAddresses(addresses []string) ([]byte, error) {
	if addresses == nil {
		addresses = []string{}
	}
	content, err := json.Marshal(addresses)
	if err != nil {
		return nil, fmt.Errorf("render addresses: %w", err)
	}
	return append(content, '\n'), nil
}

// Addresses reads AddressesKey; none before a kube-apiserver serves.
func Addresses(ctx context.Context, kv clientv3.KV) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	have, err := kv.Get(ctx, AddressesKey)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", AddressesKey, err)
	}
	if len(have.Kvs) == 0 || len(bytes.TrimSpace(have.Kvs[0].Value)) == 0 {
		return nil, nil
	}
	return parseAddresses(have.Kvs[0].Value)
}

// ClearAddresses makes the list empty, as a reset does: none of the servers in it is known to be there any more.
func ClearAddresses(ctx context.Context, kv clientv3.KV) error {
	content, err := renderAddresses(nil)
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, AddressesKey, string(content)); err != nil {
		return fmt.Errorf("clear %s: %w", AddressesKey, err)
	}
	return nil
}

func parseAddresses(content []byte) ([]string, error) {
	var addresses []string
	if err := json.Unmarshal(content, &addresses); err != nil {
		return nil, fmt.Errorf("read %s: %w", AddressesKey, err)
	}
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, fmt.Errorf("read %s: %w", AddressesKey, err)
		}
	}
	return addresses, nil
}
