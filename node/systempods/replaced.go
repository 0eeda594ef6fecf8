package systempods

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// configHash holds the UID of a static pod's manifest on the pod that stands for it in the API (k8s.io/kubernetes
// pkg/kubelet/types, ConfigHashAnnotationKey).
const configHash = "kubernetes.io/config.hash"

// askEvery is how often the API is asked for one pod. A watch would not do: among the pods is the kube-apiserver that
// would serve it.
const askEvery = 500 * time.Millisecond

// WaitReplaced returns once the static pod name of kube-system is the one whose manifest has this UID, and is Ready.
// Errors of the API are waited out.
func WaitReplaced(ctx context.Context, client kubernetes.Interface, name, uid string) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		pod, err := client.CoreV1().Pods(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			if pod.Annotations[configHash] == uid && pod.DeletionTimestamp == nil && isReady(pod) {
				return nil
			}
			err = errors.New(state(pod, uid))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await static pod %s: %w: %w", name, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// state says what keeps a pod from being what is awaited.
func state(pod *corev1.Pod, uid string) string {
	if pod.Annotations[configHash] != uid {
		return "the one before is still there"
	}
	for _, c := range pod.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			return fmt.Sprintf("container %s waits: %s %s", c.Name, c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil:
			return fmt.Sprintf("container %s has ended with code %d: %s", c.Name, c.State.Terminated.ExitCode, c.State.Terminated.Message)
		}
	}
	return "it is not ready"
}
