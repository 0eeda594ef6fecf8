package member

import (
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/nodeobject"
)

// Annotations of a removal (k3s pkg/etcd, with RKE2's group).
const (
	AnnotationRemove  = "etcd.rke2.cattle.io/remove"
	AnnotationRemoved = "etcd.rke2.cattle.io/removed-node-name"
)

// sighting is the Node that a member was last seen with.
type sighting struct {
	Node string    `json:"node"`
	UID  types.UID `json:"uid"`
}

// departure is a member that is to go, and the Node it was seen with.
type departure struct {
	member    *etcdserverpb.Member
	seen      sighting
	requested bool // by annotation; else the Node is gone
}

// compare holds the members against the Nodes: what has been seen by now, and who is to go. A member whose Node was
// never seen stays, and so does one whose Node is there without the annotations (it may have just registered anew).
func compare(members []*etcdserverpb.Member, nodes []*corev1.Node, seen map[uint64]sighting) (map[uint64]sighting, []departure) {
	next := map[uint64]sighting{}
	var gone []departure
	for _, m := range members {
		if node := nodeOf(m, nodes); node != nil {
			s := sighting{Node: node.Name, UID: node.UID}
			next[m.ID] = s
			if strings.EqualFold(node.Annotations[AnnotationRemove], "true") {
				gone = append(gone, departure{member: m, seen: s, requested: true})
			}
			continue
		}
		s, ok := seen[m.ID]
		if !ok {
			continue
		}
		next[m.ID] = s
		i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == s.Node })
		if i < 0 || replaced(nodes[i], s) {
			gone = append(gone, departure{member: m, seen: s})
		}
	}
	return next, gone
}

// nodeOf is the Node with the member's name and address.
func nodeOf(m *etcdserverpb.Member, nodes []*corev1.Node) *corev1.Node {
	for _, n := range nodes {
		name, address := n.Annotations[nodeobject.AnnotationEtcdName], n.Annotations[nodeobject.AnnotationEtcdAddrs]
		if name == "" || name != m.Name || address == "" {
			continue
		}
		if slices.ContainsFunc(m.PeerURLs, func(url string) bool { return hostOf(url) == address }) {
			return n
		}
	}
	return nil
}

// replaced tells whether a Node that has s's name is another, and another member's.
func replaced(n *corev1.Node, s sighting) bool {
	return n.UID != s.UID && n.Annotations[nodeobject.AnnotationEtcdName] != ""
}

// mayGo tells whether the voters that answer still are a quorum of those that stay.
func mayGo(members []*etcdserverpb.Member, healthy map[uint64]*clientv3.StatusResponse, id uint64) bool {
	staying, up := 0, 0
	for _, m := range members {
		if m.ID == id && m.IsLearner {
			return true // it does not count
		}
		if m.IsLearner || m.ID == id {
			continue
		}
		staying++
		if healthy[m.ID] != nil {
			up++
		}
	}
	return staying > 0 && up >= staying/2+1
}

// successor is the voter, other than id, that is furthest; 0 for none.
func successor(members []*etcdserverpb.Member, healthy map[uint64]*clientv3.StatusResponse, id uint64) uint64 {
	var best uint64
	for _, m := range members {
		state := healthy[m.ID]
		if m.ID == id || m.IsLearner || state == nil {
			continue
		}
		if best == 0 || state.RaftAppliedIndex > healthy[best].RaftAppliedIndex {
			best = m.ID
		}
	}
	return best
}
