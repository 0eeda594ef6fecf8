package nodeobject

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// SetCondition puts one condition on the Node and leaves the others alone, which are the kubelet's and its neighbours'.
// The time of its last change stays what it is while its status does.
func SetCondition(ctx context.Context, client kubernetes.Interface, name string, c corev1.NodeCondition) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at node %s: %w", name, err)
	}
	c.LastHeartbeatTime = metav1.NewTime(time.Now())
	c.LastTransitionTime = c.LastHeartbeatTime
	if i := slices.IndexFunc(node.Status.Conditions, func(have corev1.NodeCondition) bool { return have.Type == c.Type }); i >= 0 {
		if have := node.Status.Conditions[i]; have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{c}}})
	if err != nil {
		return fmt.Errorf("render condition: %w", err)
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("set condition %s of node %s: %w", c.Type, name, err)
	}
	return nil
}
