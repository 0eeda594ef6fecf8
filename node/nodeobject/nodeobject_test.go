package nodeobject

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func node(name string, labels map[string]string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}},
	}
}

func TestEnsureMarksANodeThatAppearsLater(t *testing.T) {
	ctx := within(t, 30*time.Second)
	client := fake.NewClientset()
	marks := Marks{
		Labels:      map[string]string{LabelEtcd: "true"},
		Annotations: map[string]string{AnnotationInternal: "10.0.2.15"},
	}
	done := make(chan error, 1)
	go func() { done <- Ensure(ctx, client, "a", marks) }()
	nodes := client.CoreV1().Nodes()
	for _, name := range []string{"other", "a"} {
		if _, err := nodes.Create(ctx, node(name, map[string]string{"kept": "yes"}, corev1.ConditionFalse), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, err := nodes.Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Labels[LabelEtcd] != "true" || got.Labels["kept"] != "yes" || got.Annotations[AnnotationInternal] != "10.0.2.15" {
		t.Errorf("got labels %v, annotations %v; want ours added and theirs kept", got.Labels, got.Annotations)
	}
}

// A role that a machine has no more leaves its Node.
func TestEnsureTakesMarksAway(t *testing.T) {
	ctx := within(t, 30*time.Second)
	have := node("a", map[string]string{LabelEtcd: "true", "kept": "yes"}, corev1.ConditionTrue)
	have.Annotations = map[string]string{AnnotationEtcdName: "a-1", "kept": "yes"}
	client := fake.NewClientset(have)
	marks := Marks{Labels: map[string]string{LabelControlPlane: "true"}, Without: []string{LabelEtcd, AnnotationEtcdName, AnnotationEtcdAddrs}}
	for range 2 {
		if err := Ensure(ctx, client, "a", marks); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Labels) != 2 || got.Labels[LabelControlPlane] != "true" || got.Labels["kept"] != "yes" || len(got.Annotations) != 1 || got.Annotations["kept"] != "yes" {
		t.Errorf("got labels %v, annotations %v", got.Labels, got.Annotations)
	}
	patches := 0
	for _, action := range client.Actions() {
		if action.GetVerb() == "patch" {
			patches++
		}
	}
	if patches != 1 {
		t.Errorf("got %d patches, want one", patches)
	}
}

func TestDropCondition(t *testing.T) {
	ctx := within(t, 30*time.Second)
	have := node("a", nil, corev1.ConditionTrue)
	have.Status.Conditions = append(have.Status.Conditions, corev1.NodeCondition{Type: "EtcdIsVoter", Status: corev1.ConditionTrue})
	client := fake.NewClientset(have)
	for range 2 {
		if err := DropCondition(ctx, client, "a", "EtcdIsVoter"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.CoreV1().Nodes().Get(ctx, "a", metav1.GetOptions{})
	if err != nil || len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != corev1.NodeReady {
		t.Errorf("got %+v, %v, want Ready alone", got.Status.Conditions, err)
	}
	if err := DropCondition(ctx, client, "b", "EtcdIsVoter"); err == nil {
		t.Error("a node that is not there: no error")
	}
}

func TestEnsureWritesNothingWhenMarked(t *testing.T) {
	ctx := within(t, 30*time.Second)
	client := fake.NewClientset(node("a", map[string]string{LabelEtcd: "true"}, corev1.ConditionTrue))
	if err := Ensure(ctx, client, "a", Marks{Labels: map[string]string{LabelEtcd: "true"}}); err != nil {
		t.Fatal(err)
	}
	for _, action := range client.Actions() {
		if action.GetVerb() == "patch" {
			t.Error("patched a node that had every mark")
		}
	}
}

func TestWaitReady(t *testing.T) {
	ctx := within(t, 30*time.Second)
	client := fake.NewClientset(node("a", nil, corev1.ConditionFalse))
	done := make(chan error, 1)
	go func() { done <- WaitReady(ctx, client, "a") }()
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node("a", nil, corev1.ConditionTrue), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil once the condition is true", err)
	}
}

func TestWaitReadyEndsWithItsContext(t *testing.T) {
	err := WaitReady(within(t, 200*time.Millisecond), fake.NewClientset(), "a")
	if err == nil {
		t.Error("got nil for a node that never came")
	}
}

func TestContains(t *testing.T) {
	for _, c := range []struct {
		name       string
		have, want map[string]string
		ok         bool
	}{
		{"nothing wanted", nil, nil, true},
		{"nothing there", nil, map[string]string{"a": "1"}, false},
		{"there among others", map[string]string{"a": "1", "b": "2"}, map[string]string{"a": "1"}, true},
		{"another value", map[string]string{"a": "2"}, map[string]string{"a": "1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := contains(c.have, c.want); got != c.ok {
				t.Errorf("got %v, want %v", got, c.ok)
			}
		})
	}
}
