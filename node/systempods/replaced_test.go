package systempods

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func static(uid string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "etcd-a", Annotations: map[string]string{configHash: uid}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

// The API goes away while kube-apiserver is replaced, the pod of before is still there when it comes back, then the new
// one is, and is not ready yet.
func TestWaitReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		client := fake.NewClientset()
		client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			switch since := time.Since(began); {
			case since < 2*time.Second:
				return true, nil, errors.New("connection refused")
			case since < 4*time.Second:
				return true, static("old", corev1.ConditionTrue), nil
			case since < 6*time.Second:
				return true, static("new", corev1.ConditionFalse), nil
			}
			return true, static("new", corev1.ConditionTrue), nil
		})
		if err := WaitReplaced(t.Context(), client, "etcd-a", "new"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 6*time.Second || took > 7*time.Second {
			t.Errorf("returned after %s, want as soon as the new pod is ready", took)
		}
	})
}

func TestWaitReplacedInVain(t *testing.T) {
	waits := static("new", corev1.ConditionFalse)
	waits.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "etcd", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
	ended := static("new", corev1.ConditionFalse)
	ended.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "etcd", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}}}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"none", nil, "not found"},
		{"of before", static("old", corev1.ConditionTrue), "the one before is still there"},
		{"not ready", static("new", corev1.ConditionFalse), "it is not ready"},
		{"waits", waits, "CrashLoopBackOff"},
		{"ended", ended, "ended with code 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset()
				if c.pod != nil {
					client = fake.NewClientset(c.pod)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := WaitReplaced(ctx, client, "etcd-a", "new")
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
		})
	}
}
