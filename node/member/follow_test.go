package member

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"keelson/node/nodeobject"
)

func (m *machine) controller(t *testing.T, nodes kubernetes.Interface) *Controller {
	t.Helper()
	c, err := NewController(ControllerConfig{Node: m.name, Client: m.lan.client(t, m), Nodes: nodes, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func node(name, uid, member, address string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(uid), Labels: map[string]string{nodeobject.LabelEtcd: "true"}, Annotations: map[string]string{},
	}}
	if member != "" {
		n.Annotations[nodeobject.AnnotationEtcdName], n.Annotations[nodeobject.AnnotationEtcdAddrs] = member, address
	}
	return n
}

// followed: the leader's Node is deleted, then a removal is asked for that must be refused and one that is granted.
func followed(ctx context.Context, t *testing.T, l *lan, all []*machine) {
	client := fake.NewClientset()
	nodes := client.CoreV1().Nodes()
	for _, m := range all {
		if _, err := nodes.Create(ctx, node(m.name, m.name, m.params.Name, m.address), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	for _, m := range all {
		c := m.controller(t, client)
		go func() { _ = c.Run(running) }()
	}
	condition := func(m *machine) string {
		n, err := nodes.Get(ctx, m.name, metav1.GetOptions{})
		if err != nil {
			return ""
		}
		for _, c := range n.Status.Conditions {
			if c.Type == ConditionVoter {
				return c.Reason
			}
		}
		return ""
	}
	for _, m := range all {
		eventually(ctx, t, m.name+" is shown as a voter", func() bool { return condition(m) == "MemberNotLearner" })
	}
	old, rest := leader(ctx, t, all...)
	seen := l.client(t, rest...)
	eventually(ctx, t, "the Nodes have been seen", func() bool {
		got, err := seen.Get(ctx, SeenKey)
		return err == nil && len(got.Kvs) == 1
	})
	if err := nodes.Delete(ctx, old.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the leader without a Node is no member", func() bool {
		v, _ := voters(ctx, t, seen)
		return v == 2
	})
	<-old.etcd.Server.StopNotify()

	// One of the two that are left may go as long as both are up, the last one never.
	request(ctx, t, client, rest[0].name)
	eventually(ctx, t, "the request is granted", func() bool {
		n, err := nodes.Get(ctx, rest[0].name, metav1.GetOptions{})
		return err == nil && n.Annotations[AnnotationRemoved] == rest[0].params.Name && n.Annotations[AnnotationRemove] == "" && n.Annotations[nodeobject.AnnotationEtcdName] == ""
	})
	last := l.client(t, rest[1])
	if v, _ := voters(ctx, t, last); v != 1 {
		t.Errorf("got %d voters, want one", v)
	}
	eventually(ctx, t, "the removed one is shown as none", func() bool { return condition(rest[0]) == "NotAMember" })

	request(ctx, t, client, rest[1].name)
	eventually(ctx, t, "the request of the last one is dropped", func() bool {
		n, err := nodes.Get(ctx, rest[1].name, metav1.GetOptions{})
		_, asks := n.Annotations[AnnotationRemove]
		return err == nil && !asks
	})
	if v, _ := voters(ctx, t, last); v != 1 {
		t.Errorf("got %d voters, want the last one to stay", v)
	}
}

func request(ctx context.Context, t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+AnnotationRemove+`":"true"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
