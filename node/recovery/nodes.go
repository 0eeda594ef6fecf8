package recovery

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// minions is where kube-apiserver keeps Nodes in etcd (Kubernetes' pkg/registry/core/node, whose name is of old). Their
// names are the keys' ends; the API itself may not serve where a token is recovered.
const minions = "/registry/minions/"

// Nodes names the machines of the cluster, which may have the token before in their settings.
func Nodes(ctx context.Context, kv clientv3.KV) ([]string, error) {
	got, err := kv.Get(ctx, minions, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var names []string
	for _, kv := range got.Kvs {
		names = append(names, strings.TrimPrefix(string(kv.Key), minions))
	}
	return names, nil
}
