// Package nodeobject looks after this machine's Node object: it puts RKE2's labels and annotations on it and tells
// when it is Ready, by a watch on that one object. It never registers the Node (the kubelet does) and never touches
// what other owners keep there. How Nodes are listed and followed stands here too, for all who do.
package nodeobject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	watchtools "k8s.io/client-go/tools/watch"
)

// Labels and annotations of a server, as RKE2 has them (k3s pkg/agent/run.go, pkg/nodeconfig, pkg/etcd).
const (
	LabelControlPlane   = "node-role.kubernetes.io/control-plane"
	LabelEtcd           = "node-role.kubernetes.io/etcd"
	AnnotationHostname  = "rke2.io/hostname"
	AnnotationInternal  = "rke2.io/internal-ip"
	AnnotationExternal  = "rke2.io/external-ip"
	AnnotationEtcdName  = "etcd.rke2.cattle.io/node-name"
	AnnotationEtcdAddrs = "etcd.rke2.cattle.io/node-address"
	// AnnotationFirstUse is ours: the hash of the cluster's authority, where the node trusted it because it was the first
	// one seen.
	AnnotationFirstUse = "keelson.io/trusted-on-first-use"
)

// Marks are the labels and annotations that this machine wants on its Node.
type Marks struct {
	Labels      map[string]string
	Annotations map[string]string
	Without     []string // labels and annotations that are to go: of a role that the machine has no more
}

// Ensure waits until the Node exists and then puts marks on it; it writes nothing when they are there already.
func Ensure(ctx context.Context, client kubernetes.Interface, name string, marks Marks) error {
	node, err := until(ctx, client, name, func(*corev1.Node) bool { return true })
	if err != nil {
		return fmt.Errorf("await node %s: %w", name, err)
	}
	labels, annotations := wanted(marks.Labels, node.Labels, marks.Without), wanted(marks.Annotations, node.Annotations, marks.Without)
	if contains(node.Labels, marks.Labels) && contains(node.Annotations, marks.Annotations) && len(labels) == len(marks.Labels) && len(annotations) == len(marks.Annotations) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err != nil {
		return fmt.Errorf("render marks of node %s: %w", name, err)
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("mark node %s: %w", name, err)
	}
	return nil
}

// WaitReady returns once the Node's Ready condition is true.
func WaitReady(ctx context.Context, client kubernetes.Interface, name string) error {
	if _, err := until(ctx, client, name, isReady); err != nil {
		return fmt.Errorf("await readiness of node %s: %w", name, err)
	}
	return nil
}

func isReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// until watches the one Node and returns it as soon as done holds.
func until(ctx context.Context, client kubernetes.Interface, name string, done func(*corev1.Node) bool) (*corev1.Node, error) {
	selector := fields.OneTermEqualSelector("metadata.name", name).String()
	lw := ListWatch(client, func(o *metav1.ListOptions) { o.FieldSelector = selector })
	var found *corev1.Node
	_, err := watchtools.UntilWithSync(ctx, lw, &corev1.Node{}, nil, func(event watch.Event) (bool, error) {
		node, ok := event.Object.(*corev1.Node)
		if !ok || event.Type == watch.Deleted || !done(node) {
			return false, nil
		}
		found = node
		return true, nil
	})
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	return found, nil
}

// wanted is what a merge patch says: values to set, and null for what is there and must go.
func wanted(set, have map[string]string, without []string) map[string]*string {
	patch := map[string]*string{}
	for key, value := range set {
		patch[key] = &value
	}
	for _, key := range without {
		if _, ok := have[key]; ok {
			patch[key] = nil
		}
	}
	return patch
}

func contains(have, want map[string]string) bool {
	for key, value := range want {
		if got, ok := have[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// DropCondition takes a condition off the Node that nobody looks after any more.
func DropCondition(ctx context.Context, client kubernetes.Interface, name string, kind corev1.NodeConditionType) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at node %s: %w", name, err)
	}
	if !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == kind }) {
		return nil
	}
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"$patch":"delete"}]}}`, kind)
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("take condition %s off node %s: %w", kind, name, err)
	}
	return nil
}
