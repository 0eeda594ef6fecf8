package nodeobject

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestSetCondition(t *testing.T) {
	ctx := within(t, 30*time.Second)
	client := fake.NewClientset(node("a", nil, corev1.ConditionTrue))
	get := func() (found corev1.NodeCondition, all int) {
		n, err := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range n.Status.Conditions {
			if c.Type == "Disk" {
				found = c
			}
		}
		return found, len(n.Status.Conditions)
	}
	set := func(status corev1.ConditionStatus, reason string) {
		t.Helper()
		if err := SetCondition(ctx, client, "a", corev1.NodeCondition{Type: "Disk", Status: status, Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	set(corev1.ConditionTrue, "Low")
	first, all := get()
	if first.Reason != "Low" || first.LastTransitionTime.IsZero() || all != 2 {
		t.Errorf("got %+v, and %d conditions", first, all)
	}
	old := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	n, _ := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
	for i := range n.Status.Conditions {
		n.Status.Conditions[i].LastTransitionTime = old
	}
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	set(corev1.ConditionTrue, "Lower")
	if c, _ := get(); c.Reason != "Lower" || !c.LastTransitionTime.Equal(&old) {
		t.Errorf("the same status: got %+v, want it as old as it was", c)
	}
	set(corev1.ConditionFalse, "Enough")
	if c, all := get(); c.Status != corev1.ConditionFalse || c.LastTransitionTime.Equal(&old) || all != 2 {
		t.Errorf("another status: got %+v, and %d conditions", c, all)
	}
	if err := SetCondition(ctx, client, "b", first); err == nil {
		t.Error("a node that is not there: no error")
	}
}
