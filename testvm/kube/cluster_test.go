package kube

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func named(name string, ready corev1.ConditionStatus) *corev1.Node {
	n := node(ready, "boot")
	n.Name = name
	return n
}

func apiservers(addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: "default"},
		Ports:      []discoveryv1.EndpointPort{{Port: ptr.To[int32](6443)}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func TestWholeCluster(t *testing.T) {
	c := &Client{Interface: fake.NewClientset(named("b", corev1.ConditionTrue), named("a", corev1.ConditionTrue), apiservers("10.0.0.2", "10.0.0.1"))}
	if err := c.NodesReady(testContext(t), "a", "b"); err != nil {
		t.Error(err)
	}
	if err := c.APIServersAre(testContext(t), "10.0.0.1:6443", "10.0.0.2:6443"); err != nil {
		t.Error(err)
	}
}

func TestPartOfAClusterIsNotTheWhole(t *testing.T) {
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		wait    func(ctx context.Context, c *Client) error
		want    string
	}{
		{"a node is missing", []runtime.Object{named("a", corev1.ConditionTrue)},
			func(ctx context.Context, c *Client) error { return c.NodesReady(ctx, "a", "b") }, "nodes: a (Ready is True"},
		{"a node is not Ready", []runtime.Object{named("a", corev1.ConditionTrue), named("b", corev1.ConditionFalse)},
			func(ctx context.Context, c *Client) error { return c.NodesReady(ctx, "a", "b") }, "b (Ready is False"},
		{"a node too many", []runtime.Object{named("a", corev1.ConditionTrue), named("b", corev1.ConditionTrue)},
			func(ctx context.Context, c *Client) error { return c.NodesReady(ctx, "a") }, "wait for nodes a: "},
		{"an API server is missing", []runtime.Object{apiservers("10.0.0.1")},
			func(ctx context.Context, c *Client) error {
				return c.APIServersAre(ctx, "10.0.0.1:6443", "10.0.0.2:6443")
			}, "kube-apiservers: 10.0.0.1:6443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := givenUp(t, tt.wait, tt.objects...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}
