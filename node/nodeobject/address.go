package nodeobject

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Readdress gives the Node of a machine that came up elsewhere its internal addresses, and tells those that it had;
// none: they were right, or there is no Node yet. A kubelet with an external cloud provider leaves addresses alone
// (k8s.io/kubernetes pkg/kubelet/nodestatus), and the cloud controller needs its turn first: until then kube-proxy and
// flannel would begin with the address that is gone.
func Readdress(ctx context.Context, client kubernetes.Interface, name string, now []netip.Addr) (was []string, err error) {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look at node %s: %w", name, err)
	}
	var next []corev1.NodeAddress
	for _, a := range now {
		next = append(next, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	stale := false
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			next = append(next, a)
			continue
		}
		was = append(was, a.Address)
		stale = stale || !slices.Contains(next, a)
	}
	if !stale {
		return nil, nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": next}})
	if err != nil {
		return nil, fmt.Errorf("render addresses: %w", err)
	}
	// A merge patch: the list's merge key, its type, is no key of it.
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return nil, fmt.Errorf("readdress node %s: %w", name, err)
	}
	return was, nil
}
