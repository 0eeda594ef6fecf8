package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson/node/nodeobject"
)

// ConditionVoter is the Node condition by which RKE2 shows a server's place in etcd (k3s pkg/etcd, NodeConditionEtcdVoter).
const ConditionVoter corev1.NodeConditionType = "EtcdIsVoter"

// refreshAfter is how old a condition that has not changed may be (k3s pkg/etcd).
const refreshAfter = 5 * time.Minute

// voter is the condition for what the own member said.
func voter(state *clientv3.StatusResponse, err error) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: ConditionVoter, Status: corev1.ConditionFalse}
	switch {
	case errors.Is(err, ErrRemoved):
		c.Reason, c.Message = "NotAMember", "Node is not a member of the etcd cluster"
	case err != nil:
		c.Reason, c.Message = "Unhealthy", "etcd on this node does not answer: "+err.Error()
	case state.Leader == 0:
		c.Reason, c.Message = "Unhealthy", "etcd on this node sees no leader"
	case state.IsLearner:
		c.Reason, c.Message = "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster"
	default:
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "MemberNotLearner", "Node is a voting member of the etcd cluster"
	}
	return c
}

// takenOut tells whether this machine's Node says that its member was removed on request. There is nothing to ask then,
// and a question might meet the member in its last second (see own). The annotations of the next member end it.
func (c *Controller) takenOut() bool {
	if c.Nodes == nil {
		return false
	}
	node, err := c.lister.Get(c.Node)
	return err == nil && node.Annotations[AnnotationRemoved] != "" && node.Annotations[nodeobject.AnnotationEtcdName] == ""
}

// setCondition writes the condition to this machine's Node when it says something new, or is old.
func (c *Controller) setCondition(ctx context.Context, state *clientv3.StatusResponse, problem error, now time.Time) error {
	if c.Nodes == nil {
		return nil
	}
	node, err := c.lister.Get(c.Node)
	if err != nil {
		return nil // not registered yet
	}
	next := voter(state, problem)
	next.LastHeartbeatTime, next.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	if i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == ConditionVoter }); i >= 0 {
		have := node.Status.Conditions[i]
		if have.Status == next.Status {
			next.LastTransitionTime = have.LastTransitionTime
		}
		if have.Status == next.Status && have.Reason == next.Reason && now.Sub(have.LastHeartbeatTime.Time).Abs() < refreshAfter {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{next}}})
	if err != nil {
		return fmt.Errorf("render condition: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.Nodes.CoreV1().Nodes().Patch(ctx, c.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("set condition of node %s: %w", c.Node, err)
	}
	return nil
}
