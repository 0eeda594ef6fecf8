package kube

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// PrintNode writes a node as `kubectl get nodes -o wide` does (the columns of
// k8s.io/kubernetes pkg/printers/internalversion, printNode).
func PrintNode(w io.Writer, n *corev1.Node, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	status := "NotReady"
	if condition(n).Status == corev1.ConditionTrue {
		status = "Ready"
	}
	info := n.Status.NodeInfo
	fmt.Fprintln(t, "NAME\tSTATUS\tROLES\tAGE\tVERSION\tINTERNAL-IP\tEXTERNAL-IP\tOS-IMAGE\tKERNEL-VERSION\tCONTAINER-RUNTIME")
	fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, status, Roles(n),
		now.Sub(n.CreationTimestamp.Time).Round(time.Second), info.KubeletVersion,
		address(n, corev1.NodeInternalIP), address(n, corev1.NodeExternalIP),
		info.OSImage, info.KernelVersion, info.ContainerRuntimeVersion)
	return t.Flush()
}

const roleLabel = "node-role.kubernetes.io/"

// Roles of a node, as its labels say them, in order.
func Roles(n *corev1.Node) string {
	var roles []string
	for label := range n.Labels {
		if role, ok := strings.CutPrefix(label, roleLabel); ok && role != "" {
			roles = append(roles, role)
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	slices.Sort(roles)
	return strings.Join(roles, ",")
}

func address(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}
