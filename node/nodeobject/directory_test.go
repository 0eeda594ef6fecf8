package nodeobject

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func nodeAt(name string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func TestDirectory(t *testing.T) {
	d := NewDirectory(nil)
	d.put(nodeAt("a", "10.0.0.1", "fd00::1"))
	d.put(nodeAt("b", "10.0.0.2"))
	expect := func(when, host, want string) {
		t.Helper()
		if got, ok := d.NodeOf(host); got != want || ok != (want != "") {
			t.Errorf("%s: %s: got %q, want %q", when, host, got, want)
		}
	}
	expect("at first", "a", "a")
	expect("at first", "10.0.0.1", "a")
	expect("at first", "fd00::1", "a")
	expect("at first", "10.0.0.2", "b")
	expect("at first", "10.0.0.3", "")
	d.put(nodeAt("a", "10.0.0.3"))
	expect("moved", "10.0.0.1", "")
	expect("moved", "10.0.0.3", "a")
	d.put(nodeAt("b", "10.0.0.3")) // a machine took the address of one that is gone
	expect("taken over", "10.0.0.3", "b")
	d.replace("a", nil)
	expect("old owner deleted", "10.0.0.3", "b")
	expect("old owner deleted", "a", "")
	d.put("no node")
	d.replace("b", nil)
	expect("all gone", "10.0.0.3", "")
}

func TestDirectoryFollowsTheCluster(t *testing.T) {
	client := fake.NewClientset(nodeAt("a", "10.0.0.1"))
	d := NewDirectory(client)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	await := func(host, want string) {
		t.Helper()
		deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for {
			if got, _ := d.NodeOf(host); got == want {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s is not of %q", host, want)
			}
		}
	}
	await("10.0.0.1", "a")
	nodes := client.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, nodeAt("b", "10.0.0.2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await("10.0.0.2", "b")
	if err := nodes.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await("10.0.0.1", "")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
