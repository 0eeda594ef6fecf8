package kube

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodesReady waits until the cluster's nodes are exactly those named, and all Ready.
func (c *Client) NodesReady(ctx context.Context, names ...string) error {
	want := slices.Sorted(slices.Values(names))
	lw := listWatch(c, c.CoreV1().Nodes().List, c.CoreV1().Nodes().Watch, "")
	err := until(ctx, c, lw, &corev1.Node{}, func(all []*corev1.Node) (bool, string) {
		var have, seen []string
		ready := true
		for _, n := range all {
			cond := condition(n)
			have = append(have, n.Name)
			seen = append(seen, fmt.Sprintf("%s (Ready is %s: %s)", n.Name, cond.Status, cond.Message))
			ready = ready && cond.Status == corev1.ConditionTrue
		}
		slices.Sort(have)
		return ready && slices.Equal(have, want), "nodes: " + strings.Join(seen, ", ")
	})
	if err != nil {
		return fmt.Errorf("wait for nodes %s: %w", strings.Join(want, " "), err)
	}
	return nil
}

// NodeIs waits until a node's Ready condition has that status.
func (c *Client) NodeIs(ctx context.Context, name string, status corev1.ConditionStatus) error {
	lw := listWatch(c, c.CoreV1().Nodes().List, c.CoreV1().Nodes().Watch, name)
	err := until(ctx, c, lw, &corev1.Node{}, func(all []*corev1.Node) (bool, string) {
		if len(all) == 0 {
			return false, "there is no such node"
		}
		cond := condition(all[0])
		return cond.Status == status, fmt.Sprintf("Ready is %s: %s", cond.Status, cond.Message)
	})
	if err != nil {
		return fmt.Errorf("wait for node %s's Ready to be %s: %w", name, status, err)
	}
	return nil
}

// APIServersAre waits until the endpoints of the kubernetes Service are exactly those given, as host:port.
func (c *Client) APIServersAre(ctx context.Context, endpoints ...string) error {
	want := slices.Sorted(slices.Values(endpoints))
	of := c.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	lw := listWatch(c, of.List, of.Watch, "kubernetes")
	err := until(ctx, c, lw, &discoveryv1.EndpointSlice{}, func(all []*discoveryv1.EndpointSlice) (bool, string) {
		var have []string
		for _, s := range all {
			for _, e := range s.Endpoints {
				for _, p := range s.Ports {
					have = append(have, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
		slices.Sort(have)
		return slices.Equal(have, want), "kube-apiservers: " + strings.Join(have, " ")
	})
	if err != nil {
		return fmt.Errorf("wait for kube-apiservers %s: %w", strings.Join(want, " "), err)
	}
	return nil
}

// DaemonSetReady waits until a DaemonSet's newest generation is available on exactly so many nodes.
func (c *Client) DaemonSetReady(ctx context.Context, namespace, name string, nodes int) error {
	return c.DaemonSetRolled(ctx, namespace, name, 0, nodes)
}

// DaemonSetRolled is DaemonSetReady for a generation or a later one.
func (c *Client) DaemonSetRolled(ctx context.Context, namespace, name string, generation int64, nodes int) error {
	lw := listWatch(c, c.AppsV1().DaemonSets(namespace).List, c.AppsV1().DaemonSets(namespace).Watch, name)
	err := until(ctx, c, lw, &appsv1.DaemonSet{}, func(all []*appsv1.DaemonSet) (bool, string) {
		if len(all) == 0 {
			return false, "it does not exist"
		}
		s := all[0].Status
		return all[0].Generation >= generation && s.ObservedGeneration >= all[0].Generation && int(s.DesiredNumberScheduled) == nodes &&
				int(s.UpdatedNumberScheduled) == nodes && int(s.NumberAvailable) == nodes,
			fmt.Sprintf("generation %d: %d of %d pods are available and %d of it, on %d nodes wanted", all[0].Generation, s.NumberAvailable, s.DesiredNumberScheduled, s.UpdatedNumberScheduled, nodes)
	})
	if err != nil {
		return fmt.Errorf("wait for daemonset %s: %w", name, err)
	}
	return nil
}
