// Package kube asks a cluster's API what scenarios need to know: is the node
// Ready, do the pods run, what does a pod say. Every wait is a watch that
// survives the apiserver's restart and ends with its context.
//
// It gets a client-go configuration from package machine and knows nothing of
// virtual machines; Manifests of its own it makes only for pods of package
// workload.
package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client is a cluster as its administrator sees it.
type Client struct {
	kubernetes.Interface
	config *rest.Config // for exec
	looked func()       // told after every look that was in vain, by tests
}

// New makes a client. Its own limits are lifted: a scenario's load is meant.
func New(config *rest.Config) (*Client, error) {
	c := rest.CopyConfig(config)
	c.QPS, c.Burst = 500, 1000
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Client{Interface: set, config: c}, nil
}

// Load makes a client of a kubeconfig's content.
func Load(kubeconfig []byte) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return New(config)
}

// NodeReady waits for the only node to be Ready and returns it.
func (c *Client) NodeReady(ctx context.Context) (*corev1.Node, error) {
	return c.node(ctx, "", func(n *corev1.Node) bool { return true })
}

// NodeReadySince waits for the node to be Ready with a heartbeat, and as the
// machine's boot, that are not those of before.
func (c *Client) NodeReadySince(ctx context.Context, boot string) (*corev1.Node, error) {
	return c.node(ctx, " in another boot", func(n *corev1.Node) bool { return n.Status.NodeInfo.BootID != boot })
}

func (c *Client) node(ctx context.Context, more string, also func(*corev1.Node) bool) (*corev1.Node, error) {
	var found *corev1.Node
	lw := listWatch(c, c.CoreV1().Nodes().List, c.CoreV1().Nodes().Watch, "")
	err := until(ctx, c, lw, &corev1.Node{}, func(all []*corev1.Node) (bool, string) {
		if len(all) == 0 {
			return false, "there is no node"
		}
		found = all[0]
		cond := condition(found)
		return cond.Status == corev1.ConditionTrue && also(found),
			fmt.Sprintf("node %s: Ready is %s: %s: %s", found.Name, cond.Status, cond.Reason, cond.Message)
	})
	if err != nil {
		return nil, fmt.Errorf("wait for node Ready%s: %w", more, err)
	}
	return found, nil
}

func condition(n *corev1.Node) corev1.NodeCondition {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond
		}
	}
	return corev1.NodeCondition{Status: corev1.ConditionUnknown, Reason: "Unreported"}
}

// PodsReady waits until every pod of a namespace is Running and Ready, and the
// pods whose names begin with one of want are among them.
func (c *Client) PodsReady(ctx context.Context, namespace string, want ...string) ([]*corev1.Pod, error) {
	var found []*corev1.Pod
	lw := listWatch(c, c.CoreV1().Pods(namespace).List, c.CoreV1().Pods(namespace).Watch, "")
	err := until(ctx, c, lw, &corev1.Pod{}, func(all []*corev1.Pod) (bool, string) {
		found = all
		problems := Unready(all)
		for _, prefix := range want {
			if !hasPrefix(all, prefix) {
				problems = append(problems, prefix+": there is no such pod")
			}
		}
		return len(problems) == 0, strings.Join(problems, "; ")
	})
	if err != nil {
		return nil, fmt.Errorf("wait for pods of %s: %w", namespace, err)
	}
	return found, nil
}

func hasPrefix(pods []*corev1.Pod, prefix string) bool {
	for _, p := range pods {
		if strings.HasPrefix(p.Name, prefix) {
			return true
		}
	}
	return false
}

// Unready names the pods that are not Running and Ready, and why.
func Unready(pods []*corev1.Pod) []string {
	var problems []string
	for _, p := range pods {
		if why := unready(p); why != "" {
			problems = append(problems, p.Name+": "+why)
		}
	}
	return problems
}

func unready(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "is being deleted"
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue && p.Status.Phase == corev1.PodRunning {
			return ""
		}
	}
	why := string(p.Status.Phase)
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil {
			why += fmt.Sprintf(", %s waits: %s %s", s.Name, w.Reason, w.Message)
		}
		if t := s.State.Terminated; t != nil {
			why += fmt.Sprintf(", %s ended: %s, status %d %s", s.Name, t.Reason, t.ExitCode, t.Message)
		}
	}
	return why + ", not Ready"
}

// DeploymentReady waits until all replicas of the newest generation are available.
func (c *Client) DeploymentReady(ctx context.Context, namespace, name string) error {
	lw := listWatch(c, c.AppsV1().Deployments(namespace).List, c.AppsV1().Deployments(namespace).Watch, name)
	err := until(ctx, c, lw, &appsv1.Deployment{}, func(all []*appsv1.Deployment) (bool, string) {
		if len(all) == 0 {
			return false, "it does not exist"
		}
		d := all[0]
		s := d.Status
		return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == *d.Spec.Replicas && s.AvailableReplicas == *d.Spec.Replicas,
			fmt.Sprintf("%d of %d replicas are available", s.AvailableReplicas, *d.Spec.Replicas)
	})
	if err != nil {
		pods, lerr := c.CoreV1().Pods(namespace).List(context.WithoutCancel(ctx), metav1.ListOptions{TimeoutSeconds: seconds(5 * time.Second)})
		if lerr == nil {
			for i := range pods.Items {
				err = fmt.Errorf("%w; pod %s: %s", err, pods.Items[i].Name, unready(&pods.Items[i]))
			}
		}
		return fmt.Errorf("wait for deployment %s: %w", name, err)
	}
	return nil
}

func seconds(d time.Duration) *int64 {
	s := int64(d / time.Second)
	return &s
}
