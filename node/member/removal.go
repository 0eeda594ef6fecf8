package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/nodeobject"
)

// SeenKey holds which Node each member was last seen with, so that a deletion is found that no supervisor was there to
// see. It lies in etcd as the Nodes do: a restored snapshot has the two of the same moment.
const SeenKey = "rke2/etcd/memberNodes"

// followNodes removes the members whose Nodes were deleted or ask for it.
func (c *Controller) followNodes(ctx context.Context, self uint64, members []*etcdserverpb.Member) error {
	nodes, err := c.lister.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	seen, err := c.readSeen(ctx)
	if err != nil {
		return err
	}
	next, gone := compare(members, nodes, seen)
	if !maps.Equal(seen, next) {
		if err := c.writeSeen(ctx, next); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// One at a time: the next round sees what has become of it.
	d := gone[0]
	if really, err := c.confirm(ctx, d); err != nil || !really {
		return err
	}
	return c.depart(ctx, d, self, members)
}

// confirm asks the cluster itself, because what an informer knows may be old.
func (c *Controller) confirm(ctx context.Context, d departure) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	node, err := c.Nodes.CoreV1().Nodes().Get(ctx, d.seen.Node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return !d.requested, nil
	case err != nil:
		return false, fmt.Errorf("look at node %s: %w", d.seen.Node, err)
	}
	same := nodeOf(d.member, []*corev1.Node{node}) != nil
	if d.requested {
		return same && node.UID == d.seen.UID, nil
	}
	return !same && replaced(node, d.seen), nil
}

// depart removes the member, if that leaves a quorum. Leadership goes first: the server that gets it has the same
// Nodes before it and removes this one.
func (c *Controller) depart(ctx context.Context, d departure, self uint64, members []*etcdserverpb.Member) error {
	m := d.member
	healthy := c.healthy(ctx, members)
	if !mayGo(members, healthy, m.ID) {
		return c.refuse(ctx, d, rpctypes.ErrMemberNotEnoughStarted)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	if m.ID == self {
		to := successor(members, healthy, self)
		if _, err := c.Client.MoveLeader(ctx, to); err != nil {
			return fmt.Errorf("move leadership away from %s, which is to be removed: %w", title(m), err)
		}
		c.Log.Info("moved etcd's leadership away, because this member is to be removed", "to", fmt.Sprintf("%x", to))
		return nil
	}
	_, err := c.Client.MemberRemove(ctx, m.ID)
	switch {
	case errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		return c.refuse(ctx, d, err)
	case err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound):
		return fmt.Errorf("remove etcd member %s: %w", title(m), err)
	}
	c.Log.Warn("removed an etcd member", "member", title(m), "node", d.seen.Node, "requested", d.requested)
	if !d.requested {
		return nil
	}
	return c.annotate(ctx, d.seen.Node, map[string]any{
		AnnotationRemove: nil, nodeobject.AnnotationEtcdName: nil, nodeobject.AnnotationEtcdAddrs: nil, AnnotationRemoved: m.Name,
	})
}

// refuse drops a request that cannot be granted; a deleted Node stays a reason, and is tried again.
func (c *Controller) refuse(ctx context.Context, d departure, why error) error {
	c.Log.Warn("an etcd member cannot be removed without losing quorum; bring another server up first", "member", title(d.member), "node", d.seen.Node, "reason", why)
	if !d.requested {
		return nil
	}
	return c.annotate(ctx, d.seen.Node, map[string]any{AnnotationRemove: nil})
}

func (c *Controller) annotate(ctx context.Context, node string, annotations map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("render annotations: %w", err)
	}
	if _, err := c.Nodes.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotate node %s: %w", node, err)
	}
	return nil
}

// healthy asks every voter, all at once.
func (c *Controller) healthy(ctx context.Context, members []*etcdserverpb.Member) map[uint64]*clientv3.StatusResponse {
	var lock sync.Mutex
	var all sync.WaitGroup
	up := map[uint64]*clientv3.StatusResponse{}
	for _, m := range members {
		if len(m.ClientURLs) == 0 || m.IsLearner {
			continue
		}
		all.Go(func() {
			if state, err := c.status(ctx, m.ClientURLs[0]); err == nil && state.Leader != 0 && state.Header.MemberId == m.ID {
				lock.Lock()
				defer lock.Unlock()
				up[m.ID] = state
			}
		})
	}
	all.Wait()
	return up
}

func (c *Controller) readSeen(ctx context.Context) (map[uint64]sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	have, err := c.Client.Get(ctx, SeenKey)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", SeenKey, err)
	}
	seen := map[uint64]sighting{}
	if len(have.Kvs) == 0 {
		return seen, nil
	}
	if err := json.Unmarshal(have.Kvs[0].Value, &seen); err != nil {
		// Who was seen is seen again; only a deletion of the meantime is missed.
		c.Log.Warn("unreadable record of the members' nodes; starting another", "key", SeenKey, "error", err)
		return map[uint64]sighting{}, nil
	}
	return seen, nil
}

func (c *Controller) writeSeen(ctx context.Context, seen map[uint64]sighting) error {
	content, err := json.Marshal(seen)
	if err != nil {
		return fmt.Errorf("render %s: %w", SeenKey, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.Client.Put(ctx, SeenKey, string(content)); err != nil {
		return fmt.Errorf("write %s: %w", SeenKey, err)
	}
	return nil
}
