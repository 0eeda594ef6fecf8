package systempods

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func pod(name string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		},
	}
}

func TestWaitReady(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := fake.NewClientset(pod("etcd-a", corev1.ConditionTrue), pod("coredns-1", corev1.ConditionFalse))
	done := make(chan error, 1)
	go func() { done <- WaitReady(ctx, client, []string{"etcd-", "coredns-"}) }()
	if _, err := client.CoreV1().Pods(metav1.NamespaceSystem).Update(ctx, pod("coredns-1", corev1.ConditionTrue), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("got %v, want nil once all are ready", err)
	}
}

func TestWaitReadyNamesWhatIsMissing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	client := fake.NewClientset(pod("etcd-a", corev1.ConditionTrue), pod("coredns-1", corev1.ConditionFalse))
	err := WaitReady(ctx, client, []string{"etcd-", "flannel-"})
	if err == nil || !strings.Contains(err.Error(), "coredns-1, flannel-") {
		t.Errorf("got %v, want an error that names coredns-1 and flannel-", err)
	}
}

func TestMissing(t *testing.T) {
	for _, c := range []struct {
		name   string
		ready  map[string]bool
		wanted []string
		want   []string
	}{
		{"nothing there", nil, []string{"b-", "a-"}, []string{"a-", "b-"}},
		{"all there", map[string]bool{"a-1": true}, []string{"a-"}, nil},
		{"one of two replicas is not ready", map[string]bool{"a-1": true, "a-2": false}, []string{"a-"}, []string{"a-2"}},
		{"an unknown pod counts too", map[string]bool{"a-1": true, "x": false}, []string{"a-"}, []string{"x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := missing(c.ready, c.wanted); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestIsReadyTakesAFinishedPod(t *testing.T) {
	done := pod("job-1", corev1.ConditionFalse)
	done.Status.Phase = corev1.PodSucceeded
	if !isReady(done) {
		t.Error("a succeeded pod: got not ready, want ready")
	}
	if isReady(&corev1.Pod{}) {
		t.Error("a pod without conditions: got ready, want not")
	}
}
