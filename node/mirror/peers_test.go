package mirror

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"keelson/node/nodeobject"
)

// machine is a Node that shares images.
func machine(name string, change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{Label: "true"}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "10.0.0." + name[len(name)-1:]}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	if change != nil {
		change(n)
	}
	return n
}

func TestWhoIsAPeer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*corev1.Node)
		want   []string
	}{
		{"a node that shares", nil, []string{"10.0.0.2:9345"}},
		{"IPv6", func(n *corev1.Node) { n.Status.Addresses[1].Address = "fd00::2" }, []string{"[fd00::2]:9345"}},
		{"not Ready", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, nil},
		{"says nothing of Ready", func(n *corev1.Node) { n.Status.Conditions = nil }, nil},
		{"no address", func(n *corev1.Node) { n.Status.Addresses = nil }, nil},
		{"an address that is a name", func(n *corev1.Node) { n.Status.Addresses[1].Address = "elsewhere.example" }, nil},
		{"does not share", func(n *corev1.Node) { delete(n.Labels, Label) }, nil},
		{"shares no more", func(n *corev1.Node) { n.Labels[Label] = "false" }, nil},
		{"itself", func(n *corev1.Node) { n.Name = "n-1" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPeers(fake.NewClientset(), "n-1", "9345")
			n, err := slim(machine("n-2", c.change))
			if err != nil {
				t.Fatal(err)
			}
			p.put(n)
			if got := p.List(); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// A cluster of any size takes a bounded list, whose members still change and go.
func TestPeersAreBounded(t *testing.T) {
	p := NewPeers(fake.NewClientset(), "n-1", "9345")
	for i := range mostPeers + 10 {
		p.set(fmt.Sprint(i), "10.0.0.1:1")
	}
	p.set("0", "10.0.0.2:1")
	p.set("1", "")
	p.set("new", "10.0.0.3:1")
	got := p.List()
	if len(got) != mostPeers || !slices.Contains(got, "10.0.0.2:1") || !slices.Contains(got, "10.0.0.3:1") {
		t.Errorf("got %d, with the changed one %v, with the new one %v", len(got), slices.Contains(got, "10.0.0.2:1"), slices.Contains(got, "10.0.0.3:1"))
	}
}

// Run follows the cluster: nodes come, change, stop sharing and go.
func TestPeersFollow(t *testing.T) {
	client := fake.NewClientset(machine("n-1", nil), machine("n-2", nil))
	p := NewPeers(client, "n-1", "9345")
	changed := make(chan struct{}, 100)
	p.changed = func() { changed <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	until := func(want ...string) {
		t.Helper()
		for {
			got := p.List()
			slices.Sort(got)
			if slices.Equal(got, want) {
				return
			}
			<-changed
		}
	}
	nodes := client.CoreV1().Nodes()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	until("10.0.0.2:9345")
	must(nodes.Create(ctx, machine("n-3", nil), metav1.CreateOptions{}))
	until("10.0.0.2:9345", "10.0.0.3:9345")
	must(nodes.Update(ctx, machine("n-3", func(n *corev1.Node) { n.Status.Addresses[1].Address = "10.0.0.9" }), metav1.UpdateOptions{}))
	until("10.0.0.2:9345", "10.0.0.9:9345")
	must(nodes.Update(ctx, machine("n-2", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionFalse }), metav1.UpdateOptions{}))
	until("10.0.0.9:9345")
	must(nil, nodes.Delete(ctx, "n-3", metav1.DeleteOptions{}))
	until()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A deletion that was missed comes with what was known last.
func TestMissedDeletion(t *testing.T) {
	p := NewPeers(fake.NewClientset(), "n-1", "9345")
	p.put(machine("n-2", nil))
	p.drop(cache.DeletedFinalStateUnknown{Key: "n-2", Obj: machine("n-2", nil)})
	if got := p.List(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestMark(t *testing.T) {
	var on, off nodeobject.Marks
	Mark(&on, true)
	Mark(&off, false)
	if on.Labels[Label] != "true" || len(on.Without) != 0 {
		t.Errorf("a node that shares: got %+v", on)
	}
	if len(off.Labels) != 0 || !slices.Contains(off.Without, Label) {
		t.Errorf("a node that does not: got %+v", off)
	}
}
